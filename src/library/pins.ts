/**
 * What keeps a library in memory after everybody has closed it, as far as its file tells: for the
 * drain report, whose reason is read by whoever wonders where the memory goes.
 */

import { DF_1, DT } from './elf/constants.js';
import { type ElfFile, hashNames } from './elf/elf-file.js';

export interface Pins {
  /** It is linked never to be unloaded (`-z nodelete`). */
  neverUnloaded: boolean;
  /**
   * It holds a Go runtime, which is never unloaded either, and cannot be: its threads have no end.
   */
  go: boolean;
  /**
   * What has thread-locals with destructors in it; the loader keeps the library while a thread has
   * one that is still to run.
   */
  threadLocals: string | null;
  /** It can open libraries, itself among them. */
  opensLibraries: boolean;
}

/**
 * What the linker puts into every library that Go code is called in, also when its other symbols
 * are stripped.
 */
const GO_SYMBOLS = ['crosscall2', '_cgo_topofstack', 'x_cgo_init'];

/** What is asked of the symbols that a library imports. */
const TELLING_IMPORTS = hashNames([
  'dlopen',
  'dlmopen',
  '__cxa_thread_atexit',
  '__cxa_thread_atexit_impl',
]);

/** @throws {ElfError} if the file cannot be read. */
export function pinsOf(elf: ElfFile): Pins {
  const imported = elf.importsAmong(TELLING_IMPORTS);
  return {
    neverUnloaded: ((elf.value(DT.FLAGS_1) ?? 0) & DF_1.NODELETE) !== 0,
    go: GO_SYMBOLS.some((symbol) => elf.find(symbol) !== undefined),
    threadLocals: threadLocalsOf(imported),
    opensLibraries: imported.has('dlopen') || imported.has('dlmopen'),
  };
}

/**
 * C++ registers destructors with libstdc++ or libc++abi; Rust, and a libstdc++ that is linked in,
 * with the C library.
 */
function threadLocalsOf(imported: ReadonlySet<string>): string | null {
  if (imported.has('__cxa_thread_atexit')) return 'C++ thread_local';
  if (!imported.has('__cxa_thread_atexit_impl')) return null;
  return 'Rust thread_local!, or C++ thread_local with a static libstdc++';
}

/** Why a library that has these is still mapped, or null if none of them explains it. */
export function whyMapped(pins: Pins): string | null {
  const { neverUnloaded, go, threadLocals, opensLibraries } = pins;
  if (go) {
    return 'it holds a Go runtime, which is never unloaded and whose threads have no end; in a lane process it ends with that';
  }
  if (neverUnloaded) return 'it is linked never to be unloaded (-z nodelete)';
  if (threadLocals !== null) {
    return `it has thread-locals with destructors (${threadLocals}), which hold it until they have run and another library is unloaded`;
  }
  return opensLibraries
    ? 'it imports dlopen, and may hold itself or what it has opened may hold it'
    : null;
}
