/**
 * What a lane process needs of Linux and Node does not give: shared memory, a socket pair, and an end for a process
 * that has lost its main thread.
 */

import { strict as assert } from 'node:assert';
import { ftruncateSync, readSync } from 'node:fs';
import { reserveShared } from '../../src/shared-memory.js';
import { bind, checked, close } from '../c-functions.js';
import type { NativeMemory } from '../native-library.js';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MFD_CLOEXEC = 1;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_SETFL = 4;
const F_SETOWN = 8;
const F_SETSIG = 10;
const O_NONBLOCK = 0o4000;
const O_ASYNC = 0o20000;
const SIGKILL = 9;

type Mmap = (
  address: number,
  length: number,
  protection: number,
  flags: number,
  descriptor: number,
  offset: number,
) => number;

const mmap: Mmap = (...args) =>
  bind<Mmap>('mmap', 'uintptr_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t'])(...args);

/** What `createMemory` calls. */
export function bindCreateMemory(): (name: string, flags: number) => number {
  return bind('memfd_create', 'int', ['const char *', 'uint']);
}

/** A descriptor of zeroed memory of that size, which no other program inherits. It costs what is touched. */
export function createMemory(name: string, byteLength: number): number {
  const descriptor = bindCreateMemory()(name, MFD_CLOEXEC);
  checked('memfd_create', descriptor >= 0);
  try {
    ftruncateSync(descriptor, byteLength);
  } catch (error) {
    close(descriptor);
    throw error;
  }
  return descriptor;
}

/**
 * A buffer over the memory of a descriptor, which may be closed afterwards.
 *
 * A `SharedArrayBuffer` is reserved and the memory is mapped in its place. So it has an owner like any other buffer, and is unmapped when
 * that lets go of it; a view of memory that was mapped elsewhere would outlive it.
 */
export function mapMemory(
  native: NativeMemory,
  descriptor: number,
  byteLength: number,
): { bytes: Uint8Array; address: number } {
  const bytes = new Uint8Array(reserveShared(byteLength), 0, byteLength);
  const address = native.addressOf(bytes);
  assert(address % native.pageBytes === 0, 'V8 reserves whole pages');
  const flags = MAP_SHARED | MAP_FIXED;
  const mapped = mmap(address, byteLength, PROT_READ | PROT_WRITE, flags, descriptor, 0);
  checked('mmap', mapped === address);
  return { bytes, address };
}

/** Gives a mapped buffer's memory back, whoever still holds the buffer: it reads as zeros from now on. */
export function unmapMemory(address: number, byteLength: number): void {
  const flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE;
  const mapped = mmap(address, byteLength, PROT_READ | PROT_WRITE, flags, -1, 0);
  checked('mmap', mapped === address);
}

/** The address of a descriptor's memory, mapped for reading until the process ends. */
export function mapForReading(descriptor: number, byteLength: number): number {
  const address = mmap(0, byteLength, PROT_READ, MAP_SHARED, descriptor, 0);
  // MAP_FAILED is the highest address; what is mapped lies below 2^53.
  checked('mmap', address < Number.MAX_SAFE_INTEGER);
  return address;
}

/**
 * Two connected sockets that block and that no other program inherits. Reading from the first one
 * fails with EAGAIN after `silenceMs`, so that its reader can look whether the other side still lives.
 */
export function socketPair(silenceMs: number): [number, number] {
  const ends = new Int32Array(2);
  type Create = (family: number, type: number, protocol: number, ends: Int32Array) => number;
  const create = bind<Create>('socketpair', 'int', ['int', 'int', 'int', 'int *']);
  checked('socketpair', create(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) === 0);
  const [near, far] = ends;
  assert(near !== undefined && far !== undefined);
  const time = BigInt64Array.of(
    BigInt(Math.floor(silenceMs / 1000)),
    BigInt(silenceMs % 1000) * 1000n,
  );
  type SetOption = (
    socket: number,
    level: number,
    name: number,
    value: BigInt64Array,
    length: number,
  ) => number;
  const parameters = ['int', 'int', 'int', 'int64_t *', 'uint32_t'];
  const set = bind<SetOption>('setsockopt', 'int', parameters);
  checked('setsockopt', set(near, SOL_SOCKET, SO_RCVTIMEO, time, time.byteLength) === 0);
  return [near, far];
}

/** Keeps programs that the handler starts from inheriting a descriptor. A mere fork(2) has it still. */
export function closeInPrograms(descriptor: number): void {
  checked('fcntl', fcntl(descriptor, F_SETFD, FD_CLOEXEC) !== -1);
}

/**
 * Has the kernel kill this process when the other end of a pipe is closed, also in the middle of native
 * code (fcntl(2), F_SETSIG). The signal comes from this process itself, so that it is allowed whatever
 * user the host has become. Returns whether the other end is still open.
 */
export function endWithPipe(descriptor: number): boolean {
  checked('fcntl', fcntl(descriptor, F_SETOWN, process.pid) !== -1);
  checked('fcntl', fcntl(descriptor, F_SETSIG, SIGKILL) !== -1);
  checked('fcntl', fcntl(descriptor, F_SETFL, O_ASYNC | O_NONBLOCK) !== -1);
  // It may have been closed before this process could ask.
  try {
    return readSync(descriptor, new Uint8Array(1)) !== 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    return true;
  }
}

/** fcntl is variadic, which on the platforms that Node has for Linux is called like any other function. */
function fcntl(descriptor: number, command: number, value: number): number {
  return bind('fcntl', 'int', ['int', 'int', 'int'])(descriptor, command, value);
}

/**
 * Ends the process with `code` if this thread ends by `pthread_exit`. Otherwise Node's other threads would go on without it, and
 * nobody would notice. The C library calls the destructors of a thread's own data when it ends in that way
 * (pthread_key_create(3)); here, the destructor is `_exit` and the data its argument.
 */
export function endWithThisThread(code: number): void {
  const dlsym = bind<(handle: number, name: string) => number>('dlsym', 'uintptr_t', [
    'uintptr_t',
    'const char *',
  ]);
  const createKey = bind<(key: Uint32Array, destructor: number) => number>(
    'pthread_key_create',
    'int',
    ['uint32_t *', 'uintptr_t'],
  );
  const setData = bind<(key: number, data: number) => number>('pthread_setspecific', 'int', [
    'uint32_t',
    'uintptr_t',
  ]);
  const key = new Uint32Array(1);
  const exit = dlsym(0, '_exit');
  checked('dlsym', exit !== 0);
  // These two return their error instead of leaving it in errno.
  assert.equal(createKey(key, exit), 0, 'a thread-specific key could be had');
  assert.equal(setData(key[0] ?? 0, code), 0, 'a thread-specific key could be set');
}
