/**
 * Where the dynamic loader looks for a library that another one needs: ld.so(8). Told apart is what
 * the system has (the loader's own directories, its cache, `LD_LIBRARY_PATH`) and what a library
 * says of where its own dependencies are.
 */

import { realpathSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ElfFile } from '../elf/elf-file.js';
import { codeOf } from '../system-errors.js';
import { type LoaderCache, readLoaderCache } from './loader-cache.js';

/** What the directories of a machine's libraries are called (`$LIB`, and Debian's). */
const TRIPLETS: Partial<Record<string, string>> = {
  x64: 'x86_64-linux-gnu',
  arm64: 'aarch64-linux-gnu',
  ia32: 'i386-linux-gnu',
  arm: 'arm-linux-gnueabihf',
  riscv64: 'riscv64-linux-gnu',
  ppc64: 'powerpc64le-linux-gnu',
  s390x: 's390x-linux-gnu',
  loong64: 'loongarch64-linux-gnu',
};

/** `$PLATFORM` */
const PLATFORMS: Partial<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' };

/** A library that was found. */
export interface Found {
  path: string;
  /** Whether it was found where the library that needs it, or the one that needs that, says. */
  byLibrary: boolean;
}

export class LibrarySearch {
  readonly #variables: readonly string[];
  readonly #cache: LoaderCache;
  readonly #defaults: readonly string[];
  readonly #systemDirectories: ReadonlySet<string>;
  readonly #like: ElfFile;

  /**
   * `variable` is `LD_LIBRARY_PATH` as the process that loads has it; what is found is for the same
   * machine as `like`.
   */
  constructor(variable: string, like: ElfFile) {
    // An empty part stands for the working directory: what is there, is there by chance.
    this.#variables = variable.split(/[:;]/).filter((part) => part !== '');
    this.#cache = readLoaderCache();
    this.#like = like;
    const triplet = TRIPLETS[process.arch];
    const names = ['lib64', 'usr/lib64', 'lib', 'usr/lib'];
    if (triplet !== undefined) names.unshift(`lib/${triplet}`, `usr/lib/${triplet}`);
    // musl's.
    names.push('usr/local/lib');
    this.#defaults = names.map((name) => `/${name}`);
    const { directories: cached } = this.#cache;
    const directories = new Set([...this.#defaults, ...this.#variables, ...cached]);
    this.#systemDirectories = new Set([...directories, ...[...directories].map(realPathOf)]);
  }

  /** Whether a file is the system's by where it is. */
  isSystemPath(path: string): boolean {
    const directory = dirname(path);
    return (
      this.#systemDirectories.has(directory) || this.#systemDirectories.has(realPathOf(directory))
    );
  }

  /**
   * The library called `name`, for one that wants it to be looked for in these places; null if
   * there is none.
   */
  find(name: string, rpath: readonly string[], runpath: readonly string[]): Found | null {
    const own = this.#in(rpath, name);
    if (own !== null) return { path: own, byLibrary: true };
    const named = this.#in(this.#variables, name);
    if (named !== null) return { path: named, byLibrary: false };
    const listed = this.#in(runpath, name);
    if (listed !== null) return { path: listed, byLibrary: true };
    const cached = this.#cache.paths.get(name)?.find((path) => this.isLibrary(path));
    const path = cached ?? this.#in(this.#defaults, name);
    return path === null ? null : { path, byLibrary: false };
  }

  /** The library called `name` in one of these directories. */
  #in(directories: readonly string[], name: string): string | null {
    return (
      directories.map((directory) => join(directory, name)).find((path) => this.isLibrary(path)) ??
      null
    );
  }

  /**
   * Whether there is a library for this process: the loader passes over files for other machines.
   */
  isLibrary(path: string): boolean {
    try {
      return isFile(path) && this.#like.isLike(path);
    } catch (error) {
      // What cannot be read here, be it the file or a directory on the way (a search path often
      // names the build's), the loader cannot load either.
      if (codeOf(error) !== undefined) return false;
      throw error;
    }
  }

  /** A library beside another one, for whoever forgot to say so. */
  beside(directories: readonly string[], name: string): string | null {
    return this.#in(directories, name);
  }
}

/**
 * The directories of a search path, `$ORIGIN` and its like replaced. `$LIB` differs from system to
 * system: both ways are looked at.
 */
export function expand(searchPath: string | null, origins: readonly string[]): string[] {
  const directories = (searchPath ?? '').split(':').filter((part) => part !== '');
  return directories.flatMap((directory) => expandTokens(directory, origins));
}

/** The paths that a name with `$ORIGIN` and its like can stand for. */
export function expandTokens(text: string, origins: readonly string[]): string[] {
  const libs = [`lib/${TRIPLETS[process.arch] ?? ''}`, 'lib64', 'lib'];
  const platform = PLATFORMS[process.arch] ?? process.arch;
  let all = [text];
  const replace = (token: RegExp, values: readonly string[]) => {
    all = all.flatMap((each) =>
      new RegExp(token).test(each) ? values.map((value) => each.replace(token, () => value)) : each,
    );
  };
  replace(/\$(?:ORIGIN\b|\{ORIGIN\})/g, origins);
  replace(/\$(?:LIB\b|\{LIB\})/g, libs);
  replace(/\$(?:PLATFORM\b|\{PLATFORM\})/g, [platform]);
  return all;
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function realPathOf(path: string): string {
  try {
    // Node's own implementation asks the system about every directory on the way.
    return realpathSync.native(path);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return path;
  }
}
