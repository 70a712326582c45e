/**
 * Starts processes with posix_spawn(3), for Linux.
 *
 * Node's own way is fork(2), which copies the page tables of this process and stops all its threads while it does: measured,
 * 40 to 800 ms with 500 MiB resident, 5 to 10 ms in an empty process. posix_spawn shares them until the new program is in
 * place: 0.3 ms, however large this process is.
 */

import { constants } from 'node:os';
import { bind, checked, close, systemError } from './c-functions.js';

export { close };

export interface SpawnRequest {
  file: string;
  /** Without the program's name. */
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  /** For each descriptor of the new process, from 0: one of this process's, or null for /dev/null. */
  descriptors: readonly (number | null)[];
}

export type ProcessExit = { exitCode: number } | { signal: NodeJS.Signals };

// From the headers of Linux and glibc; musl has the same.
const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const F_DUPFD_CLOEXEC = 1030;
const WNOHANG = 1;
const POSIX_SPAWN_SETSIGDEF = 4;
const POSIX_SPAWN_SETSIGMASK = 8;
/** More than posix_spawn_file_actions_t, posix_spawnattr_t (336 with glibc) and sigset_t (128) need. */
const STRUCT_BYTES = 512;
/** Our ends are put above the numbers that the new process uses, so that none is overwritten before its turn. */
const FIRST_SAFE_DESCRIPTOR = 16;

/**
 * A pipe whose ends are closed in every new process that is not given them: `[read, write]`.
 *
 * @throws {Error} with `code`, such as EMFILE.
 */
export function pipe(): [number, number] {
  const ends = new Int32Array(2);
  checked('pipe2', bind('pipe2', 'int', ['int *', 'int'])(ends, O_CLOEXEC) === 0);
  return [ends[0] ?? -1, ends[1] ?? -1];
}

/**
 * Starts a process and returns its id. It must be reaped.
 *
 * @throws {Error} with `code`, such as EAGAIN or ENOENT.
 */
export function startProcess({ file, args, env, descriptors }: SpawnRequest): number {
  const actions = new Uint8Array(STRUCT_BYTES);
  const attributes = new Uint8Array(STRUCT_BYTES);
  const duplicates: number[] = [];
  call('posix_spawn_file_actions_init', ['uint8_t *'], actions);
  call('posix_spawnattr_init', ['uint8_t *'], attributes);
  try {
    descriptors.forEach((descriptor, target) => {
      if (descriptor === null) {
        const parameters = ['uint8_t *', 'int', 'const char *', 'int', 'int'];
        const name = 'posix_spawn_file_actions_addopen';
        call(name, parameters, actions, target, '/dev/null', O_RDWR, 0);
      } else {
        const source = duplicate(descriptor);
        duplicates.push(source);
        const parameters = ['uint8_t *', 'int', 'int'];
        call('posix_spawn_file_actions_adddup2', parameters, actions, source, target);
      }
    });
    resetSignals(attributes);
    const pid = new Int32Array(1);
    call(
      'posix_spawn',
      ['int *', 'const char *', 'uint8_t *', 'uint8_t *', 'const char **', 'const char **'],
      pid,
      file,
      actions,
      attributes,
      [file, ...args, null],
      [...Object.entries(env).map(([name, value]) => `${name}=${value}`), null],
    );
    return pid[0] ?? -1;
  } finally {
    for (const duplicate of duplicates) close(duplicate);
    call('posix_spawn_file_actions_destroy', ['uint8_t *'], actions);
    call('posix_spawnattr_destroy', ['uint8_t *'], attributes);
  }
}

/** How a process ended, or null while it runs. Once it has been told, the process is no more and its id may be another's. */
export function reap(pid: number): ProcessExit | null {
  const status = new Int32Array(1);
  const found = bind('waitpid', 'int', ['int', 'int *', 'int'])(pid, status, WNOHANG);
  if (found === 0) return null;
  if (found === -1) {
    const error = systemError('waitpid');
    // Reaped already, as where SIGCHLD is ignored: that it has ended is all there is to know.
    if (error.code === 'ECHILD') return { exitCode: 0 };
    throw error;
  }
  // What the macros of wait(2) do.
  const word = status[0] ?? 0;
  const signal = word & 0x7f;
  return signal === 0 ? { exitCode: (word >> 8) & 0xff } : { signal: signalName(signal) };
}

function signalName(number: number): NodeJS.Signals {
  const known = Object.entries(constants.signals).find(([, value]) => value === number);
  // Real-time signals have no name in Node.
  return (known?.[0] ?? `SIG${number}`) as NodeJS.Signals;
}

/** As libuv does it: ignored and blocked signals are this process's own affair. */
function resetSignals(attributes: Uint8Array): void {
  const signals = new Uint8Array(STRUCT_BYTES);
  const set = ['uint8_t *', 'uint8_t *'];
  call('sigemptyset', ['uint8_t *'], signals);
  call('posix_spawnattr_setsigmask', set, attributes, signals);
  call('sigfillset', ['uint8_t *'], signals);
  call('posix_spawnattr_setsigdefault', set, attributes, signals);
  const flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
  call('posix_spawnattr_setflags', ['uint8_t *', 'short'], attributes, flags);
}

function duplicate(descriptor: number): number {
  // fcntl is variadic, which on the platforms that Node has for Linux is called like any other function.
  const fcntl = bind('fcntl', 'int', ['int', 'int', 'int']);
  const copy = fcntl(descriptor, F_DUPFD_CLOEXEC, FIRST_SAFE_DESCRIPTOR);
  checked('fcntl', copy !== -1);
  return copy;
}

/** Calls a function that returns an error number. */
function call(name: string, parameters: readonly string[], ...values: unknown[]): void {
  const errno = bind(name, 'int', parameters)(...values);
  if (errno !== 0) throw systemError(name, errno);
}
