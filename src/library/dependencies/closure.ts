/**
 * A library and all that it needs, directly or not, as the dynamic loader would find it: breadth
 * first, and nothing twice that was found under one of its names before.
 *
 * What a library brings along is *own*: it was found where that library says (`RPATH`, `RUNPATH`,
 * or beside it), and not in a place of the system's. Whatever needs something own must be own too,
 * since it has to ask for another name.
 */

import { realpathSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { ClosureLibrary } from '../binding/runtime.js';
import { isSystemRuntime } from '../binding/runtime.js';
import { ElfError } from '../elf/bytes.js';
import { ElfFile } from '../elf/elf-file.js';
import { codeOf } from '../system-errors.js';
import type { MappedLibraries, MappedLibrary } from './mapped.js';
import { namesInside } from './names-inside.js';
import { expand, expandTokens, type LibrarySearch } from './search.js';

/** More than any program needs; the loader has no limit. */
const MOST_LIBRARIES = 4096;

export interface Need {
  /** As the library that needs it asks for it. */
  name: string;
  /** Null if there is none. */
  library: Library | null;
}

export interface Library extends ClosureLibrary {
  /** Without symbolic links. */
  path: string;
  isOwn: boolean;
  /** What it is asked for by, and what it calls itself. */
  names: Set<string>;
  needs: Need[];
  /**
   * Where its own dependencies are looked for, and what it opens by name: with no `$ORIGIN` any
   * more.
   */
  search: string[];
  /** Of the libraries that need it and have no `RUNPATH`, where they have theirs looked for. */
  rpath: string[];
  /**
   * The file that would have been found, had the process not loaded another one under the same name
   * already.
   */
  shadowed: { by: string; isGone: boolean; wanted: string } | null;
}

export interface ClosureParts {
  /** What is read of the library that all this is about. */
  root: ElfFile;
  /** Where it was deployed, which is where it looks for its neighbours. */
  sourcePath: string;
  search: LibrarySearch;
  /** What the process has that will load it. */
  mapped: MappedLibraries;
}

/** The library itself comes first. Whoever gets it must `close` it. */
export class Closure {
  readonly libraries: Library[] = [];
  /**
   * What own libraries may open by name while they run, as far as there is such a file: it is the
   * process's, whoever opens it first.
   */
  readonly opened: { name: string; path: string; shadowed: Library['shadowed'] }[] = [];
  /** What comes along and cannot be read. */
  readonly damaged: { name: string; path: string }[] = [];
  readonly #parts: ClosureParts;

  constructor(parts: ClosureParts) {
    this.#parts = parts;
    const { root, sourcePath } = parts;
    // A link to a library that is elsewhere: its neighbours are there.
    const origins = [...new Set([dirname(sourcePath), dirname(realpathSync.native(sourcePath))])];
    try {
      this.#add(basename(sourcePath), realpathSync.native(sourcePath), root, origins, true, []);
      for (let index = 0; index < this.libraries.length; index++) {
        if (index > MOST_LIBRARIES) throw new ElfError(`it needs more than ${index} libraries`);
        this.#resolveNeeds(this.libraries[index] as Library);
      }
      this.#spreadOwn();
      this.#findOpened();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Closes what was opened here, which the root was not. */
  close(): void {
    for (const { elf } of this.libraries) if (elf !== this.#parts.root) elf.close();
  }

  get root(): Library {
    return this.libraries[0] as Library;
  }

  #add(
    name: string,
    path: string,
    elf: ElfFile,
    origins: readonly string[],
    isOwn: boolean,
    inherited: readonly string[],
  ): Library {
    const { runpath, rpath, soname } = elf;
    const names = new Set([name]);
    if (soname !== null) names.add(soname);
    const ownRpath = runpath === null ? expand(rpath, origins) : [];
    const library: Library = {
      name,
      path,
      elf,
      isOwn,
      names,
      needs: [],
      shadowed: null,
      search: [...ownRpath, ...expand(runpath, origins)],
      rpath: runpath === null ? [...ownRpath, ...inherited] : [],
    };
    this.libraries.push(library);
    return library;
  }

  #resolveNeeds(library: Library): void {
    for (const name of library.elf.needed) {
      library.needs.push({ name, library: this.#resolve(name, library) });
    }
  }

  #resolve(name: string, by: Library): Library | null {
    const known = this.libraries.find(({ names }) => names.has(name));
    if (known !== undefined) return known;
    const found = this.#find(name, by);
    const { mapped, search } = this.#parts;
    const isOwn =
      found?.byLibrary === true && !search.isSystemPath(found.path) && !isSystemRuntime(name);
    // What comes along is not looked for under its old name any more; all else is what the process
    // has.
    const held = isOwn ? null : mapped.find(name);
    // What is mapped may have been removed since; then what is there instead is as good as can be.
    const path = held !== null && search.isLibrary(held.path) ? held.path : found?.path;
    if (path === undefined) return null;
    const real = realPathOf(path);
    // Another name of one that is there.
    const same = this.libraries.find((library) => library.path === real);
    if (same !== undefined && same !== this.root) {
      same.names.add(name);
      return same;
    }
    const elf = openLibrary(real);
    if (elf === null) {
      if (isOwn) this.damaged.push({ name, path: real });
      return null;
    }
    const library = this.#add(name, real, elf, [dirname(path), dirname(real)], isOwn, by.rpath);
    library.shadowed = shadowOf(held, found);
    return library;
  }

  #find(name: string, by: Library): { path: string; byLibrary: boolean } | null {
    const { search, sourcePath } = this.#parts;
    const origins = by === this.root ? [dirname(sourcePath), dirname(by.path)] : [dirname(by.path)];
    if (name.includes('/')) {
      const path = expandTokens(name, origins).find((each) => search.isLibrary(each));
      return path === undefined ? null : { path, byLibrary: by.isOwn };
    }
    const runpath = by.elf.runpath === null ? [] : by.search;
    const found = search.find(name, by.rpath, runpath);
    // What the system's libraries say of where theirs are is the system's affair.
    if (found !== null) return { ...found, byLibrary: found.byLibrary && this.#isOwnPlace(by) };
    const neighbour = by.isOwn ? search.beside(origins, name) : null;
    return neighbour === null ? null : { path: neighbour, byLibrary: true };
  }

  /**
   * Whether the places where a library's dependencies are looked for are those of something that
   * came along.
   */
  #isOwnPlace(by: Library): boolean {
    return by.isOwn || (by.elf.runpath === null && by.elf.rpath === null && by.rpath.length > 0);
  }

  #findOpened(): void {
    const { mapped } = this.#parts;
    for (const library of this.libraries.filter(({ isOwn }) => isOwn)) {
      for (const name of namesInside(library.elf)) {
        const isKnown = this.libraries.some(({ names }) => names.has(name));
        if (isKnown || this.opened.some((each) => each.name === name)) continue;
        const found = this.#find(name, library);
        if (found === null) continue;
        const path = realPathOf(found.path);
        this.opened.push({ name, path, shadowed: shadowOf(mapped.find(name), found) });
      }
    }
  }

  #spreadOwn(): void {
    for (let grew = true; grew; ) {
      grew = false;
      for (const library of this.libraries) {
        const needsOwn = library.needs.some((need) => need.library?.isOwn === true);
        if (library.isOwn || !needsOwn) continue;
        library.isOwn = true;
        grew = true;
      }
    }
  }
}

/** Whether what is mapped is something else than what would be found. */
function shadowOf(held: MappedLibrary | null, found: { path: string } | null): Library['shadowed'] {
  if (held === null || found === null) return null;
  const wanted = realPathOf(found.path);
  if (!held.isGone && wanted === realPathOf(held.path)) return null;
  return { by: held.path, isGone: held.isGone, wanted };
}

/** Null if it cannot be read. */
function openLibrary(path: string): ElfFile | null {
  try {
    return ElfFile.open(path);
  } catch (error) {
    if (error instanceof ElfError || codeOf(error) !== undefined) return null;
    throw error;
  }
}

function realPathOf(path: string): string {
  try {
    return realpathSync.native(path);
  } catch (error) {
    // What is mapped may be gone.
    if (codeOf(error) === undefined) throw error;
    return path;
  }
}
