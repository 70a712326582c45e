import { createHash } from 'node:crypto';
import { readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import {
  type EndpointOptions,
  type ExecuteOptions,
  type InvalidOptionError,
  libraryFileName,
  type RegistryClosedError,
  type UnloadOptions,
} from '../src/index.js';
import { copiesIn, copyOf, scratch } from './support/files.js';
import { gate } from './support/gate.js';
import { outcome, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { UNLOADED } from './support/process.js';
import { openRegistry } from './support/registry.js';

async function sha256Of(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

// ---- Loading ----------------------------------------------------------------------------------------

test('a handler is loaded by its id, and describes itself', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  const before = new Date();
  const handler = await registry.load('counter');
  t.is(registry.get('counter'), handler);
  t.like(handler, {
    id: 'counter',
    version: 1,
    path: fixture('counter'),
    sha256: await sha256Of(fixture('counter')),
    info: { name: 'counter', version: '1.2.3', description: 'Counts its calls' },
    state: 'active',
    draining: false,
    activeRequests: 0,
  });
  t.true(handler.loadedAt >= before && handler.loadedAt <= new Date());
  t.is((await handler.execute({}, '')).text(), '1');
});

test('what a library does not say of itself is null', async (t) => {
  const { registry } = await openRegistry(t);
  const { info } = await registry.load('echo');
  t.deepEqual(info, { name: null, version: null, description: null });
  const tagged = await registry.load('version_a');
  t.deepEqual(tagged.info, { name: 'tagged', version: 'A', description: null });
});

test('get, isLoaded, list and count follow what is loaded', async (t) => {
  const { registry } = await openRegistry(t);
  t.deepEqual([registry.count, registry.list()], [0, []]);
  t.is(registry.get('echo'), undefined);
  t.false(registry.isLoaded('echo'));
  const echo = await registry.load('echo');
  const counter = await registry.loadFrom('other', fixture('counter'));
  t.is(counter.id, 'other');
  t.deepEqual(registry.list(), [echo, counter]);
  t.is(registry.count, 2);
  t.true(registry.isLoaded('other'));
  t.false(registry.isLoaded('counter'), 'the id is the one it was loaded as');
  await registry.unload('echo');
  t.deepEqual(registry.list(), [counter]);
  t.is(registry.count, 1);
  t.false(registry.isLoaded('echo'));
  t.is(echo.state, 'retired');
});

test('a relative path is made absolute', async (t) => {
  const { registry } = await openRegistry(t);
  const { path } = await registry.loadFrom('echo', relative(process.cwd(), fixture('echo')));
  t.is(path, fixture('echo'));
});

test('a load of a loaded id is a graceful swap', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixture('gate'));
  const held = gate(t);
  const running = registry.execute('x', {}, held.request);
  await held.untilEntered();
  const second = await registry.loadFrom('x', fixture('version_b'));
  t.is(second.version, 2);
  t.is(await outcome(registry.execute('x', {}, 'x')), 'B:x');
  t.is(registry.drainingCount, 1);
  held.open();
  t.is(await outcome(running), 'released');
  await eventually(
    () => registry.drainingCount,
    (count) => count === 0,
  );
});

test('versions count on, also over an unload', async (t) => {
  const { registry } = await openRegistry(t);
  t.is((await registry.load('echo')).version, 1);
  t.is((await registry.load('echo')).version, 2);
  await registry.unload('echo');
  t.is((await registry.load('echo')).version, 3);
  t.is((await registry.load('counter')).version, 1, 'for each endpoint by itself');
  t.is((await registry.execute('echo', {}, 'x')).version, 3);
});

test('each version has statics of its own, shared by its lanes', async (t) => {
  const { registry } = await openRegistry(t, { threads: 2 });
  await registry.load('counter');
  const counts = await Promise.all(
    Array.from({ length: 20 }, () => outcome(registry.execute('counter', {}, ''))),
  );
  t.deepEqual(
    counts.map(Number).sort((a, b) => a - b),
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
  await registry.loadFrom('second', fixture('counter'));
  t.is(await outcome(registry.execute('second', {}, '')), '1');
  await registry.load('counter');
  t.is(await outcome(registry.execute('counter', {}, '')), '1');
});

test("a library's own symbols win over those of the node binary", async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('own_symbols');
  t.is(await outcome(registry.execute('own_symbols', {}, '')), 'handler-own');
});

test('a library with a thread of its own is unloaded once that has been joined', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('own_thread');
  await eventually(
    () => outcome(registry.execute('own_thread', {}, '')),
    (ticks) => Number(ticks) > 0,
  );
  t.like(await registry.unload('own_thread'), { library: UNLOADED, dropped: 0 });
});

test.serial('handler_init and handler_shutdown run once a library, not once a lane', async (t) => {
  const log = join(await scratch(t), 'log');
  const lines = async () => (await readFile(log, 'utf8')).split('\n').slice(0, -1);
  // The environment of the process: its C code reads it.
  process.env['CHANGEOVER_TEST_LOG'] = log;
  t.teardown(() => {
    delete process.env['CHANGEOVER_TEST_LOG'];
  });
  const { registry } = await openRegistry(t, { threads: 3 });
  await registry.load('init_shutdown');
  t.deepEqual(await lines(), ['init']);
  const inits = await Promise.all(
    Array.from({ length: 30 }, () => outcome(registry.execute('init_shutdown', {}, ''))),
  );
  t.deepEqual(new Set(inits), new Set(['1']));
  const { drained } = await registry.swapGraceful('init_shutdown', fixture('init_shutdown'));
  await drained;
  t.deepEqual(await lines(), ['init', 'init', 'shutdown']);
  await registry.unload('init_shutdown');
  t.deepEqual(await lines(), ['init', 'init', 'shutdown', 'shutdown']);
});

test('a library that stays mapped is reported as resident, with the reason', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('pinned');
  t.is(await outcome(registry.execute('pinned', {}, 'x')), 'x');
  const report = await registry.unload('pinned');
  const library = process.platform === 'linux' ? 'resident' : UNLOADED;
  t.is(report.library, library);
  t.regex(report.reason ?? '', /./);
  t.like(report.libraries, [{ name: basename(fixture('pinned')), fate: library }]);
  t.is(registry.drainingCount, 0);
});

test('C++ that keeps its exceptions to itself', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('cpp');
  t.is(await outcome(registry.execute('cpp', {}, 'abc')), 'cba');
  t.like(await rejection(registry.execute('cpp', {}, 'throw')), {
    code: 'ERR_HANDLER_FAILED',
    handlerCode: 5,
    handlerMessage: 'thrown inside the handler',
    endpoint: 'cpp',
    version: 1,
  });
});

// ---- Files that change ------------------------------------------------------------------------------

test('a file that was written over at the same path runs its new code', async (t) => {
  const { registry } = await openRegistry(t);
  const path = join(await scratch(t), libraryFileName('x'));
  const load = async (id: string) => (await registry.loadFrom('x', await copyOf(id, path))).version;
  await load('version_a');
  t.is(await outcome(registry.execute('x', {}, '1')), 'A:1');
  // Held, so that the old library is still mapped while the new one is loaded.
  const old = registry.get('x');
  const guard = old?.acquireRequest();
  await load('version_b');
  t.is(await outcome(registry.execute('x', {}, '2')), 'B:2');
  await load('version_a');
  t.is(await outcome(registry.execute('x', {}, '3')), 'A:3');
  t.is(old?.state, 'draining');
  t.is(old?.sha256, registry.get('x')?.sha256);
  guard?.release();
});

test('so does one that was renamed over', async (t) => {
  const { registry } = await openRegistry(t);
  const directory = await scratch(t);
  const path = join(directory, libraryFileName('x'));
  await registry.loadFrom('x', await copyOf('version_a', path));
  const guard = registry.get('x')?.acquireRequest();
  await rename(await copyOf('version_b', join(directory, 'next')), path);
  const { sha256 } = await registry.loadFrom('x', path);
  t.is(await outcome(registry.execute('x', {}, 'y')), 'B:y');
  t.is(sha256, await sha256Of(fixture('version_b')));
  guard?.release();
});

test('what happens to the file after it was loaded does not matter', async (t) => {
  const { registry } = await openRegistry(t, { threads: 2 });
  const path = join(await scratch(t), libraryFileName('x'));
  const { sha256 } = await registry.loadFrom('x', await copyOf('version_a', path));
  // In place: the inode is the same. A process that had mapped it would die of SIGBUS.
  await writeFile(path, 'garbage');
  const texts = await Promise.all(
    Array.from({ length: 50 }, (_, index) => outcome(registry.execute('x', {}, `${index}`))),
  );
  t.deepEqual(
    texts,
    Array.from({ length: 50 }, (_, index) => `A:${index}`),
  );
  t.is(sha256, await sha256Of(fixture('version_a')));
  t.like(await registry.unload('x'), { library: UNLOADED });
});

test('the private copy is there while the version is, and is what was hashed', async (t) => {
  const { registry, cacheDir } = await openRegistry(t);
  const { sha256 } = await registry.load('echo');
  const [copy, ...more] = await copiesIn(cacheDir);
  t.deepEqual(more, []);
  const [store] = await readdir(cacheDir);
  t.is(await sha256Of(join(cacheDir, store ?? '', copy ?? '')), sha256);
  await registry.unload('echo');
  t.deepEqual(await copiesIn(cacheDir), []);
});

// ---- Order ------------------------------------------------------------------------------------------

test('operations on one id run in the order in which they were called', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  const steps: string[] = [];
  registry.on('loading', ({ version }) => steps.push(`loading ${version}`));
  registry.on('loaded', ({ version }) => steps.push(`loaded ${version}`));
  registry.on('loadFailed', ({ version }) => steps.push(`failed ${version}`));
  const outcomes = await Promise.allSettled([
    registry.unload('x'),
    registry.loadFrom('x', fixture('version_a')),
    registry.swap('x', fixture('wrong_abi')),
    registry.swapGraceful('x', fixture('version_b')),
    registry.unload('x'),
    registry.unload('x'),
    registry.loadFrom('x', fixture('counter')),
  ]);
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['rejected', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'rejected', 'fulfilled'],
  );
  t.deepEqual(steps, [
    'loading 1',
    'loaded 1',
    'loading 2',
    'failed 2',
    'loading 3',
    'loaded 3',
    'loading 4',
    'loaded 4',
  ]);
  t.is(await outcome(registry.execute('x', {}, '')), '1');
});

test('different ids do not wait for each other', async (t) => {
  const { registry } = await openRegistry(t);
  const steps: string[] = [];
  registry.on('loading', ({ endpoint }) => steps.push(`loading ${endpoint}`));
  registry.on('loaded', () => steps.push('loaded one'));
  await Promise.all([registry.load('echo'), registry.load('counter')]);
  t.deepEqual(steps, ['loading echo', 'loading counter', 'loaded one', 'loaded one']);
});

test('a drain holds up no later operation', async (t) => {
  const { registry } = await openRegistry(t);
  const { version } = await registry.load('echo');
  const guard = registry.get('echo')?.acquireRequest();
  const unloading = registry.unload('echo');
  t.is((await registry.load('echo')).version, version + 1);
  t.is(await outcome(registry.execute('echo', {}, 'new')), 'new');
  guard?.release();
  t.like(await unloading, { version, library: UNLOADED });
});

// ---- Options ----------------------------------------------------------------------------------------

test('options given for an endpoint stay with it, and with it alone', async (t) => {
  const { registry } = await openRegistry(t, { maxPayloadBytes: 100 });
  const threads = (id: string) => registry.endpoint(id).stats()?.versions[0]?.lanes.serving;
  const takes = async (id: string, length: number) =>
    outcome(registry.execute(id, {}, 'x'.repeat(length)));
  await registry.load('echo', { threads: 2, maxPayloadBytes: 10 });
  t.is(threads('echo'), 2);
  t.is(await takes('echo', 11), 'ERR_HANDLER_PAYLOAD_TOO_LARGE');
  await registry.load('echo', { maxPayloadBytes: 20 });
  t.is(threads('echo'), 2, 'what is not given stays');
  t.is(await takes('echo', 20), 'x'.repeat(20));
  await registry.unload('echo');
  await registry.load('echo');
  t.is(threads('echo'), 2, 'over an unload');
  t.is(await takes('echo', 21), 'ERR_HANDLER_PAYLOAD_TOO_LARGE');
  await registry.swapGraceful('echo', fixture('echo'), undefined, { maxPayloadBytes: 30 });
  t.is(await takes('echo', 30), 'x'.repeat(30));
  await registry.swap('echo', fixture('echo'), { threads: 1 });
  t.is(threads('echo'), 1);
  await registry.loadFrom('other', fixture('echo'));
  t.is(threads('other'), 1);
  t.is(await takes('other', 100), 'x'.repeat(100));
});

test('options of a load that fails are forgotten', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');
  await rejection(registry.loadFrom('echo', fixture('wrong_abi'), { threads: 2 }));
  await registry.load('echo');
  t.is(registry.endpoint('echo').stats()?.versions[0]?.lanes.serving, 1);
});

test('a wrong option is refused before anything is touched', async (t) => {
  const { registry } = await openRegistry(t);
  const handler = await registry.load('echo');
  const wrong = { threads: 0 };
  const unknown = { cacheDir: '/tmp' } as EndpointOptions;
  for (const attempt of [
    () => registry.load('echo', wrong),
    () => registry.loadFrom('echo', fixture('echo'), unknown),
    () => registry.swap('echo', fixture('echo'), wrong),
    () => registry.swapGraceful('echo', fixture('echo'), 0, wrong),
    () => registry.swapGraceful('echo', fixture('echo'), -1),
    () => registry.unload('echo', { drainTimeoutMs: Number.NaN }),
    () => registry.unload('echo', { drainTimeout: 5 } as UnloadOptions),
    () => registry.unload('echo', 5 as UnloadOptions),
    () => registry.execute('echo', {}, 'x', AbortSignal.abort() as ExecuteOptions),
    () => registry.execute('echo', {}, 'x', { timeoutMs: 5 } as ExecuteOptions),
    () => registry.executeWithTimeout('echo', {}, 'x', 5000, 7 as ExecuteOptions),
    () => registry.endpoint('echo').execute({}, 'x', null as unknown as ExecuteOptions),
    () => registry.swap('echo', ''),
  ]) {
    const error = (await rejection(attempt())) as InvalidOptionError;
    t.is(error.code, 'ERR_HANDLER_INVALID_OPTION');
    t.regex(error.option, /^(threads|cacheDir|drainTimeout(Ms)?|path|options|timeoutMs)$/);
  }
  t.is(registry.get('echo'), handler);
  t.is(await outcome(handler.execute({}, 'x')), 'x');
});

// ---- The handle -------------------------------------------------------------------------------------

test('a handle follows its endpoint', async (t) => {
  const { registry } = await openRegistry(t);
  const handle = registry.endpoint('version_a');
  t.is(handle.id, 'version_a');
  t.is(handle.get(), undefined);
  t.is(handle.stats(), undefined);
  t.false(handle.isLoaded());
  t.is(await outcome(handle.execute({}, 'x')), 'ERR_HANDLER_NOT_LOADED');
  const first = await handle.load();
  t.is(handle.get(), first);
  t.is(registry.get('version_a'), first);
  t.is(await outcome(handle.execute({}, 'x')), 'A:x');
  t.like(await handle.swapGraceful(fixture('version_b')), { swapped: true });
  t.is(await outcome(handle.executeWithTimeout({}, 'x', 10_000)), 'B:x');
  t.like(await handle.swap(fixture('version_a')), { swapped: true });
  t.is(await outcome(handle.execute({}, 'x')), 'A:x');
  t.is((await handle.loadFrom(fixture('counter'))).version, 4);
  t.like(handle.stats(), { id: 'version_a', activeVersion: 4 });
  t.like(await handle.unload(), { endpoint: 'version_a', version: 4 });
  t.false(handle.isLoaded());
});

// ---- Refusals ---------------------------------------------------------------------------------------

const NO_IDS = ['', '/', '..', '../echo', 'a/b', 'a.b', 'x'.repeat(65), 'žluť', 'a b', 'a\n', '\0'];

test('an id that is not one is refused everywhere', async (t) => {
  const { registry } = await openRegistry(t);
  const path = fixture('echo');
  for (const id of [...NO_IDS, undefined, null, 5, {}] as string[]) {
    for (const attempt of [
      () => registry.load(id),
      () => registry.loadFrom(id, path),
      () => registry.swap(id, path),
      () => registry.swapGraceful(id, path),
      () => registry.unload(id),
      () => registry.execute(id, {}, 'x'),
      () => registry.executeWithTimeout(id, {}, 'x', 10),
    ]) {
      t.like(await rejection(attempt()), { code: 'ERR_HANDLER_INVALID_ID' });
    }
    t.throws(() => registry.endpoint(id), { code: 'ERR_HANDLER_INVALID_ID' });
    t.is(registry.get(id), undefined);
    t.false(registry.isLoaded(id));
  }
  t.deepEqual(registry.stats().endpoints, []);
  t.is((await registry.loadFrom('x'.repeat(64), path)).id.length, 64);
});

test('what is not loaded is said to be not loaded', async (t) => {
  const { registry } = await openRegistry(t);
  const notLoaded = { code: 'ERR_HANDLER_NOT_LOADED', endpoint: 'echo' };
  t.like(await rejection(registry.execute('echo', {}, 'x')), notLoaded);
  t.like(await rejection(registry.executeWithTimeout('echo', {}, 'x', 10)), notLoaded);
  t.like(await rejection(registry.unload('echo')), notLoaded);
  await registry.load('echo');
  await registry.unload('echo');
  t.like(await rejection(registry.execute('echo', {}, 'x')), notLoaded);
  t.like(await rejection(registry.unload('echo')), notLoaded);
});

test('a closed registry refuses everything but looking and closing', async (t) => {
  const { registry } = await openRegistry(t);
  const handler = await registry.load('echo');
  const path = fixture('echo');
  const closing = registry.close();
  for (const when of ['closing', 'closed']) {
    for (const attempt of [
      () => registry.load('echo'),
      () => registry.loadFrom('echo', path),
      () => registry.swap('echo', path),
      () => registry.swapGraceful('echo', path),
      () => registry.unload('echo'),
      () => registry.execute('echo', {}, 'x'),
      () => registry.executeWithTimeout('echo', {}, 'x', 10),
    ]) {
      const error = (await rejection(attempt())) as RegistryClosedError;
      t.is(error.code, 'ERR_HANDLER_CLOSED', when);
    }
    await closing;
  }
  t.is(await outcome(handler.execute({}, 'x')), 'ERR_HANDLER_NOT_LOADED');
  t.is(handler.acquireRequest(), null);
  t.is(handler.state, 'retired');
  t.deepEqual([registry.count, registry.list(), registry.drainingCount], [0, [], 0]);
  t.is(await registry.cleanupDrained(), 0);
  t.is(await registry.close(), await closing);
  t.like(await closing, { dropped: 0, leftBehind: [] });
});

test('a registry can be disposed of', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');
  await registry[Symbol.asyncDispose]();
  t.is(await outcome(registry.execute('echo', {}, 'x')), 'ERR_HANDLER_CLOSED');
});
