/**
 * Which binding a library gets, decided from ELF files before anything is loaded.
 *
 * The node executable exports some 70,000 symbols, those of its zlib, OpenSSL, ICU and SQLite among
 * them, and with ordinary binding a library that brings its own gets Node's. So a library whose
 * closure imports a name that both the executable and the closure define is bound to its own first.
 * All others are bound as any program's libraries are.
 *
 * Own binding alone would take two things away that ordinary binding gives: data that the
 * executable holds as a copy of the C library's (`environ`, `std::cerr`), and functions that a
 * preloaded library stands in for (`malloc`). A runtime shim gives them back (see shim.ts). Where
 * there can be none, and the library uses one of these, no binding is right.
 */

import { basename } from 'node:path';
import type { BindingOption } from '../../options.js';
import { DF, DT } from '../elf/constants.js';
import { type ElfFile, hashNames } from '../elf/elf-file.js';
import { gnuHash } from '../elf/hash.js';
import type { Binding } from '../load-plan.js';
import type { ProcessScope } from './process-scope.js';
import { type ClosureLibrary, isSystemRuntime } from './runtime.js';

/** How a library's symbols are bound, and why. */
export interface BindingReport {
  /** `default`: the node executable comes first. `own`: the library and its dependencies do. */
  mode: Binding;
  reason: string;
  /**
   * Names that both the executable and the library or its dependencies define, and that are used;
   * at most 20 of them.
   */
  symbols: string[];
  /** How many there are. */
  symbolCount: number;
}

/** Why no binding is right. Plain data: it crosses threads. */
export interface BindingConflict {
  /** What the library must get from itself or its dependencies; at most 20. */
  own: string[];
  /** What it must get from where ordinary binding finds it; at most 20. */
  shared: string[];
  obstacle: string;
}

export type BindingDecision =
  | { report: BindingReport; withShim: boolean; conflict: null }
  | { report: null; withShim: false; conflict: BindingConflict };

const MOST_SYMBOLS = 20;

/**
 * Copies in the executable whose originals nobody initialises. `stdin`, `stdout` and `stderr` are
 * alike in both places, and so is what is constant: vtables, type information, `std::nothrow`.
 */
const UNUSABLE_ORIGINAL =
  /^(?:_{0,2}environ|_{0,2}(?:timezone|tzname|daylight)|_ZSt[345]w?(?:cin|cout|cerr|clog))$/;

/**
 * Functions that give and take back memory. Taken from one allocator, it must not be given to
 * another.
 */
const ALLOCATION = hashNames(['malloc', 'calloc', 'realloc', 'free', 'strdup', '_Znwm', '_ZdlPv']);

/**
 * What every C++ library has of the standard library's templates. It is the same wherever it comes
 * from.
 */
const STANDARD_TEMPLATE = /^_Z(?:T[VISCT]|GV)?Z*N?[VKRO]*(?:S[tabsiod]|9__gnu_cxx|10__cxxabiv1)/;

/** `RTLD_DEEPBIND` makes these end the process: https://github.com/google/sanitizers/issues/611 */
const SANITIZERS = ['__asan_init', '__tsan_init', '__msan_init', '__hwasan_init', '__memprof_init'];

/**
 * Decides for the library that comes first in `closure`. `scope` is this process's; `wanted` is
 * what the option `binding` says. `shimObstacle` is why there can be no shim, or null.
 */
export function decideBinding(
  closure: readonly ClosureLibrary[],
  scope: ProcessScope,
  wanted: BindingOption,
  shimObstacle: string | null,
): BindingDecision {
  const own = ownLibraries(closure, scope);
  const symbols = wanted === 'default' ? [] : contested(own, scope);
  const report = (mode: Binding, reason: string): BindingReport => ({
    mode,
    reason,
    symbols: symbols.slice(0, MOST_SYMBOLS),
    symbolCount: symbols.length,
  });
  const decided = (mode: Binding, reason: string, withShim = false): BindingDecision => ({
    report: report(mode, reason),
    withShim,
    conflict: null,
  });
  if (wanted === 'default') return decided('default', "the option binding is 'default'");
  if (wanted !== 'own' && symbols.length === 0) {
    return decided('default', 'it uses nothing that both node and its own dependencies define');
  }
  const why =
    wanted === 'own'
      ? "the option binding is 'own'"
      : `node exports ${some(symbols)}, which it has of its own`;
  const conflict = (obstacle: string, shared: string[]): BindingDecision => ({
    report: null,
    withShim: false,
    conflict: {
      own: symbols.slice(0, MOST_SYMBOLS),
      shared: shared.slice(0, MOST_SYMBOLS),
      obstacle,
    },
  });
  const sanitizer = SANITIZERS.find((name) => scope.find(name) !== null);
  if (sanitizer !== undefined) {
    return conflict(
      `this process runs with a sanitizer (${sanitizer}), which allows no own binding`,
      [],
    );
  }
  if (shimObstacle === null) return decided('own', why, true);
  const shared = neededFromScope(own, scope);
  if (shared.length > 0) return conflict(shimObstacle, shared);
  return decided('own', `${why}; without a runtime shim: ${shimObstacle}`);
}

/**
 * The library and what it brings, without what every library shares and what the executable has
 * loaded under the same name.
 */
function ownLibraries(closure: readonly ClosureLibrary[], scope: ProcessScope): ClosureLibrary[] {
  const held = new Set(scope.files.map(({ elf, path }) => elf.soname ?? basename(path)));
  return closure.filter(({ elf, name }, index) => {
    if (index === 0) return true;
    const soname = elf.soname ?? name;
    return !isSystemRuntime(soname) && !held.has(soname);
  });
}

/**
 * Names that some library of `own` uses and defines, and that ordinary binding finds in the
 * executable or in what it has loaded.
 */
function contested(own: readonly ClosureLibrary[], scope: ProcessScope): string[] {
  const used = new Set<string>();
  for (const { elf } of own) {
    const { indexes, hashes } = elf.imports;
    for (const [place, hash] of hashes.entries()) {
      if (scope.mayBeForeign(hash)) used.add(elf.nameOf(indexes[place] as number));
    }
  }
  const defined = new Set<string>();
  for (const name of used) {
    const hash = gnuHash(name);
    if (!own.some(({ elf }) => elf.find(name, hash) !== undefined)) continue;
    if (isForeign(name, hash, scope)) defined.add(name);
  }
  for (const { elf } of own) if (!isSymbolic(elf)) addReplaceable(elf, scope, defined);
  return [...defined].sort();
}

/**
 * Whether a name is one of a library that the process has, and no affair of the C and C++ runtime.
 */
function isForeign(name: string, hash: number, scope: ProcessScope): boolean {
  if (STANDARD_TEMPLATE.test(name)) return false;
  return scope.isForeign(name, hash) && !scope.isOfRuntime(name, hash);
}

/** A library that is linked with -Bsymbolic uses what it defines, whatever the loader finds. */
function isSymbolic(elf: ElfFile): boolean {
  return elf.value(DT.SYMBOLIC) !== undefined || ((elf.value(DT.FLAGS) ?? 0) & DF.SYMBOLIC) !== 0;
}

/**
 * Adds what a library defines and uses by name all the same: then a relocation refers to it, and
 * the loader may find another one.
 */
function addReplaceable(elf: ElfFile, scope: ProcessScope, defined: Set<string>): void {
  for (const index of elf.referencedSymbols()) {
    if (!elf.isReplaceable(index)) continue;
    const stored = elf.storedHashOf(index) ?? elf.nameHashOf(index);
    // The lowest bit may be either.
    if (!scope.mayBeForeign(stored) && !scope.mayBeForeign((stored ^ 1) >>> 0)) continue;
    const name = elf.nameOf(index);
    if (isForeign(name, gnuHash(name), scope)) defined.add(name);
  }
}

/** What these libraries must not get from the C and C++ runtime itself. */
function neededFromScope(own: readonly ClosureLibrary[], scope: ProcessScope): string[] {
  const names = new Set<string>();
  for (const { elf } of own) {
    const allocation = elf.importsAmong(ALLOCATION);
    for (const name of elf.imports.indexes.map((index) => elf.nameOf(index))) {
      if (!allocation.has(name) && !UNUSABLE_ORIGINAL.test(name)) continue;
      const found = scope.find(name);
      if (found === null || found.file.isRuntime) continue;
      if (allocation.has(name) || scope.isCopy(found.symbol)) names.add(name);
    }
  }
  return [...names].sort();
}

function some(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(', ');
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown;
}
