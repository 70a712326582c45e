/**
 * Where this process's dynamic loader looks for a symbol first: the executable, what is preloaded,
 * and what the executable needs. ld.so(8) calls it the global scope.
 *
 * Read from the list of mappings and from the files, so any thread can, and nothing has to be
 * loaded for it. Linux only.
 */

import { readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { ElfError } from '../elf/bytes.js';
import { PT } from '../elf/constants.js';
import { ElfFile, type ElfSymbol } from '../elf/elf-file.js';
import { gnuHash } from '../elf/hash.js';
import { codeOf } from '../system-errors.js';
import { isSystemRuntime } from './runtime.js';

const EXECUTABLE = '/proc/self/exe';
/** `ET_EXEC`: the addresses in the file are those in memory. */
const AT_FIXED_PLACE = 2;
/** Relocations that make a copy in the executable (`R_X86_64_COPY` and so on), by `e_machine`. */
const COPY_TYPES: Partial<Record<number, number>> = { 21: 19, 22: 9, 62: 5, 183: 1024, 243: 4 };
const DELETED = ' (deleted)';

/** A file of the global scope. */
export interface ScopeFile {
  /** As the list of mappings has it. */
  path: string;
  elf: ElfFile;
  /** What is added to the addresses in the file. */
  bias: number;
  isExecutable: boolean;
  /** Whether it belongs to the C or C++ runtime. */
  isRuntime: boolean;
}

export interface ScopeSymbol {
  file: ScopeFile;
  symbol: ElfSymbol;
}

/** A mapped library before it is known whether it belongs to the scope. */
interface Candidate {
  path: string;
  /** Where its first byte is mapped. */
  start: number;
}

export class ProcessScope {
  /** In the order in which they are searched. */
  readonly files: readonly ScopeFile[];
  /** Why some of them are not there, or null if all are. */
  readonly gap: string | null;
  /** Of those, what does not belong to the C and C++ runtime. */
  readonly #foreign: readonly ElfFile[];
  #copies: ReadonlySet<number> | undefined;

  private constructor({ files, gap }: Pick<ProcessScope, 'files' | 'gap'>) {
    this.files = files;
    this.gap = gap;
    this.#foreign = files.filter(({ isRuntime }) => !isRuntime).map(({ elf }) => elf);
  }

  /**
   * Opens this process's files; `close()` closes them.
   *
   * @throws {Error} if the executable cannot be read.
   */
  static open(): ProcessScope {
    return new ProcessScope(new ScopeReader(readFileSync('/proc/self/maps', 'utf8')));
  }

  close(): void {
    for (const { elf } of this.files) elf.close();
  }

  /** Reads what nearly every library is compared with: the executable has megabytes of names. */
  readAhead(): void {
    for (const elf of this.#foreign) elf.readAhead();
  }

  get executable(): ScopeFile {
    const [executable] = this.files;
    if (executable === undefined) throw new Error('every process has an executable');
    return executable;
  }

  /** What a library with ordinary binding gets for a name. */
  find(name: string): ScopeSymbol | null {
    return firstIn(this.files, name);
  }

  /** Whether the executable, or something else than the C and C++ runtime, defines a name. */
  isForeign(name: string, hash: number): boolean {
    return this.#foreign.some((elf) => elf.find(name, hash) !== undefined);
  }

  /** The same by a name's hash alone: false is certain. */
  mayBeForeign(hash: number): boolean {
    return this.#foreign.some((elf) => elf.mayDefine(hash));
  }

  /** Whether the C or C++ runtime defines a name, whoever else does. */
  isOfRuntime(name: string, hash: number): boolean {
    return this.files.some(({ isRuntime, elf }) => isRuntime && elf.find(name, hash) !== undefined);
  }

  /**
   * Whether a symbol of the executable is the copy of another library's data, which everybody then
   * uses in the original's place.
   */
  isCopy(symbol: ElfSymbol): boolean {
    this.#copies ??= copiesIn(this.executable.elf);
    return this.#copies.has(symbol.value);
  }
}

/** The first of `files` that defines a name. */
export function firstIn(files: readonly ScopeFile[], name: string): ScopeSymbol | null {
  const hash = gnuHash(name);
  for (const file of files) {
    const symbol = file.elf.find(name, hash);
    if (symbol !== undefined) return { file, symbol };
  }
  return null;
}

function copiesIn(elf: ElfFile): ReadonlySet<number> {
  const type = COPY_TYPES[elf.machine];
  const places = new Set<number>();
  for (const relocation of elf.relocations()) {
    if (relocation.type === type) places.add(relocation.address);
  }
  return places;
}

/** Finds and opens the files of the scope. */
class ScopeReader {
  readonly files: ScopeFile[] = [];
  gap: string | null = null;
  readonly #libraries: readonly Candidate[];
  /** All that was looked into; null is what cannot be read. */
  readonly #opened = new Map<string, ScopeFile | null>();

  constructor(maps: string) {
    const executablePath = readlinkSync(EXECUTABLE);
    const candidates = mappedFiles(maps);
    const start = candidates.find(({ path }) => path === executablePath)?.start ?? 0;
    this.#libraries = candidates.filter(
      ({ path }) => path !== executablePath && basename(path).includes('.so'),
    );
    const elf = ElfFile.open(EXECUTABLE);
    const bias = biasOf(elf, start);
    this.files.push({ path: executablePath, elf, bias, isExecutable: true, isRuntime: false });
    try {
      for (const name of preloadedNames()) this.#add(name);
      // In the loader's order: breadth first.
      for (let index = 0; index < this.files.length; index++) {
        for (const name of this.files[index]?.elf.needed ?? []) this.#add(name);
      }
    } catch (error) {
      // The libraries are closed below, since none of them is a file of the scope any more.
      this.files.length = 0;
      elf.close();
      throw error;
    } finally {
      for (const file of this.#opened.values()) {
        if (file !== null && !this.files.includes(file)) file.elf.close();
      }
    }
  }

  /**
   * Adds the mapped library that a name stands for: by its file's name, which is quick, or by what
   * it calls itself.
   */
  #add(name: string): void {
    const wanted = basename(name);
    const realPath = name.includes('/') ? realPathOf(name) : null;
    const found =
      this.#libraries.find(({ path }) => basename(path) === wanted) ??
      this.#libraries.find(
        (library) => library.path === realPath || this.#open(library)?.elf.soname === wanted,
      );
    const file = found === undefined ? null : this.#open(found);
    if (file !== null) {
      if (!this.files.includes(file)) this.files.push(file);
      return;
    }
    const replaced = this.#libraries.find(
      ({ path }) => path.endsWith(DELETED) && basename(path).startsWith(wanted),
    );
    if (replaced !== undefined) {
      this.gap ??= `${replaced.path.slice(0, -DELETED.length)} has been replaced since this process started`;
    }
  }

  #open({ path, start }: Candidate): ScopeFile | null {
    let file = this.#opened.get(path);
    if (file === undefined) {
      file = path.endsWith(DELETED) ? null : readLibrary(path, start);
      this.#opened.set(path, file);
    }
    return file;
  }
}

/** Null if it is no library, whatever it is called, or cannot be read. */
function readLibrary(path: string, start: number): ScopeFile | null {
  try {
    const elf = ElfFile.open(path);
    const isRuntime = isSystemRuntime(elf.soname ?? basename(path));
    return { path, elf, bias: biasOf(elf, start), isExecutable: false, isRuntime };
  } catch (error) {
    if (error instanceof ElfError || codeOf(error) !== undefined) return null;
    throw error;
  }
}

function realPathOf(path: string): string | null {
  try {
    return realpathSync(path);
  } catch {
    return null;
  }
}

/**
 * What was preloaded when the process started, in that order. A worker thread's own environment
 * does not tell.
 */
function preloadedNames(): string[] {
  const prefix = 'LD_PRELOAD=';
  const variables = readText('/proc/self/environ').split('\0');
  const fromEnvironment = variables.find((text) => text.startsWith(prefix))?.slice(prefix.length);
  const fromSystem = readText('/etc/ld.so.preload').replaceAll(/#.*/g, '');
  // ld.so(8): separated by spaces or colons, and by white space in the file.
  const names = [...(fromEnvironment ?? '').split(/[ :]+/), ...fromSystem.split(/[\s:]+/)];
  return names.filter((name) => name !== '');
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Most systems have no list of their own; without /proc/self/maps nobody comes here.
    return '';
  }
}

function biasOf(elf: ElfFile, start: number): number {
  if (elf.type === AT_FIXED_PLACE) return 0;
  const first = elf.segments.find(({ type }) => type === PT.LOAD);
  return start - (first === undefined ? 0 : first.address - first.offset);
}

/**
 * The files that a text of `/proc/<pid>/maps` lists, each with the place where its first byte is
 * mapped.
 */
function mappedFiles(maps: string): Candidate[] {
  const files = new Map<string, Candidate>();
  for (const line of maps.split('\n')) {
    const [, start, offset, path] =
      /^([0-9a-f]+)-\S+ \S+ ([0-9a-f]+) \S+ \d+\s+(\/.*)$/.exec(line) ?? [];
    if (start === undefined || offset === undefined || path === undefined) continue;
    if (Number.parseInt(offset, 16) !== 0 || files.has(path)) continue;
    files.set(path, { path, start: Number.parseInt(start, 16) });
  }
  return [...files.values()];
}
