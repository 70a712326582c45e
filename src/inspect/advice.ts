/** What is wrong with a library, or soon will be, and what to do: from facts, without looking at anything. */

import type { Prepared } from '../library/prepare/prepare.js';
import type { PreflightReport } from '../preflight/preflight.js';
import type { ElfFacts } from './elf-facts.js';

export interface Warning {
  /** A stable name. */
  code: string;
  message: string;
  fix: string;
}

const HANDLER_SYMBOLS = new Set([
  'handler_abi_version',
  'handler_entry',
  'handler_init',
  'handler_shutdown',
  'handler_info',
  'handler_release',
]);

/** What the linker adds to every library on some platforms. */
const LINKER_SYMBOLS = new Set(['_init', '_fini', '_edata', '_end', '__bss_start', '_etext']);

/** What a handler must not call, because it is the whole process's (docs/abi.md). */
const FORBIDDEN = [
  'exit',
  '_exit',
  '_Exit',
  'quick_exit',
  'pthread_exit',
  'fork',
  'vfork',
  'daemon',
  'signal',
  'sigaction',
  'setlocale',
  'chdir',
  'umask',
  'setenv',
  'putenv',
];

/** What the system and the C library have to start threads with, and the C++ library. */
const THREAD_STARTERS = new Map([
  ['pthread_create', 'pthread_create'],
  ['thrd_create', 'thrd_create'],
  [
    '_ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE',
    'std::thread',
  ],
]);

const MAX_NAMES = 5;

/** Which signals: those of the os/signal package's documentation, "Non-Go programs that call Go code", and seen so. */
const GO_RUNTIME: Warning = {
  code: 'go-runtime',
  message:
    'holds a Go runtime: in a thread it takes SIGSEGV, SIGBUS, SIGFPE, SIGPIPE and SIGURG from the process, starts threads that have no end, and is never unloaded, so that each version leaves its own',
  fix: "load it with isolation: 'process', where all of that ends with the lane",
};

/** Symbols that others can see and that the ABI has no use for. */
export function strayExports(elf: ElfFacts): string[] {
  return elf.exported
    .map(({ name }) => name)
    .filter((name) => !HANDLER_SYMBOLS.has(name) && !LINKER_SYMBOLS.has(name));
}

/**
 * What C++ compilers emit of the standard library's templates wherever these are used, visible whatever the flags: names in `std` and
 * `__gnu_cxx` by the Itanium C++ ABI, with the prefixes of tables, guards and statics of functions. They are the same in all libraries.
 */
const STANDARD_TEMPLATE = /^_Z(?:T[VTIS]|GV|Z)*N?[VK]*(?:S[tabsiod]|9__gnu_cxx)/;

export function elfAdvice(elf: ElfFacts): Warning[] {
  const { go, neverUnloaded, threadLocals } = elf.pins;
  // All else would be said of every library in Go, and its author can change none of it.
  if (go) return [GO_RUNTIME];
  const warnings: Warning[] = [];
  const warn = (code: string, message: string, fix: string) =>
    warnings.push({ code, message, fix });
  const stray = strayExports(elf).filter((name) => !STANDARD_TEMPLATE.test(name));
  if (stray.length > 0) {
    warn(
      'exports',
      `exports ${list(stray)}, which the host has no use for and others may collide with`,
      'compile with -fvisibility=hidden; for static libraries that you link in: -Wl,--exclude-libs,ALL',
    );
  }
  if (neverUnloaded) {
    warn('nodelete', 'is marked never to be unloaded', 'leave out -Wl,-z,nodelete');
  }
  const imported = new Set(elf.imported);
  if (threadLocals !== null) {
    warn(
      'thread-local-destructors',
      `has thread-locals with destructors (${threadLocals}): if a lane's own thread has used one, it stays in memory until another library is unloaded`,
      'nothing if it is one version that stays; else keep plain data in them, or use them in threads of your own alone',
    );
  }
  if (elf.staticTls) {
    warn(
      'static-tls',
      'has initial-exec thread-locals, whose room in a process soon runs out',
      'leave out -ftls-model=initial-exec, also in libraries that you link in',
    );
  }
  if (elf.executableStack) {
    warn(
      'executable-stack',
      'asks for an executable stack, for the whole process',
      'link with -Wl,-z,noexecstack; assembler files want .section .note.GNU-stack,"",@progbits',
    );
  }
  if (elf.textRelocations) {
    warn(
      'text-relocations',
      'its code has to be written to when it is loaded',
      'compile all of it with -fPIC',
    );
  }
  if (!elf.relro) {
    warn('no-relro', 'its tables of addresses stay writable', 'link with -Wl,-z,relro');
  }
  const relative = elf.searchPaths.filter((path) => !/^[/$]/.test(path));
  if (relative.length > 0) {
    warn(
      'relative-search-path',
      `looks for its dependencies in ${list(relative)}, which depends on the working directory`,
      'use $ORIGIN, or an absolute rpath',
    );
  }
  const starters = [...THREAD_STARTERS.keys()].filter((name) => imported.has(name));
  if (starters.length > 0 && !elf.exported.some(({ name }) => name === 'handler_shutdown')) {
    warn(
      'threads-without-shutdown',
      `can start threads (${list(starters.map((name) => THREAD_STARTERS.get(name) ?? name))}) and has no handler_shutdown to join them in`,
      'join every thread in handler_shutdown, or before the call that started it returns: a library that threads are in is not unloaded',
    );
  }
  const forbidden = FORBIDDEN.filter((name) => imported.has(name));
  if (forbidden.length > 0) {
    warn(
      'forbidden-calls',
      `calls ${list(forbidden)}, which would concern the whole process`,
      'leave that to the host; return an error instead',
    );
  }
  return warnings;
}

/** What was found when the copy was made ready. */
export function preparedAdvice({ sharedStatics, dependencies, obstacle }: Prepared): Warning[] {
  const warnings: Warning[] = [];
  if (obstacle !== null) {
    warnings.push({
      code: 'not-changed',
      message: `its copy is loaded as it was deployed, since ${obstacle}; versions may share what should be each one's own`,
      fix: 'link its dependencies in statically, and compile with -fno-gnu-unique',
    });
  }
  if (sharedStatics !== null) {
    const { symbols, count, libraries } = sharedStatics;
    warnings.push({
      code: 'shared-statics',
      message: `shares ${count} C++ statics (${list(symbols)}) with ${list(libraries)}, and so with all other versions`,
      fix: 'have the handler bring that library along, or link it in statically',
    });
  }
  for (const { name, path, kind, instead } of dependencies) {
    if (kind !== 'shadowed') continue;
    warnings.push({
      code: 'shadowed-dependency',
      message: `gets ${path} for ${name}, which is loaded already, and not ${instead}`,
      fix: 'have the handler bring it along ($ORIGIN), or link it in statically',
    });
  }
  return warnings;
}

/** What pre-flight saw, where the file itself has not told it already. */
export function preflightAdvice(report: PreflightReport, known: readonly Warning[]): Warning[] {
  const warnings: Warning[] = [];
  const isKnown = (...codes: string[]) => known.some(({ code }) => codes.includes(code));
  const pinning = ['not-changed', 'shared-statics', 'nodelete', 'thread-local-destructors'];
  if (report.unloads === false && !isKnown(...pinning, GO_RUNTIME.code)) {
    warnings.push({
      code: 'not-unloaded',
      message: 'stays in memory after it was unloaded, and so will each new version',
      fix: 'look for the causes above in the libraries that it needs, or for a dlopen of itself',
    });
  }
  if ((report.threadsLeft ?? 0) > 0 && !isKnown(GO_RUNTIME.code)) {
    warnings.push({
      code: 'threads-left',
      message: `${report.threadsLeft} of its threads run on after handler_shutdown`,
      fix: 'join every thread in handler_shutdown',
    });
  }
  if ((report.descriptorsLeft ?? 0) > 0 && !isKnown(GO_RUNTIME.code)) {
    warnings.push({
      code: 'descriptors-left',
      message: `leaves ${report.descriptorsLeft} file descriptors open when it is unloaded`,
      fix: 'close them in handler_shutdown',
    });
  }
  return warnings;
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, MAX_NAMES).join(', ');
  return names.length > MAX_NAMES ? `${shown} and ${names.length - MAX_NAMES} more` : shown;
}
