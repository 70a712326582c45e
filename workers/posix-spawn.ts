/**
 * Starts processes with posix_spawn(3), for Linux.
 *
 * Node's own way is fork(2), which copies the page tables of this process and stops all its threads while it does: measured,
 * 40 to 800 ms with 500 MiB resident, 5 to 10 ms in an empty process. posix_spawn shares them until the new program is in
 * place: 0.3 ms, however large this process is.
 */

import { constants } from 'node:os';
import { bind, bindClose, checked, close, systemError } from './c-functions.js';
import { lastErrno } from './native-library.js';

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

/** What is called here, and with what. fcntl is variadic, which on the platforms that Node has for Linux is no difference. */
const PARAMETERS = {
  pipe2: ['int *', 'int'],
  fcntl: ['int', 'int', 'int'],
  waitpid: ['int', 'int *', 'int'],
  sigemptyset: ['uint8_t *'],
  sigfillset: ['uint8_t *'],
  posix_spawn_file_actions_init: ['uint8_t *'],
  posix_spawn_file_actions_addopen: ['uint8_t *', 'int', 'const char *', 'int', 'int'],
  posix_spawn_file_actions_adddup2: ['uint8_t *', 'int', 'int'],
  posix_spawn_file_actions_destroy: ['uint8_t *'],
  posix_spawnattr_init: ['uint8_t *'],
  posix_spawnattr_setsigmask: ['uint8_t *', 'uint8_t *'],
  posix_spawnattr_setsigdefault: ['uint8_t *', 'uint8_t *'],
  posix_spawnattr_setflags: ['uint8_t *', 'short'],
  posix_spawnattr_destroy: ['uint8_t *'],
  posix_spawn: [
    'int *',
    'const char *',
    'uint8_t *',
    'uint8_t *',
    'const char **',
    'const char **',
  ],
} as const;

type Callback = (error: unknown, result: number) => void;

interface CFunction {
  (...values: unknown[]): number;
  /** Calls it in a thread of libuv's pool. */
  async(...values: [...unknown[], Callback]): void;
}

function functionNamed(name: keyof typeof PARAMETERS): CFunction {
  return bind<CFunction>(name, 'int', PARAMETERS[name]);
}

/** Binds all that is called here. */
export function bindSpawning(): void {
  for (const name of Object.keys(PARAMETERS)) functionNamed(name as keyof typeof PARAMETERS);
  bindClose();
}

/**
 * A pipe whose ends are closed in every new process that is not given them: `[read, write]`.
 *
 * @throws {Error} with `code`, such as EMFILE.
 */
export function pipe(): [number, number] {
  const ends = new Int32Array(2);
  checked('pipe2', functionNamed('pipe2')(ends, O_CLOEXEC) === 0);
  return [ends[0] ?? -1, ends[1] ?? -1];
}

/**
 * Starts a process and returns its id. It must be reaped.
 *
 * Blocks this thread until the new program is in place, which on a busy machine takes as long as the new process waits for
 * a core.
 *
 * @throws {Error} with `code`, such as EAGAIN or ENOENT.
 */
export function startProcess(request: SpawnRequest): number {
  const { values, pid, dispose } = prepareSpawn(request);
  try {
    checkErrno('posix_spawn', functionNamed('posix_spawn')(...values));
    return pid();
  } finally {
    dispose();
  }
}

/**
 * The same without blocking this thread: a thread of libuv's pool waits instead. The new process may ask the kernel to be
 * killed when that thread ends (PR_SET_PDEATHSIG), since it lives as long as this process.
 */
export async function startProcessAside(request: SpawnRequest): Promise<number> {
  const { values, pid, dispose } = prepareSpawn(request);
  try {
    const errno = await new Promise<number>((resolve, reject) => {
      functionNamed('posix_spawn').async(...values, (error, result) => {
        if (error === null) resolve(result);
        else reject(error);
      });
    });
    checkErrno('posix_spawn', errno);
    return pid();
  } finally {
    dispose();
  }
}

interface PreparedSpawn {
  /** Arguments of posix_spawn. */
  values: unknown[];
  /** The process's id once that has succeeded. */
  pid: () => number;
  dispose: () => void;
}

function prepareSpawn({ file, args, env, descriptors }: SpawnRequest): PreparedSpawn {
  const actions = new Uint8Array(STRUCT_BYTES);
  const attributes = new Uint8Array(STRUCT_BYTES);
  const duplicates: number[] = [];
  call('posix_spawn_file_actions_init', actions);
  call('posix_spawnattr_init', attributes);
  const dispose = () => {
    for (const duplicate of duplicates) close(duplicate);
    call('posix_spawn_file_actions_destroy', actions);
    call('posix_spawnattr_destroy', attributes);
  };
  try {
    descriptors.forEach((descriptor, target) => {
      if (descriptor === null) {
        call('posix_spawn_file_actions_addopen', actions, target, '/dev/null', O_RDWR, 0);
      } else {
        const source = duplicate(descriptor);
        duplicates.push(source);
        call('posix_spawn_file_actions_adddup2', actions, source, target);
      }
    });
    resetSignals(attributes);
  } catch (error) {
    dispose();
    throw error;
  }
  const pid = new Int32Array(1);
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  return {
    values: [pid, file, actions, attributes, [file, ...args, null], [...variables, null]],
    pid: () => pid[0] ?? -1,
    dispose,
  };
}

/** How a process ended, or null while it runs. Once it has been told, the process is no more and its id may be another's. */
export function reap(pid: number): ProcessExit | null {
  const status = new Int32Array(1);
  const found = functionNamed('waitpid')(pid, status, WNOHANG);
  if (found === 0) return null;
  if (found === -1) {
    // Reaped already, as where SIGCHLD is ignored: that it has ended is all there is to know. By
    // number, since libuv has no name for this error, and so Node has no code.
    if (lastErrno() === constants.errno.ECHILD) return { exitCode: 0 };
    throw systemError('waitpid');
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
  call('sigemptyset', signals);
  call('posix_spawnattr_setsigmask', attributes, signals);
  call('sigfillset', signals);
  call('posix_spawnattr_setsigdefault', attributes, signals);
  const flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
  call('posix_spawnattr_setflags', attributes, flags);
}

function duplicate(descriptor: number): number {
  const copy = functionNamed('fcntl')(descriptor, F_DUPFD_CLOEXEC, FIRST_SAFE_DESCRIPTOR);
  checked('fcntl', copy !== -1);
  return copy;
}

/** Calls a function that returns an error number. */
function call(name: keyof typeof PARAMETERS, ...values: unknown[]): void {
  checkErrno(name, functionNamed(name)(...values));
}

function checkErrno(name: string, errno: number): void {
  if (errno !== 0) throw systemError(name, errno);
}
