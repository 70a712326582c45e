/**
 * The binding to native code: the only importer of koffi.
 *
 * Importing this module, `open`, `unload` and everything in between must not be interrupted by a thread
 * termination: it would abort the process. `call` passes numbers only and is safe in that respect; it
 * is also the fast way (struct arguments cost ten times as much).
 */

import { existsSync } from 'node:fs';
import koffi, { type LibraryHandle, type TypeObject } from 'koffi';
import type { HandlerInfo, LoadFailure } from '../src/lane-protocol.js';
import type { LoadPlan } from '../src/library/load-plan.js';
import { messageOf } from '../src/library/system-errors.js';

/** The version in include/handler.h. */
export const ABI_VERSION = 1;

/** Where the C runtime's exported functions are found: the program itself, but on Windows. */
export const loadCRuntime = (): LibraryHandle =>
  koffi.load(process.platform === 'win32' ? 'ucrtbase.dll' : null);

/** The heap that koffi has mapped for the calls of this thread, which another version of it may want larger or smaller. */
export const callHeapBytes = (): number => koffi.config().sync_heap_size ?? 0;

/** What went wrong in the last call of a C function, as errno(3) numbers it. */
export const lastErrno = (): number => koffi.errno();

/** A function that ends the process at once, without waiting for threads that are stuck in native code. */
export function bindExit(): (code: number) => void {
  return loadCRuntime().func('_exit', 'void', ['int']);
}

/** memmove between views, whatever memory they are of. Its arguments are neither checked nor kept. */
export function bindMove(): (to: Uint8Array, from: Uint8Array, length: number) => void {
  return loadCRuntime().func('memmove', 'void', ['uint8_t *', 'uint8_t *', 'size_t']);
}

/** The signal is in prctl(2); Linux's alone. */
const PR_SET_PDEATHSIG = 1;
const SIGKILL = 9;

/**
 * Sees to it that this process ends with its parent, and after `seconds` in any case, also while it is stuck in native code,
 * where no timer of its own fires. Windows has neither.
 */
export function bindLifetime(parentPid: number, seconds: number): void {
  if (process.platform === 'win32') return;
  loadCRuntime().func('alarm', 'unsigned int', ['unsigned int'])(seconds);
  if (process.platform === 'linux') endWithParent(parentPid);
}

/**
 * Has the kernel kill this process when the thread that started it ends, also in the middle of native code. Linux's alone
 * (prctl(2), PR_SET_PDEATHSIG).
 */
export function endWithParent(parentPid: number): void {
  // prctl is variadic, which on the platforms that Node has for Linux is called like any other function.
  const words = Array(4).fill('unsigned long');
  loadCRuntime().func('prctl', 'int', ['int', ...words])(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  // It may have ended before this process could ask.
  if (process.ppid !== parentPid) process.exit(1);
}

/** Piscina may give a later lane the thread of an earlier one. */
let configured = false;

/** What mincore(2) fails with if there is no memory. */
const ENOMEM = 12;

/** Access to plain memory by address. */
export class NativeMemory {
  /** Copies `length` bytes from one address to another; the two places may overlap. */
  readonly copy: (to: number, from: number, length: number) => void;
  readonly #mincore: ((address: number, length: number, pages: Uint8Array) => number) | null;
  /** Bytes of a page of memory; 0 where nobody asks. */
  readonly pageBytes: number;
  /** What mincore(2) answers; it is only looked at whether it does. */
  #pages = new Uint8Array(64);
  readonly #moveViews: (to: Uint8Array, from: Uint8Array, length: number) => number;

  /** `stackBytes` is the stack that native calls of this thread will run on. */
  constructor(stackBytes: number) {
    // koffi accepts this only before the thread's first load.
    if (!configured) koffi.config({ sync_stack_size: stackBytes });
    configured = true;
    const runtime = loadCRuntime();
    this.copy = runtime.func('memmove', 'void', ['uintptr_t', 'uintptr_t', 'size_t']);
    const isLinux = process.platform === 'linux';
    this.pageBytes = isLinux ? runtime.func('getpagesize', 'int', [])() : 0;
    this.#mincore = isLinux
      ? runtime.func('mincore', 'int', ['uintptr_t', 'size_t', 'uint8_t *'])
      : null;
    this.#moveViews = runtime.func('memmove', 'uintptr_t', ['uint8_t *', 'uint8_t *', 'size_t']);
  }

  /** The address of a view's first byte. It stays valid as long as the view's buffer is reachable. */
  addressOf(view: Uint8Array): number {
    // memmove returns its first argument; with nothing to move it does only that.
    return this.#moveViews(view, view, 0);
  }

  /**
   * Whether there is memory at every byte of a range, as far as the system tells (Linux: mincore(2) does); reading it where
   * there is none would end the process. A system call, and so about a microsecond: not for memory that is known.
   */
  isMapped(address: number, length: number): boolean {
    if (!Number.isSafeInteger(address + length)) return false;
    if (this.#mincore === null || length === 0) return true;
    const start = address - (address % this.pageBytes);
    const bytes = address + length - start;
    const count = Math.ceil(bytes / this.pageBytes);
    if (this.#pages.length < count) this.#pages = new Uint8Array(count);
    // Any other error, such as that of a sandbox which forbids the call, says nothing about the memory.
    return this.#mincore(start, bytes, this.#pages) === 0 || koffi.errno() !== ENOMEM;
  }
}

/** A library that cannot be used, with the reason as plain data. */
export class LibraryRefused extends Error {
  readonly failure: LoadFailure;

  constructor(failure: LoadFailure) {
    super(failure.kind);
    this.failure = failure;
  }
}

type Entry = (context: number, request: number, response: number) => number;
type Init = (context: number, response: number) => number;
type Release = (response: number) => void;

/** `handler_description` of include/handler.h. */
const description = koffi.struct({
  struct_size: 'uint32_t',
  reserved: 'uint32_t',
  name: 'const char *',
  version: 'const char *',
  description: 'const char *',
});

export class NativeLibrary {
  /** `handler_entry`, with the addresses of its three structs. */
  readonly call: Entry;
  /** `handler_release`, if the library has it. */
  readonly release: Release | null;
  readonly #library: LibraryHandle;

  /**
   * Maps the library, or joins the mapping that another lane made. `opened` is called once it is mapped and before
   * anything of it is called.
   *
   * @throws {LibraryRefused} if the loader refuses it, a required symbol is missing or the ABI is not ours.
   */
  constructor(plan: LoadPlan, opened?: () => void) {
    this.#library = openLibrary(plan);
    try {
      opened?.();
      this.#checkAbi();
      this.call = this.#require('handler_entry', 'int32_t', [
        'uintptr_t',
        'uintptr_t',
        'uintptr_t',
      ]);
      this.release = this.#find('handler_release', 'void', ['uintptr_t']);
    } catch (error) {
      this.#library.unload();
      throw error;
    }
  }

  #checkAbi(): void {
    const abiVersion = this.#require<() => number>('handler_abi_version', 'uint32_t', []);
    const actual = abiVersion();
    if (actual !== ABI_VERSION) {
      throw new LibraryRefused({ kind: 'abi-mismatch', expected: ABI_VERSION, actual });
    }
  }

  /** Runs `handler_init`, if there is one. Returns its code. */
  initialise(context: number, response: number): number {
    const init = this.#find<Init>('handler_init', 'int32_t', ['uintptr_t', 'uintptr_t']);
    return init === null ? 0 : init(context, response);
  }

  /** Runs `handler_shutdown`, if there is one. */
  shutDown(): void {
    this.#find<() => void>('handler_shutdown', 'void', [])?.();
  }

  /** What `handler_info` says. */
  info(): HandlerInfo {
    const info = this.#find<() => unknown>('handler_info', koffi.pointer(description), []);
    const pointer = info?.();
    if (pointer === undefined || pointer === null) {
      return { name: null, version: null, description: null };
    }
    const {
      name,
      version,
      description: text,
    } = koffi.decode(pointer, description) as HandlerInfo & {
      struct_size: number;
    };
    return { name, version, description: text };
  }

  /** Gives up this lane's hold. The last one unmaps the library; nothing of it may be called again. */
  unload(): void {
    this.#library.unload();
  }

  #require<F>(symbol: string, result: string, parameters: string[]): F {
    const found = this.#find<F>(symbol, result, parameters);
    if (found === null) throw new LibraryRefused({ kind: 'missing-symbol', symbol });
    return found;
  }

  #find<F>(symbol: string, result: string | TypeObject, parameters: string[]): F | null {
    try {
      return this.#library.func(symbol, result, parameters) as F;
    } catch (error) {
      // koffi has no way to ask whether a symbol exists, and its errors have no code.
      if (error instanceof Error && /Cannot find function/.test(error.message)) return null;
      throw error;
    }
  }
}

function openLibrary({ libraryPath: path, binding }: LoadPlan): LibraryHandle {
  try {
    return koffi.load(path, { deep: binding === 'own' });
  } catch (error) {
    const message = messageOf(error);
    // The loader says the same as of a dependency that is not there.
    if (!existsSync(path)) throw new LibraryRefused({ kind: 'copy-gone', copyPath: path });
    const missing =
      /cannot open shared object file|undefined symbol|symbol not found|Library not loaded/i;
    const kind = missing.test(message) ? 'missing-dependency' : 'loader';
    throw new LibraryRefused({ kind, message });
  }
}
