/**
 * What a library needs and what has to be changed in it, from ELF files alone. Runs in a worker
 * thread; all that goes in and out is plain data.
 */

import type { BindingOption } from '../../options.js';
import { type BindingDecision, decideBinding } from '../binding/decide.js';
import { ProcessScope } from '../binding/process-scope.js';
import { canStartThreads, isSystemRuntime, keepsThreads } from '../binding/runtime.js';
import { shimObstacle } from '../binding/shim.js';
import { Closure, type Library } from '../dependencies/closure.js';
import { readLoaderCache } from '../dependencies/loader-cache.js';
import { MappedLibraries } from '../dependencies/mapped.js';
import { LibrarySearch } from '../dependencies/search.js';
import { ElfFile } from '../elf/elf-file.js';
import { type Pins, pinsOf } from '../pins.js';
import { messageOf } from '../system-errors.js';

export interface SurveyTask {
  /** The private copy, which is what is looked at. */
  copyPath: string;
  /** Where the library was deployed. */
  sourcePath: string;
  /** `LD_LIBRARY_PATH` of the process that will load it, as it was when that process started. */
  libraryPath: string;
  /** What the option says. */
  binding: BindingOption;
  /** Whether that is a process of its own. */
  inOwnProcess: boolean;
}

/** The library itself, or one that it needs. */
export interface SurveyedLibrary {
  /** As it is asked for. */
  name: string;
  /** Null if there is none. */
  path: string | null;
  isOwn: boolean;
  keepsThreads: boolean;
  /** All names that it is asked for by. */
  names: string[];
  /** Names that it asks for, with the place of the library in the survey. */
  needs: { name: string; index: number }[];
  /**
   * What its copy's search path is to be behind the place of the copies; null if it may stay as it
   * is.
   */
  search: string[] | null;
  shadowed: Library['shadowed'];
  /** What will keep it in memory, of itself and of what comes along. */
  pins: Pins | null;
  /** Whether it has unique symbols, if it is the version's own. */
  hasUnique: boolean;
}

export interface Survey {
  /** The library itself comes first. */
  libraries: SurveyedLibrary[];
  /** What it may open by name while it runs. */
  opened: { name: string; path: string; shadowed: Library['shadowed'] }[];
  /** What comes along and cannot be read. */
  damaged: { name: string; path: string }[];
  /** Unique symbols that a library which all versions share defines too. */
  sharedStatics: { symbols: string[]; libraries: string[] };
  /** Paths of the system's libraries that must stay mapped. */
  keepMapped: string[];
  /** What may leave memory with the library, of the system's. */
  mayUnload: string[];
  /** Whether anything but the C and C++ runtime can start a thread. */
  mayStartThreads: boolean;
  binding: BindingDecision;
}

/**
 * What the process has had since it was started. It is read once, for as long as this thread lives.
 */
let atStart: MappedLibraries | null = null;
let scope: ProcessScope | null = null;

/** @throws {ElfError} if the library cannot be read. */
export function survey(task: SurveyTask): Survey {
  const root = ElfFile.open(task.copyPath);
  try {
    atStart ??= MappedLibraries.atStart();
    const mapped = task.inOwnProcess ? atStart : MappedLibraries.now();
    const search = new LibrarySearch(task.libraryPath, root);
    const closure = new Closure({ root, sourcePath: task.sourcePath, search, mapped });
    try {
      return describe(closure, atStart, decide(closure, task.binding));
    } finally {
      closure.close();
    }
  } finally {
    root.close();
  }
}

/** Reads ahead what every survey needs. What cannot be read is told when it is needed. */
export function warmUp(): void {
  try {
    atStart ??= MappedLibraries.atStart();
    readLoaderCache();
    scope ??= ProcessScope.open();
  } catch {
    // See `survey` and `decide`.
  }
}

/** Also reads what most surveys need, which takes longer. */
export function readAhead(): void {
  warmUp();
  scope?.readAhead();
}

function decide({ libraries }: Closure, wanted: BindingOption): BindingDecision {
  try {
    scope ??= ProcessScope.open();
  } catch (error) {
    // A library of the system's was replaced since: what is in the process cannot be read any more.
    return undecided(wanted, messageOf(error));
  }
  return decideBinding(libraries, scope, wanted, shimObstacle(scope));
}

function undecided(wanted: BindingOption, obstacle: string): BindingDecision {
  const mode = wanted === 'own' ? 'own' : 'default';
  const reason = `what this process is made of cannot be read: ${obstacle}`;
  return { report: { mode, reason, symbols: [], symbolCount: 0 }, withShim: false, conflict: null };
}

function describe(
  { libraries, opened, damaged }: Closure,
  atStart: MappedLibraries,
  binding: BindingDecision,
): Survey {
  const shared = libraries.filter(({ isOwn }) => !isOwn);
  const statics = sharedStatics(libraries, shared);
  const surveyed = libraries.map((library, index) => ({
    name: library.name,
    path: library.path,
    isOwn: library.isOwn,
    keepsThreads: index > 0 && keepsThreads(library.name, library.elf),
    names: [...library.names],
    needs: library.needs.flatMap((need) =>
      need.library === null ? [] : [{ name: need.name, index: libraries.indexOf(need.library) }],
    ),
    search: newSearchPath(library, index === 0),
    shadowed: library.shadowed,
    pins: library.isOwn || index === 0 ? pinsOf(library.elf) : null,
    hasUnique: (library.isOwn || index === 0) && library.elf.unique.length > 0,
  }));
  const missing = libraries
    .flatMap(({ needs }) => needs)
    .filter(({ library }) => library === null)
    .map(({ name }) => absent(name));
  const lasting = surveyed.filter((each) => !each.isOwn && each.keepsThreads);
  const keepMapped = new Set([...lasting, ...statics.definedBy].map(({ path }) => path as string));
  return {
    libraries: [...surveyed, ...missing],
    opened,
    damaged,
    sharedStatics: {
      symbols: statics.symbols,
      libraries: statics.definedBy.map(({ name }) => name),
    },
    keepMapped: [...keepMapped],
    mayUnload: shared
      .filter(({ names, path }) => !isHeld(names, atStart) && !keepMapped.has(path))
      .map(({ path }) => path),
    mayStartThreads: libraries.some(
      ({ name, elf }) => !isSystemRuntime(elf.soname ?? name) && canStartThreads(elf),
    ),
    binding,
  };
}

/** Unique symbols of own libraries that a shared one defines as well: those have to stay one. */
function sharedStatics(
  libraries: readonly Library[],
  shared: readonly Library[],
): { symbols: string[]; definedBy: Library[] } {
  const symbols = new Set<string>();
  const definedBy = new Set<Library>();
  for (const { elf } of libraries.filter(({ isOwn }) => isOwn)) {
    for (const index of elf.unique) {
      const hash = elf.nameHashOf(index);
      const candidates = shared.filter((library) => library.elf.mayDefine(hash));
      if (candidates.length === 0) continue;
      const name = elf.nameOf(index);
      const holders = candidates.filter((library) => library.elf.find(name, hash) !== undefined);
      if (holders.length > 0) symbols.add(name);
      for (const holder of holders) definedBy.add(holder);
    }
  }
  return { symbols: [...symbols], definedBy: [...definedBy] };
}

/**
 * What is behind `$ORIGIN` in it stays where it was. A place whose name has a meaning in such a
 * path cannot be given.
 */
function newSearchPath(library: Library, isRoot: boolean): string[] | null {
  if (!library.isOwn) return null;
  const { runpath, rpath } = library.elf;
  const needsOwn = library.needs.some((need) => need.library?.isOwn === true);
  if (isRoot && !needsOwn && !/\$/.test(`${runpath}${rpath}`)) return null;
  const places = new Set([...library.rpath, ...library.search]);
  return [...places].filter((place) => !/[:$]/.test(place));
}

function isHeld(names: ReadonlySet<string>, libraries: MappedLibraries): boolean {
  return [...names].some((name) => libraries.find(name) !== null);
}

function absent(name: string): SurveyedLibrary {
  const nothing = { needs: [], search: null, shadowed: null, pins: null, hasUnique: false };
  return { name, path: null, isOwn: false, keepsThreads: false, names: [name], ...nothing };
}
