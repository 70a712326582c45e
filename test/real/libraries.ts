/** The libraries of the conformance suite. */

import { programPath } from './build.js';
import { LARGE_BYTES, markdown, picture, sql, USUAL_BYTES, words, xml } from './inputs.js';
import type { Library, Need } from './library.js';
import { FILE, output } from './tools.js';

const gcc: Need = { package: 'gcc', program: 'cc' };
const gxx: Need = { package: 'g++', program: 'c++' };

const KEY = Buffer.from('01234567890123456789012345678901');
const IV = Buffer.from('0123456789012345');

async function text(): Promise<{ usual: Buffer; large: Buffer }> {
  return { usual: words(USUAL_BYTES), large: words(LARGE_BYTES) };
}

/** A tool that prints what the handler answers. */
const prints =
  (...command: string[]): Library['agrees'] =>
  async (request, response) =>
    response.equals(await output(command, request));

/** A tool that makes the request of the response again. */
const readsBack =
  (...command: string[]): Library['agrees'] =>
  async (request, response) =>
    request.equals(await output(command, response));

/** For code of our own: the same library, in a program that has no Node in it. */
const asProgram: Library['agrees'] = async (request, response, handler) =>
  response.equals(await output([await programPath(), handler], request));

const sameCode = 'the same code in a program without Node';

function openssl(cipher: string, keyBytes: number, ivBytes: number, ...more: string[]): string[] {
  const key = KEY.subarray(0, keyBytes).toString('hex');
  const iv = IV.subarray(0, ivBytes).toString('hex');
  return ['openssl', 'enc', `-${cipher}`, '-K', key, '-iv', iv, ...more];
}

/** What holds for most. */
const common = { requests: text, inThreads: 'unloaded', warnings: [] } as const;

const ownCode = { ...common, judge: sameCode, agrees: asProgram } as const;

const zlib = {
  ...common,
  judge: '`gzip -dc`',
  agrees: readsBack('gzip', '-dc'),
} as const;

const crypto = {
  ...common,
  judge: '`openssl enc`',
  agrees: prints(...openssl('aes-256-cbc', 32, 16)),
} as const;

const rust = {
  ...ownCode,
  needs: [gcc, { package: 'rustc', program: 'rustc' }],
  inThreads: 'swept',
  reason: /thread-local/,
  dependencies: ['libc.so.6'],
} as const;

export const libraries: readonly Library[] = [
  {
    ...common,
    name: 'zstd',
    title: 'Zstandard, compresses',
    needs: [
      gcc,
      { package: 'libzstd-dev', header: 'zstd.h' },
      { package: 'zstd', program: 'zstd' },
    ],
    source: { language: 'c', file: 'zstd.c', flags: ['-lzstd'] },
    judge: '`zstd -dc`',
    agrees: readsBack('zstd', '-dc'),
    dependencies: ['libzstd.so.1'],
  },
  {
    ...common,
    name: 'webp',
    binding: 'default',
    title: 'WebP, decodes',
    needs: [
      gcc,
      { package: 'libwebp-dev', header: 'webp/decode.h' },
      { package: 'webp', program: 'dwebp' },
    ],
    source: { language: 'c', file: 'webp.c', flags: ['-lwebp'] },
    judge: '`dwebp -pam`',
    async requests() {
      const encode = (image: Buffer) =>
        output(['cwebp', '-quiet', '-lossless', '-z', '0', FILE, '-o', '-'], image);
      const [usual, large] = await Promise.all([
        encode(picture(128, 128)),
        encode(picture(2048, 2047)),
      ]);
      return { usual, large };
    },
    agrees: prints('dwebp', '-quiet', '-pam', FILE, '-o', '-'),
    dependencies: ['libwebp.so.7'],
  },
  {
    ...common,
    name: 'sqlite',
    title: 'SQLite, runs a script',
    needs: [
      gcc,
      { package: 'libsqlite3-dev', header: 'sqlite3.h' },
      { package: 'sqlite3', program: 'sqlite3' },
    ],
    source: { language: 'c', file: 'sqlite.c', flags: ['-lsqlite3'] },
    judge: '`sqlite3`',
    requests: async () => ({ usual: sql(USUAL_BYTES), large: sql(LARGE_BYTES) }),
    agrees: prints('sqlite3', '-init', '/dev/null', ':memory:'),
    dependencies: ['libsqlite3.so.0'],
  },
  {
    ...common,
    name: 'libxml2',
    title: 'libxml2, makes XML canonical',
    needs: [
      gcc,
      { package: 'libxml2-dev', header: 'libxml/c14n.h' },
      { package: 'libxml2-utils', program: 'xmllint' },
    ],
    source: { language: 'c', file: 'libxml2.c', flags: ['-I/usr/include/libxml2', '-lxml2'] },
    judge: '`xmllint --c14n`',
    requests: async () => ({ usual: xml(USUAL_BYTES), large: xml(LARGE_BYTES) }),
    agrees: prints('xmllint', '--c14n', FILE),
    dependencies: ['libxml2.so.2'],
  },
  {
    ...common,
    name: 'cmark',
    binding: 'default',
    title: 'cmark, renders Markdown',
    needs: [
      gcc,
      { package: 'libcmark-dev', header: 'cmark.h' },
      { package: 'cmark', program: 'cmark' },
    ],
    source: { language: 'c', file: 'cmark.c', flags: ['-lcmark'] },
    judge: '`cmark`',
    requests: async () => ({ usual: markdown(USUAL_BYTES), large: markdown(LARGE_BYTES) }),
    agrees: prints('cmark', FILE),
    dependencies: ['libcmark.so.0.30.2'],
  },
  {
    ...zlib,
    name: 'zlib',
    binding: 'own',
    title: 'zlib, compresses',
    needs: [gcc, { package: 'zlib1g-dev', header: 'zlib.h' }],
    source: { language: 'c', file: 'zlib.c', flags: ['-lz'] },
    dependencies: ['libz.so.1'],
  },
  {
    ...zlib,
    name: 'zlib-static',
    title: 'zlib linked in, compresses',
    needs: [gcc, { package: 'zlib1g-dev', archive: 'libz.a' }],
    source: {
      language: 'c',
      file: 'zlib.c',
      flags: ['-Wl,--exclude-libs,ALL', '-Wl,-Bstatic', '-lz', '-Wl,-Bdynamic'],
    },
    dependencies: ['libc.so.6'],
  },
  {
    ...crypto,
    name: 'crypto',
    binding: 'own',
    title: 'libcrypto, encrypts',
    needs: [
      gcc,
      { package: 'libssl-dev', header: 'openssl/evp.h' },
      { package: 'openssl', program: 'openssl' },
    ],
    source: { language: 'c', file: 'crypto.c', flags: ['-lcrypto'] },
    dependencies: ['libcrypto.so.3'],
  },
  {
    ...crypto,
    name: 'crypto-static',
    title: 'libcrypto linked in, encrypts',
    needs: [
      gcc,
      { package: 'libssl-dev', archive: 'libcrypto.a' },
      { package: 'openssl', program: 'openssl' },
    ],
    source: {
      language: 'c',
      file: 'crypto.c',
      flags: ['-Wl,--exclude-libs,ALL', '-Wl,-Bstatic', '-lcrypto', '-Wl,-Bdynamic'],
    },
    dependencies: ['libc.so.6'],
    // It has a function that asks for a passphrase at a terminal, which nobody calls.
    warnings: ['forbidden-calls'],
  },
  {
    ...common,
    name: 'plugin',
    binding: 'own',
    title: 'libcrypto that opens its `legacy` provider, encrypts',
    needs: [
      gcc,
      { package: 'libssl-dev', header: 'openssl/provider.h' },
      { package: 'openssl', program: 'openssl' },
    ],
    source: {
      language: 'c',
      file: 'crypto.c',
      flags: ['-DCIPHER="BF-CBC"', '-DPROVIDER="legacy"', '-lcrypto'],
    },
    judge: '`openssl enc -provider legacy`',
    agrees: prints(...openssl('bf-cbc', 16, 8, '-provider', 'legacy', '-provider', 'default')),
    dependencies: ['libcrypto.so.3'],
  },
  {
    ...ownCode,
    name: 'openmp',
    binding: 'default',
    title: 'OpenMP, counts bytes',
    needs: [gcc],
    source: { language: 'c', file: 'openmp.c', flags: ['-fopenmp'] },
    dependencies: ['libgomp.so.1'],
  },
  {
    ...ownCode,
    name: 'pool',
    binding: 'default',
    title: 'C++: pool of threads with thread-locals, locale, streams, regular expressions',
    needs: [gxx],
    source: { language: 'c++', file: 'pool.cc', flags: ['-pthread'] },
    dependencies: ['libstdc++.so.6'],
    // Those of its own threads, which hold nothing once they are joined.
    warnings: ['thread-local-destructors'],
    says: /^pool [12] starts$/,
  },
  {
    ...ownCode,
    name: 'thread_local',
    binding: 'default',
    title: 'C++: a thread-local of the lane with a destructor',
    needs: [gxx],
    source: { language: 'c++', file: 'thread_local.cc' },
    inThreads: 'swept',
    reason: /thread-local/,
    dependencies: ['libstdc++.so.6'],
    warnings: ['thread-local-destructors'],
  },
  {
    ...ownCode,
    name: 'fortran',
    binding: 'default',
    title: 'Fortran, multiplies matrices',
    needs: [gcc, { package: 'gfortran', program: 'gfortran' }],
    source: { language: 'fortran', file: 'fortran.f90' },
    dependencies: ['libgfortran.so.5'],
    // gfortran hides nothing of a module.
    warnings: ['exports'],
  },
  {
    ...rust,
    name: 'rust',
    binding: 'default',
    panic: { request: 'do panic', error: { code: 5, message: 'asked to' } },
    title: 'Rust that unwinds, counts words',
    source: { language: 'rust', file: 'words.rs' },
    warnings: ['thread-local-destructors', 'threads-without-shutdown'],
  },
  {
    ...rust,
    name: 'rust-abort',
    binding: 'default',
    panic: { request: 'do panic', error: null },
    title: 'Rust with `panic=abort`, counts words',
    source: { language: 'rust', file: 'words.rs', flags: ['-C', 'panic=abort'] },
    warnings: ['thread-local-destructors', 'threads-without-shutdown'],
  },
  {
    ...ownCode,
    name: 'go',
    binding: 'default',
    panic: { request: 'do panic', error: { code: 5, message: 'a panic in Go' } },
    title: 'Go, counts words',
    needs: [gcc, { package: 'golang-go', program: 'go' }],
    source: { language: 'go', directory: 'go' },
    inThreads: 'stays',
    reason: /Go/,
    dependencies: ['libc.so.6'],
    warnings: ['go-runtime'],
  },
];
