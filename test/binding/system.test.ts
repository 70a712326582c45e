/**
 * Binding with what the system has: its zlib and OpenSSL, which node has too, Rust's standard
 * library, and a sanitizer.
 */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { compileLibrary } from '../../fixtures/compile.js';
import { fixture } from '../../fixtures/paths.js';
import { scratch } from '../support/files.js';
import { needs } from '../support/needs.js';
import { outcome } from '../support/outcomes.js';
import { onLinux } from '../support/process.js';
import { activeOf, openRegistry } from '../support/registry.js';
import { linesOf, systemLibrary } from './child.js';

const SOURCE = `
  #include "decimal.h"
  #include <stdio.h>
  #include <zlib.h>
  #include <openssl/crypto.h>
  HANDLER_DEFINE_ABI();
  int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
    char text[200];
    (void)ctx; (void)req;
    int length = snprintf(text, sizeof text, "%s %s %d", zlibVersion(), ZLIB_VERSION,
                          OpenSSL_version_num() == OPENSSL_VERSION_NUMBER);
    return handler_reply(res, (const uint8_t *)text, (size_t)length);
  }
`;

/** What a library was compiled with is what it runs with. */
async function runsWithItsOwn(t: ExecutionContext, libraries: readonly string[]): Promise<void> {
  const directory = await scratch(t);
  const source = join(directory, 'x.c');
  const output = join(directory, 'libhandler_x.so');
  await writeFile(source, SOURCE);
  const flags = [`-I${join(import.meta.dirname, '../../../fixtures')}`, ...libraries];
  await compileLibrary({ source, output, flags });
  for (const isolation of ['thread', 'process'] as const) {
    const { registry } = await openRegistry(t, { isolation, preflight: true });
    await registry.loadFrom('x', output);
    t.is(activeOf(registry, 'x').binding.mode, 'own');
    const said = await outcome(registry.execute('x', {}, ''));
    const [zlib, header, sameOpenSsl] = said.split(' ');
    t.is(zlib, header, said);
    t.is(sameOpenSsl, '1', said);
  }
}

const hasHeaders = existsSync('/usr/include/zlib.h') && existsSync('/usr/include/openssl/crypto.h');
const hasShared = systemLibrary('libz.so') !== null && systemLibrary('libcrypto.so') !== null;
// Not zlib: Debian's is not made for being linked into shared libraries.
const hasStatic = systemLibrary('libz.so') !== null && systemLibrary('libcrypto.a') !== null;
const missing = 'zlib1g-dev and libssl-dev';

needs(
  missing,
  hasHeaders && hasShared,
  onLinux,
)('zlib and OpenSSL as shared libraries are its own', (t) =>
  runsWithItsOwn(t, ['-lz', '-lcrypto']),
);

needs(
  missing,
  hasHeaders && hasStatic,
  onLinux,
)('OpenSSL linked in statically is its own', (t) =>
  runsWithItsOwn(t, ['-lz', '-l:libcrypto.a', '-ldl', '-pthread']),
);

for (const isolation of ['thread', 'process'] as const) {
  needs(
    'rustc',
    existsSync(fixture('environment')),
    onLinux,
  )(`${isolation}: Rust sees the environment, and so do its child processes`, async (t) => {
    const body = `
        for (const binding of ['auto', 'own']) {
          await registry.load('environment', { binding });
          console.log(await ask('environment', ''));
        }
      `;
    const env = { BOUND: 'yes' };
    const options = { isolation, env: isolation === 'process' ? env : {} };
    t.deepEqual(await linesOf(t, body, { env, options }), ['yes yes', 'yes yes']);
  });
}

const sanitizer = sanitizerLibrary();

function sanitizerLibrary(): string | null {
  const compiler = process.env['CC'] ?? 'cc';
  try {
    const path = execFileSync(compiler, ['-print-file-name=libasan.so'], {
      encoding: 'utf8',
    }).trim();
    return path.includes('/') && process.platform === 'linux' ? path : null;
  } catch {
    return null; // No compiler of that name: the fixtures were made with another one.
  }
}

needs(
  'GCC with libasan',
  sanitizer !== null,
  onLinux,
)(
  'a host with AddressSanitizer: ordinary binding works, own binding is refused and says why',
  async (t) => {
    const env = { LD_PRELOAD: sanitizer ?? '', ASAN_OPTIONS: 'detect_leaks=0', BOUND: 'yes' };
    const body = `
      await registry.load('bound');
      for (const what of ['cerr', 'environ', 'memory']) console.log(await ask('bound', what));
      const error = await registry.load('bound_own').catch((error) => error);
      console.log(error.code, error.own.join(), error.shared.length, /sanitizer/.test(error.obstacle));
      console.log((await registry.load('bound_own', { binding: 'default' })).binding.mode);
    `;
    const expected = [
      'said',
      'BOUND=yes',
      'allocated',
      'ERR_HANDLER_BINDING_CONFLICT zlibVersion 0 true',
      'default',
    ];
    t.deepEqual(await linesOf(t, body, { env, options: { env } }), expected);
  },
);
