/**
 * Starts processes with posix_spawn(3), for Linux.
 *
 * Node's own way is fork(2), which copies the page tables of this process and stops all its threads while it does: measured,
 * 40 to 800 ms with 500 MiB resident, 5 to 10 ms in an empty process. posix_spawn shares them until the new program is in
 * place: 0.3 ms, however large this process is.
 */

import { closeSync } from 'node:fs';
import { getSystemErrorName } from 'node:util';
import type { LibraryHandle } from 'koffi';

export interface SpawnRequest {
  file: string;
  /** Without the program's name. */
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  /** For each descriptor of the new process, from 0: one of this process's, or null for /dev/null. */
  descriptors: readonly (number | null)[];
}

export type ProcessEnd = { exitCode: number } | { signal: number };

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

export class PosixSpawn {
  readonly #runtime: LibraryHandle;
  readonly #errno: () => number;

  constructor(runtime: LibraryHandle, errno: () => number) {
    this.#runtime = runtime;
    this.#errno = errno;
  }

  /**
   * A pipe whose ends are closed in every new process that is not given them: `[read, write]`.
   *
   * @throws {Error} with `code`, such as EMFILE.
   */
  pipe(): [number, number] {
    const ends = new Int32Array(2);
    const pipe2 = this.#function('pipe2', 'int', ['int *', 'int']);
    if (pipe2(ends, O_CLOEXEC) !== 0) throw systemError('pipe2', this.#errno());
    return [ends[0] ?? -1, ends[1] ?? -1];
  }

  /**
   * Starts a process and returns its id. It must be reaped.
   *
   * @throws {Error} with `code`, such as EAGAIN or ENOENT.
   */
  start({ file, args, env, descriptors }: SpawnRequest): number {
    const actions = new Uint8Array(STRUCT_BYTES);
    const attributes = new Uint8Array(STRUCT_BYTES);
    const duplicates: number[] = [];
    this.#call('posix_spawn_file_actions_init', ['uint8_t *'], actions);
    this.#call('posix_spawnattr_init', ['uint8_t *'], attributes);
    try {
      descriptors.forEach((descriptor, target) => {
        if (descriptor === null) {
          const parameters = ['uint8_t *', 'int', 'const char *', 'int', 'int'];
          const name = 'posix_spawn_file_actions_addopen';
          this.#call(name, parameters, actions, target, '/dev/null', O_RDWR, 0);
        } else {
          const source = this.#duplicate(descriptor);
          duplicates.push(source);
          const parameters = ['uint8_t *', 'int', 'int'];
          this.#call('posix_spawn_file_actions_adddup2', parameters, actions, source, target);
        }
      });
      this.#resetSignals(attributes);
      const pid = new Int32Array(1);
      this.#call(
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
      for (const duplicate of duplicates) closeSync(duplicate);
      this.#call('posix_spawn_file_actions_destroy', ['uint8_t *'], actions);
      this.#call('posix_spawnattr_destroy', ['uint8_t *'], attributes);
    }
  }

  /** How a process ended, or null while it runs. Once it has been told, the process is no more. */
  reap(pid: number): ProcessEnd | null {
    const status = new Int32Array(1);
    const waitpid = this.#function('waitpid', 'int', ['int', 'int *', 'int']);
    const found = waitpid(pid, status, WNOHANG);
    if (found === 0) return null;
    if (found === -1) {
      const error = systemError('waitpid', this.#errno());
      // Reaped already, as where SIGCHLD is ignored: that it has ended is all there is to know.
      if (error.code === 'ECHILD') return { exitCode: 0 };
      throw error;
    }
    // What the macros of wait(2) do.
    const word = status[0] ?? 0;
    const signal = word & 0x7f;
    return signal === 0 ? { exitCode: (word >> 8) & 0xff } : { signal };
  }

  /** As libuv does it: ignored and blocked signals are this process's own affair. */
  #resetSignals(attributes: Uint8Array): void {
    const signals = new Uint8Array(STRUCT_BYTES);
    const set = ['uint8_t *', 'uint8_t *'];
    this.#call('sigemptyset', ['uint8_t *'], signals);
    this.#call('posix_spawnattr_setsigmask', set, attributes, signals);
    this.#call('sigfillset', ['uint8_t *'], signals);
    this.#call('posix_spawnattr_setsigdefault', set, attributes, signals);
    const flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    this.#call('posix_spawnattr_setflags', ['uint8_t *', 'short'], attributes, flags);
  }

  #duplicate(descriptor: number): number {
    // fcntl is variadic, which on the platforms that Node has for Linux is called like any other function.
    const fcntl = this.#function('fcntl', 'int', ['int', 'int', 'int']);
    const duplicate = fcntl(descriptor, F_DUPFD_CLOEXEC, FIRST_SAFE_DESCRIPTOR);
    if (duplicate === -1) throw systemError('fcntl', this.#errno());
    return duplicate;
  }

  /** Calls a function that returns an error number. */
  #call(name: string, parameters: string[], ...values: unknown[]): void {
    const error = this.#function(name, 'int', parameters)(...values);
    if (error !== 0) throw systemError(name, error);
  }

  readonly #functions = new Map<string, (...values: unknown[]) => number>();

  #function(name: string, result: string, parameters: string[]): (...values: unknown[]) => number {
    let found = this.#functions.get(name);
    if (found === undefined) {
      found = this.#runtime.func(name, result, parameters) as (...values: unknown[]) => number;
      this.#functions.set(name, found);
    }
    return found;
  }
}

function systemError(call: string, errno: number): NodeJS.ErrnoException {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${call}: ${code}`), { code, errno: -errno, syscall: call });
}
