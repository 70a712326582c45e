/**
 * Functions of the C library, bound at first use, once a thread. `NativeMemory` must come first where there is one: koffi wants to
 * know the size of its stack before it loads anything.
 */

import { strict as assert } from 'node:assert';
import { getSystemErrorName } from 'node:util';
import { lastErrno, loadCRuntime } from './native-library.js';

const bound = new Map<string, unknown>();
let isComplete = false;

/**
 * Declares that this thread has bound all it will ever need. Binding takes the dynamic loader's lock, which a library
 * whose constructor hangs never gives back; so on the main thread, what was forgotten is a broken invariant at once, and
 * not a thread that waits for ever one day.
 */
export function bindNoMore(): void {
  isComplete = true;
}

export function bind<F = (...values: unknown[]) => number>(
  name: string,
  result: string,
  parameters: readonly string[],
): F {
  let call = bound.get(name);
  if (call === undefined) {
    assert(!isComplete, `${name} is bound before the first handler is loaded`);
    call = loadCRuntime().func(name, result, [...parameters]);
    bound.set(name, call);
  }
  return call as F;
}

/** The error of a call that failed; `errno` is what it returned, if it does not leave that where errors usually are. */
export function systemError(call: string, errno = lastErrno()): NodeJS.ErrnoException {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${call}: ${code}`), { code, errno: -errno, syscall: call });
}

/** @throws {Error} with `code`, such as EMFILE, if the call before has failed. */
export function checked(call: string, succeeded: boolean): void {
  if (!succeeded) throw systemError(call);
}

/** Closes a descriptor that was made here: Node warns if one is closed in a worker that it did not open there. */
export function close(descriptor: number): void {
  checked('close', bindClose()(descriptor) === 0);
}

/** What `close` calls. */
export function bindClose(): (descriptor: number) => number {
  return bind('close', 'int', ['int']);
}

const MADV_DONTNEED = 4;

/**
 * madvise(2) with MADV_DONTNEED: private pages go back to the system. It is advice, so that a refusal, as
 * of memory that does not begin with a page, changes nothing but when they do.
 */
export function bindDiscard(): (memory: Uint8Array, length: number) => void {
  const madvise = bind('madvise', 'int', ['uint8_t *', 'size_t', 'int']);
  return (memory, length) => madvise(memory, length, MADV_DONTNEED);
}

/** Memory that is mapped, by address. Whether it is, and whose, is not checked. */
export interface MappedMemory {
  read(to: Uint8Array, from: number, length: number): void;
  /** @throws {Error} with `code` if the system refuses. */
  unmap(address: number, length: number): void;
}

export function bindMappedMemory(): MappedMemory {
  const read = bind<MappedMemory['read']>('memcpy', 'void', ['uint8_t *', 'uintptr_t', 'size_t']);
  const munmap = bind('munmap', 'int', ['uintptr_t', 'size_t']);
  return {
    read,
    unmap: (address, length) => checked('munmap', munmap(address, length) === 0),
  };
}
