/**
 * Opens a library by its plan, and closes it again. What a plan wants is done in this thread, which
 * may have to wait for the loader, and never on the main thread.
 */

import { writeFileSync } from 'node:fs';
import type { KeptLibrary } from '../src/lane-protocol.js';
import type { LoadPlan } from '../src/library/load-plan.js';
import { messageOf } from '../src/library/system-errors.js';
import { bind, close } from './c-functions.js';
import { LibraryRefused, NativeLibrary } from './native-library.js';
import { createMemory } from './process/posix.js';
import { type LookOptions, threadsInside } from './threads-inside.js';

/** Flags of dlopen(3); musl has the same. */
const RTLD_LAZY = 1;
const RTLD_NOW = 2;
const RTLD_NOLOAD = 4;
const RTLD_NODELETE = 0x1000;

/**
 * What makes the runtime shim, for a plan that wants one. Few do, and what it needs takes a while
 * to import.
 */
export async function shimMaker({ runtimeShim }: LoadPlan): Promise<ShimMaker | null> {
  if (runtimeShim === null) return null;
  return (await import('../src/library/binding/shim.js')).shimOfThisProcess;
}

export type ShimMaker = () => Uint8Array;

/**
 * Opens what has to be there before, then the library itself. `makeShim` is what `shimMaker` gave
 * for this plan.
 *
 * @throws {LibraryRefused} if the loader refuses any of it, a required symbol is missing or the ABI
 *   is not ours.
 */
export function openLibrary(
  plan: LoadPlan,
  makeShim: ShimMaker | null,
  opened?: () => void,
): NativeLibrary {
  const { runtimeShim } = plan;
  if (runtimeShim !== null && makeShim !== null) loadShim(runtimeShim, makeShim);
  for (const path of plan.loadFirst) load(path, RTLD_NOW);
  for (const path of plan.keepMapped) load(path, RTLD_NOW | RTLD_NODELETE);
  return new NativeLibrary(plan, opened);
}

/**
 * Between the library's shutdown and its unload: what threads of this process are still in is
 * mapped for good from now on, and returned. The unload then leaves it.
 */
export function keepEntered(plan: LoadPlan, threads: Omit<LookOptions, 'files'>): KeptLibrary[] {
  if (process.platform !== 'linux' || !plan.mayStartThreads) return [];
  const { byFile, unknown } = threadsInside({ files: plan.mayUnload, ...threads });
  const kept = [...byFile].map(([path, count]) => ({ path, reason: inside(count) }));
  // Another thread that is seen in a dependency says nothing of those that are not seen.
  if (unknown > 0 && !byFile.has(plan.libraryPath)) {
    kept.push({ path: plan.libraryPath, reason: perhapsInside(unknown) });
  }
  for (const { path } of kept) dlopen(path, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  return kept;
}

function inside(count: number): string {
  const threads =
    count === 1 ? 'a thread of the process is' : `${count} threads of the process are`;
  return `${threads} still in it after handler_shutdown, and would crash the process; join every thread there`;
}

function perhapsInside(count: number): string {
  const threads = count === 1 ? 'a thread' : `${count} threads`;
  return `${threads} started since it was loaded may still be in it, which cannot be seen; join every thread in handler_shutdown`;
}

/**
 * Loads this process's runtime shim, once. It stays.
 *
 * From memory that has no name in the file system: a process that is killed meanwhile, as pre-flight's
 * is when its time is up, leaves nothing behind.
 */
function loadShim(soname: string, makeShim: ShimMaker): void {
  if (dlopen(soname, RTLD_LAZY | RTLD_NOLOAD) !== 0) return;
  let descriptor: number | null = null;
  try {
    const bytes = makeShim();
    descriptor = createMemory('changeover-runtime-shim', bytes.byteLength);
    writeFileSync(descriptor, bytes);
    load(`/proc/self/fd/${descriptor}`, RTLD_NOW | RTLD_NODELETE);
  } catch (error) {
    if (error instanceof LibraryRefused) throw error;
    throw refused(`the runtime shim could not be made: ${messageOf(error)}`);
  } finally {
    if (descriptor !== null) close(descriptor);
  }
}

/** @throws {LibraryRefused} if the loader refuses it. */
function load(path: string, flags: number): void {
  if (dlopen(path, flags) === 0) throw refused(lastLoaderError());
}

function dlopen(path: string, flags: number): number {
  return bind('dlopen', 'uintptr_t', ['const char *', 'int'])(path, flags);
}

function lastLoaderError(): string {
  const dlerror = bind<() => string | null>('dlerror', 'const char *', []);
  return dlerror() ?? 'the loader gave no reason';
}

function refused(message: string): LibraryRefused {
  return new LibraryRefused({ kind: 'loader', message });
}
