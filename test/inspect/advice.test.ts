/** Libraries compiled to be wrong in one way each, and what is said about them. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import test from 'ava';
import { compileLibrary } from '../../fixtures/compile.js';
import { fixture } from '../../fixtures/paths.js';
import { preflightAdvice } from '../../src/inspect/advice.js';
import { type Inspection, inspect } from '../../src/inspect/inspect.js';
import { scratch } from '../support/files.js';
import { onLinux } from '../support/process.js';

/** All tests compile and start a child at once, which takes a busy machine longer than users would wait. */
const TIMEOUT_MS = 60_000;

const HANDLER = `
#include "handler.h"
HANDLER_DEFINE_ABI();
int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
  (void)ctx;
  return handler_reply(res, req->data, (size_t)req->length);
}
`;

async function inspectSource(
  t: ExecutionContext,
  more: string,
  flags: string[],
  language: 'c' | 'c++' = 'c',
): Promise<Inspection> {
  const directory = await scratch(t);
  const source = join(directory, language === 'c' ? 'x.c' : 'x.cc');
  const output = join(directory, 'libhandler_x.so');
  await writeFile(source, HANDLER + more);
  await compileLibrary({ source, output, flags, language });
  return inspect(output, { env: {}, timeoutMs: TIMEOUT_MS });
}

const codesOf = ({ warnings }: Inspection) => warnings.map(({ code }) => code);

interface Case {
  more?: string;
  flags?: string[];
  language?: 'c++';
  codes: string[];
  /** What else is seen. */
  like?: object;
}

const visible = ['-fvisibility=default'];

const CASES: Record<string, Case> = {
  nothing: { codes: [], like: { threadLocals: false, otherSymbols: [] } },
  'another export': {
    more: 'int mine(void); int mine(void) { return 1; }',
    flags: visible,
    codes: ['exports'],
    like: { otherSymbols: ['mine'], handlerSymbols: ['handler_abi_version', 'handler_entry'] },
  },
  'an export that node has too': {
    more: 'const char *zlibVersion(void); const char *zlibVersion(void) { return "0"; }',
    flags: visible,
    codes: ['exports'],
    like: { binding: { mode: 'default', symbols: [] } },
  },
  'the same, which it calls': {
    more: `const char *zlibVersion(void); const char *zlibVersion(void) { return "0"; }
      int mine(void); int mine(void) { return zlibVersion() != 0; }`,
    flags: [...visible, '-fno-inline'],
    codes: ['exports'],
    like: { binding: { mode: 'own', symbols: ['zlibVersion'] } },
  },
  'threads that nothing joins': {
    more: `#include <pthread.h>
      static void *run(void *nothing) { return nothing; }
      __attribute__((constructor)) static void start(void) {
        pthread_t thread;
        if (pthread_create(&thread, 0, run, 0) == 0) pthread_join(thread, 0);
      }`,
    flags: ['-pthread'],
    codes: ['threads-without-shutdown'],
  },
  'the same, bound to itself': {
    more: 'const char *zlibVersion(void); const char *zlibVersion(void) { return "0"; }',
    flags: [...visible, '-Wl,-Bsymbolic'],
    codes: ['exports'],
  },
  'unique symbols': {
    more: 'inline int *count() { static int n; return &n; } int *use(); int *use() { return count(); }',
    flags: visible,
    language: 'c++',
    codes: ['exports'],
    like: {
      preflight: { unloads: true },
      patches: [{ library: 'libhandler_x.so', uniqueSymbols: 1 }],
    },
  },
  'the same without': {
    more: 'inline int *count() { static int n; return &n; } int *use(); int *use() { return count(); }',
    flags: [...visible, '-fno-gnu-unique'],
    language: 'c++',
    codes: ['exports'],
    like: { preflight: { unloads: true } },
  },
  'never deleted': {
    flags: ['-Wl,-z,nodelete'],
    codes: ['nodelete'],
    like: { preflight: { unloads: false } },
  },
  // What the linker of Go puts into every library of its own; of what else it does, Go's authors can change nothing.
  'a Go runtime': {
    more: 'HANDLER_EXPORT void crosscall2(void); void crosscall2(void) {}',
    flags: ['-Wl,-z,nodelete'],
    codes: ['go-runtime'],
    like: { preflight: { unloads: false } },
  },
  'templates of the standard library': {
    more: '#include <string>\n#include <vector>\nvoid handler_shutdown() { std::vector<std::string> each(2); each.emplace_back("a"); }',
    language: 'c++',
    codes: [],
  },
  'thread-locals': {
    more: 'static __thread int n; HANDLER_EXPORT void handler_shutdown(void) { n++; }',
    codes: [],
    like: { threadLocals: true },
  },
  'thread-locals with destructors': {
    more: 'struct Own { ~Own() { at = nullptr; } void *at; }; static thread_local Own own; void handler_shutdown() { own.at = &own; }',
    language: 'c++',
    codes: ['thread-local-destructors'],
    like: { threadLocals: true },
  },
  'initial-exec thread-locals': {
    more: 'static __thread int n; HANDLER_EXPORT void handler_shutdown(void) { n++; }',
    flags: ['-ftls-model=initial-exec'],
    codes: ['static-tls'],
  },
  'an executable stack': { flags: ['-Wl,-z,execstack'], codes: ['executable-stack'] },
  'no relro': { flags: ['-Wl,-z,norelro'], codes: ['no-relro'] },
  'a relative rpath': {
    flags: ['-Wl,-rpath,lib:$ORIGIN/lib:/usr/lib'],
    codes: ['relative-search-path'],
  },
  'a forbidden call': {
    more: '#include <stdlib.h>\nvoid handler_shutdown(void) { if (getenv("NEVER") != NULL) exit(1); }',
    codes: ['forbidden-calls'],
  },
};

for (const [what, { more = '', flags = [], language = 'c', codes, like }] of Object.entries(
  CASES,
)) {
  onLinux(`${what}: ${codes.join(', ') || 'no warning'}`, async (t) => {
    const inspection = await inspectSource(t, more, flags, language);
    t.is(inspection.refused, null);
    t.deepEqual(codesOf(inspection), codes);
    for (const { message, fix } of inspection.warnings) t.true(message !== '' && fix !== '');
    if (like !== undefined) t.like(inspection, like);
  });
}

onLinux('a library with its section table stripped is known as well as any', async (t) => {
  const directory = await scratch(t);
  const bytes = await readFile(fixture('echo'));
  // e_shoff and e_shnum of a 64-bit file.
  bytes.writeBigUInt64LE(0n, 40);
  bytes.writeUInt16LE(0, 60);
  const path = join(directory, 'libhandler_x.so');
  await writeFile(path, bytes);
  const inspection = await inspect(path, { env: {}, timeoutMs: TIMEOUT_MS });
  t.like(inspection, {
    refused: null,
    handlerSymbols: ['handler_abi_version', 'handler_entry'],
    otherSymbols: [],
  });
  t.is(inspection.dependencies?.[0]?.name, 'libc.so.6');
});

test('what pre-flight saw is only said if the file has not said it', (t) => {
  const info = { name: null, version: null, description: null };
  const clean = {
    tookMs: 1,
    info,
    unloads: true,
    threadsLeft: 0,
    descriptorsLeft: 0,
    selfTestMs: null,
  };
  const codes = (report: object, known: string[] = []) =>
    preflightAdvice(
      { ...clean, ...report },
      known.map((code) => ({ code, message: '', fix: '' })),
    ).map(({ code }) => code);
  t.deepEqual(codes({}), []);
  t.deepEqual(codes({ unloads: null, threadsLeft: null, descriptorsLeft: null }), []);
  t.deepEqual(codes({ unloads: false }), ['not-unloaded']);
  t.deepEqual(codes({ unloads: false }, ['exports']), ['not-unloaded']);
  for (const known of ['not-changed', 'shared-statics', 'nodelete', 'thread-local-destructors']) {
    t.deepEqual(codes({ unloads: false }, [known]), []);
  }
  t.deepEqual(codes({ threadsLeft: 1, descriptorsLeft: 2 }), ['threads-left', 'descriptors-left']);
});
