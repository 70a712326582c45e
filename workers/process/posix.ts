/**
 * What a lane process needs of Linux and Node does not give: shared memory, a socket pair, and an end for a process
 * that has lost its main thread.
 */

import { strict as assert } from 'node:assert';
import { ftruncateSync } from 'node:fs';
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

/** A descriptor of zeroed memory of that size, which no other program inherits. It costs what is touched. */
export function createMemory(name: string, byteLength: number): number {
  type Create = (name: string, flags: number) => number;
  const create = bind<Create>('memfd_create', 'int', ['const char *', 'uint']);
  const descriptor = create(name, MFD_CLOEXEC);
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

/** Two connected sockets that block and that no other program inherits. */
export function socketPair(): [number, number] {
  const ends = new Int32Array(2);
  type Create = (family: number, type: number, protocol: number, ends: Int32Array) => number;
  const create = bind<Create>('socketpair', 'int', ['int', 'int', 'int', 'int *']);
  checked('socketpair', create(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) === 0);
  const [near, far] = ends;
  assert(near !== undefined && far !== undefined);
  return [near, far];
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
