/**
 * Libraries that are not a handler's own affair: the C and C++ runtime, and runtimes whose threads
 * outlive their users.
 */

import { type ElfFile, hashNames } from '../elf/elf-file.js';

/** A library of a handler's closure: itself, or one that it needs, directly or not. */
export interface ClosureLibrary {
  /** The name that it is needed by; of the handler itself, its file's name. */
  name: string;
  path: string;
  elf: ElfFile;
}

/**
 * What every program on Linux shares: two copies of it in one process get in each other's way, and
 * one that another library shares names with is the same anyway.
 */
const SYSTEM_RUNTIME =
  /^(?:ld-(?:linux|musl)[^/]*\.so|lib(?:c|m|dl|pthread|rt|util|resolv|anl|mvec|nss_\w+|BrokenLocale|stdc\+\+|gcc_s|atomic)\.so)(?:\.|$)/;

/** Whether the library called `soname` belongs to the C or C++ runtime. */
export function isSystemRuntime(soname: string): boolean {
  return SYSTEM_RUNTIME.test(soname);
}

/**
 * By name: OpenMP of GCC, LLVM and Intel, threading building blocks, Grand Central Dispatch, and
 * BLAS libraries that start their threads when they are loaded.
 */
const LASTING_NAMES =
  /^lib(?:gomp|i?omp5?|iomp5md|tbb|tbb_debug|tbbmalloc|tbbmalloc_proxy|tbbbind\w*|dispatch|openblas\w*|blis\w*|mkl_(?:core|rt|\w+_thread)|cuda|cudart|OpenCL|oneapi\w*|sycl|cilkrts|goto2|armpl\w*)(?:[-.]|$)/;

/**
 * By what it defines, however it is called: a copy that is brought along may have been renamed.
 * Each is what programs call to have work done by the runtime's threads.
 */
const LASTING_SYMBOLS = hashNames([
  'GOMP_parallel',
  '__kmpc_fork_call',
  'dispatch_async_f',
  'openblas_set_num_threads',
  '_ZN3tbb6detail2r15spawnERNS0_2d14taskERNS2_18task_group_contextE',
  'TBB_runtime_interface_version',
  '_ZN3tbb19task_scheduler_init10initializeEim',
  'scalable_malloc',
]);

/** Whether a library keeps threads that go on after those who have called it are gone. */
export function keepsThreads(name: string, elf: ElfFile): boolean {
  const soname = elf.soname ?? name;
  if (LASTING_NAMES.test(soname) || LASTING_NAMES.test(name)) return true;
  return [...LASTING_SYMBOLS].some(([hash, symbol]) => elf.find(symbol, hash) !== undefined);
}

/**
 * What starts a thread: of POSIX, of C11, of the C++ library, the system calls themselves; and what
 * may bring in anything.
 */
const THREAD_STARTERS = hashNames([
  'pthread_create',
  'thrd_create',
  '_ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE',
  'clone',
  'clone3',
  'syscall',
  'dlopen',
]);

/** Whether a library, by itself, can start a thread. */
export function canStartThreads(elf: ElfFile): boolean {
  return elf.importsAmong(THREAD_STARTERS).size > 0;
}
