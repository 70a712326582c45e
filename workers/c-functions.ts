/**
 * Functions of the C library, bound at first use, once a thread. `NativeMemory` must come first where there is one: koffi wants to
 * know the size of its stack before it loads anything.
 */

import { getSystemErrorName } from 'node:util';
import { lastErrno, loadCRuntime } from './native-library.js';

const bound = new Map<string, unknown>();

export function bind<F = (...values: unknown[]) => number>(
  name: string,
  result: string,
  parameters: readonly string[],
): F {
  let call = bound.get(name);
  if (call === undefined) {
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
  checked('close', bind('close', 'int', ['int'])(descriptor) === 0);
}
