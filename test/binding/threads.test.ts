/** Threads of a library, or of a runtime that it uses, when it is unloaded. */

import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { fixturesDir } from '../../fixtures/paths.js';
import { scratch } from '../support/files.js';
import { compileIn, HANDLER } from '../support/libraries.js';
import { needs } from '../support/needs.js';
import { onLinux } from '../support/process.js';
import { linesOf } from './child.js';

const ROUNDS = 20;

onLinux('OpenMP: its runtime stays mapped, the handler does not', async (t) => {
  const body = `
    const request = new Uint8Array(200_000).fill(1);
    const reports = [];
    for (let round = 0; round < ${ROUNDS}; round++) {
      await registry.load('openmp');
      console.log(await ask('openmp', request));
      reports.push(await registry.unload('openmp'));
    }
    const fates = reports.flatMap(({ libraries }) => libraries.map(({ name, fate }) => name + ' ' + fate));
    console.log([...new Set(fates)].sort().join());
    const reason = reports[0].libraries.find(({ name }) => name === 'libgomp.so.1').reason;
    console.log(reason.includes('(runtime)'), reports.every(({ library, reason }) => library === 'unloaded' && reason === undefined));
  `;
  const lines = await linesOf(t, body, { options: { threads: 2, preflight: false } });
  t.deepEqual(lines.slice(0, ROUNDS), Array(ROUNDS).fill('200000'));
  t.deepEqual(lines.slice(ROUNDS), [
    'libgomp.so.1 resident,libhandler_openmp.so unloaded',
    'true true',
  ]);
});

onLinux('OpenMP in a process of its own', async (t) => {
  const body = `
    registry.on('laneExited', ({ error }) => console.log('exited', error));
    for (let round = 0; round < 5; round++) {
      await registry.load('openmp');
      console.log(await ask('openmp', new Uint8Array(100).fill(2)));
      console.log((await registry.unload('openmp')).library);
    }
  `;
  const lines = await linesOf(t, body, { options: { isolation: 'process', preflight: false } });
  t.deepEqual(lines, Array(5).fill(['200', 'unloaded']).flat());
});

onLinux("OpenMP in a self-test: its threads are not the library's", async (t) => {
  const body = `
    const preflight = { selfTest: { request: new Uint8Array(100).fill(3), check: (r) => r.text() === '300' } };
    const handler = await registry.load('openmp', { preflight });
    console.log(handler.preflight.threadsLeft, handler.preflight.unloads);
  `;
  t.deepEqual(await linesOf(t, body), ['0 true']);
});

onLinux(
  'a thread that nobody joined keeps the library mapped, and the process goes on',
  async (t) => {
    const body = `
    import { readFileSync } from 'node:fs';
    await registry.load('left_thread');
    await ask('left_thread', '');
    const { library, reason, libraries } = await registry.unload('left_thread');
    console.log(library, /thread/.test(reason), libraries[0].fate, libraries[0].reason === reason);
    console.log(/left_thread/.test(readFileSync('/proc/self/maps', 'utf8')));
  `;
    t.deepEqual(await linesOf(t, body, { options: { threads: 2, preflight: false } }), [
      'resident true resident true',
      'true',
    ]);
  },
);

onLinux('a thread that the handler has sent into a library of its own keeps both', async (t) => {
  const directory = await scratch(t);
  const dep = await compileIn(directory, {
    name: 'libpoll.so',
    code: `#define _POSIX_C_SOURCE 200809L
      #include <time.h>
      void poll_once(void);
      void poll_once(void) { struct timespec time = {0, 1000000}; nanosleep(&time, NULL); }`,
    flags: ['-Wl,-soname,libpoll.so'],
  });
  const handler = await compileIn(directory, {
    name: 'libhandler_poller.so',
    code: `${HANDLER}
      #include <pthread.h>
      void poll_once(void);
      static volatile int ticks;
      static void *poll(void *unused) { for (;;) { poll_once(); ticks++; } return unused; }
      int32_t handler_init(const handler_context *ctx, handler_response *res) {
        (void)ctx; (void)res;
        pthread_t thread;
        return pthread_create(&thread, NULL, poll, NULL);
      }
      int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
        (void)ctx; (void)req;
        return say(res, "ticks", ticks);
      }`,
    flags: [dep, '-Wl,-rpath,$ORIGIN', '-pthread'],
  });
  const body = `
    await registry.loadFrom('poller', ${JSON.stringify(handler)});
    const { library, libraries } = await registry.unload('poller');
    console.log(library, libraries.map(({ name, fate }) => name + ' ' + fate).join());
  `;
  t.deepEqual(await linesOf(t, body, { options: { preflight: false } }), [
    'resident libhandler_poller.so resident,libpoll.so resident',
  ]);
});

onLinux('a thread that runs on may be in the handler, also if another is elsewhere', async (t) => {
  const directory = await scratch(t);
  const dep = await compileIn(directory, {
    name: 'libpool.so',
    code: `#define _POSIX_C_SOURCE 200809L
      #include <pthread.h>
      #include <time.h>
      int start_pool(void);
      static void *rest(void *unused) {
        for (;;) { struct timespec time = {0, 1000000}; nanosleep(&time, NULL); }
        return unused;
      }
      int start_pool(void) { pthread_t thread; return pthread_create(&thread, NULL, rest, NULL); }`,
    flags: ['-Wl,-soname,libpool.so', '-pthread'],
  });
  const handler = await compileIn(directory, {
    name: 'libhandler_spinner.so',
    code: `${HANDLER}
      #include <pthread.h>
      int start_pool(void);
      static volatile int spins;
      static void *spin(void *unused) { for (;;) spins++; return unused; }
      int32_t handler_init(const handler_context *ctx, handler_response *res) {
        (void)ctx; (void)res;
        pthread_t thread;
        return start_pool() + pthread_create(&thread, NULL, spin, NULL);
      }
      int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
        (void)ctx; (void)req;
        return say(res, "spins", spins);
      }`,
    flags: [dep, '-Wl,-rpath,$ORIGIN', '-pthread'],
  });
  const body = `
    await registry.loadFrom('spinner', ${JSON.stringify(handler)});
    const { libraries } = await registry.unload('spinner');
    console.log(libraries.map(({ name, fate }) => name + ' ' + fate).join());
  `;
  t.deepEqual(await linesOf(t, body, { options: { preflight: false } }), [
    'libhandler_spinner.so resident,libpool.so resident',
  ]);
});

onLinux('the same thread in a self-test refuses the library', async (t) => {
  const body = `
    const preflight = { selfTest: { request: '' } };
    const error = await registry.load('left_thread', { preflight }).catch((error) => error);
    console.log(error.code, error.reason, error.step);
  `;
  t.deepEqual(await linesOf(t, body), ['ERR_HANDLER_PREFLIGHT threads-left shutdown']);
});

onLinux('a thread that is joined keeps nothing', async (t) => {
  const body = `
    for (let round = 0; round < 5; round++) {
      await registry.load('own_thread');
      await ask('own_thread', '');
      console.log((await registry.unload('own_thread')).library);
    }
  `;
  t.deepEqual(await linesOf(t, body, { options: { preflight: false } }), Array(5).fill('unloaded'));
});

/** Whether any user can get to a file or directory. */
function isForAll(path: string): boolean {
  if ((statSync(path).mode & 0o1) === 0) return false;
  return path === dirname(path) || isForAll(dirname(path));
}

const canBecomeNobody =
  process.platform === 'linux' && process.getuid?.() === 0 && isForAll(fixturesDir);

/** Then the system keeps some of the process's own files in /proc from it. */
needs('Linux, root, and a directory that all users can read', canBecomeNobody)(
  'a host that has become another user loads, and keeps what it cannot look into',
  async (t) => {
    const body = `
    import { chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
    import { tmpdir } from 'node:os';
    const cacheDir = mkdtempSync(tmpdir() + '/changeover-test-');
    chownSync(cacheDir, 65534, 65534);
    process.setgid(65534);
    process.setuid(65534);
    const theirs = new HandlerRegistry({ handlersDir: ${JSON.stringify(fixturesDir)}, cacheDir, threads: 2, preflight: false, loadTimeoutMs: 60_000 });
    theirs.on('laneExited', ({ error }) => console.log('exited', error));
    for (const id of ['echo', 'left_thread']) {
      await theirs.load(id);
      console.log((await theirs.execute(id, {}, 'x')).text().length > 0);
      console.log((await theirs.unload(id)).library);
    }
    console.log(/left_thread/.test(readFileSync('/proc/self/maps', 'utf8')));
    await theirs.close();
    rmSync(cacheDir, { recursive: true });
  `;
    t.deepEqual(await linesOf(t, body), ['true', 'unloaded', 'true', 'resident', 'true']);
  },
);
