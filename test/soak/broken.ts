/** Libraries that must be refused, each with what must be said of it. None may reach the process: a crash in here would end the soak. */

import { copyFile, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { fixture } from '../../fixtures/paths.js';
import type { LoadOptions } from '../../src/index.js';

export interface Broken {
  readonly what: string;
  readonly path: string;
  readonly options?: LoadOptions;
  /** Fields of the error. */
  readonly error: Readonly<Record<string, unknown>>;
}

const library = (id: string, code: string): Broken => ({
  what: id,
  path: fixture(id),
  error: { code: `ERR_HANDLER_${code}` },
});

const fault = (how: string, step: string, error: Record<string, unknown>): Broken => ({
  what: `${how} in ${step}`,
  path: fixture('fault'),
  options: { env: { CHANGEOVER_TEST_FAULT: `${how}@${step}` } },
  error: { code: 'ERR_HANDLER_PREFLIGHT', ...error },
});

/** `directory` is for a library that is cut short. */
export async function brokenLibraries(directory: string): Promise<Broken[]> {
  const truncated = join(directory, 'libhandler_truncated.so');
  await copyFile(fixture('echo'), truncated);
  await truncate(truncated, Math.floor((await stat(truncated)).size / 2));
  return [
    library('missing_abi', 'MISSING_SYMBOL'),
    library('missing_entry', 'MISSING_SYMBOL'),
    library('wrong_abi', 'ABI_MISMATCH'),
    library('failing_init', 'INIT_FAILED'),
    library('missing_dependency', 'MISSING_DEPENDENCY'),
    library('missing_function', 'MISSING_DEPENDENCY'),
    library('no_such_library', 'LIBRARY_NOT_FOUND'),
    {
      what: 'truncated',
      path: truncated,
      error: { code: 'ERR_HANDLER_LIBRARY_INVALID', defect: 'truncated' },
    },
    {
      what: 'another build',
      path: fixture('echo'),
      options: { integrity: `sha256-${Buffer.alloc(32).toString('base64')}` },
      error: { code: 'ERR_HANDLER_INTEGRITY' },
    },
    {
      what: 'a failed self-test',
      path: fixture('version_a'),
      options: {
        preflight: { selfTest: { request: 'x', check: (response) => response.text() === 'B:x' } },
      },
      error: { code: 'ERR_HANDLER_PREFLIGHT', reason: 'self-test-failed' },
    },
    fault('segv', 'constructor', { reason: 'crashed', signal: 'SIGSEGV' }),
    fault('segv', 'init', { reason: 'crashed', signal: 'SIGSEGV' }),
    fault('abort', 'init', { reason: 'crashed', signal: 'SIGABRT' }),
    fault('exit', 'init', { reason: 'exited', exitCode: 3 }),
    fault('pthread_exit', 'init', { reason: 'thread-ended' }),
    fault('overflow', 'shutdown', { reason: 'crashed', signal: 'SIGSEGV' }),
    fault('thread', 'init', { reason: 'threads-left' }),
    {
      ...fault('sleep', 'init', { code: 'ERR_HANDLER_LOAD_TIMEOUT' }),
      options: { env: { CHANGEOVER_TEST_FAULT: 'sleep@init' }, loadTimeoutMs: 700 },
    },
  ];
}
