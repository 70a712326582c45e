/** Closing a registry: everything settles, by the deadline, and the report tells the truth. */
import { readdir } from 'node:fs/promises';
import test, { type ExecutionContext } from 'ava';
import { fixture, fixturesDir } from '../fixtures/paths.js';
import { deferred } from '../src/deferred.js';
import { type CloseOptions, HandlerRegistry } from '../src/index.js';
import { LibraryStore } from '../src/library/store.js';
import { scratch } from './support/files.js';
import { type Gate, gateMaker } from './support/gate.js';
import { holdInit } from './support/held-init.js';
import { failure } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { activeOf, openRegistry } from './support/registry.js';

const closed = { code: 'ERR_HANDLER_CLOSED' };

test('close waits for what is in flight', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  const gates = gateMaker(t);
  await registry.load('gate');
  const handler = activeOf(registry, 'gate');
  const [first, second] = gates(2) as [Gate, Gate];
  const answers = [first, second].map(({ request }) => registry.execute('gate', {}, request));
  await first.untilEntered();

  const closing = registry.close({ timeoutMs: 20_000 });
  t.is(handler.state, 'draining');
  t.deepEqual(await failure(registry.execute('gate', {}, new Uint8Array(8))), closed);
  first.open();
  second.open();

  t.deepEqual(
    (await Promise.all(answers)).map((answer) => answer.text()),
    ['released', 'released'],
  );
  const { dropped, leftBehind } = await closing;
  t.deepEqual({ dropped, leftBehind }, { dropped: 0, leftBehind: [] });
  t.is(handler.state, 'retired');
  t.is(registry.count, 0);
  t.is(registry.drainingCount, 0);
});

test('close drops what has not finished in time, and says what it leaves behind', async (t) => {
  const { registry } = await openRegistry(t);
  const gates = gateMaker(t);
  await registry.load('gate');
  const handler = activeOf(registry, 'gate');
  const [running, queued] = gates(2) as [Gate, Gate];
  const outcomes = [running, queued].map(({ request }) =>
    failure(registry.execute('gate', {}, request), 'phase'),
  );
  await running.untilEntered();

  // It resolves, although the call runs until this test ends it.
  const report = await registry.close({ timeoutMs: 400 });

  t.deepEqual(await Promise.all(outcomes), [
    { code: 'ERR_HANDLER_DROPPED', phase: 'running' },
    { code: 'ERR_HANDLER_DROPPED', phase: 'queued' },
  ]);
  t.is(report.dropped, 2);
  t.deepEqual(
    report.leftBehind.map(({ endpoint, version, path }) => ({ endpoint, version, path })),
    [{ endpoint: 'gate', version: 1, path: fixture('gate') }],
  );
  t.is(handler.state, 'draining');
  t.is(handler.activeRequests, 1);
  running.open();
  await eventually(
    () => handler.state,
    (state) => state === 'retired',
    'the version retires after all',
  );
  t.false(queued.entered);
});

/** Until the test ends, a store waits before it closes. It is every store's, so that such tests are serial. */
function beforeStoreCloses(t: ExecutionContext, wait: () => Promise<void>): void {
  const { close } = LibraryStore.prototype;
  t.teardown(() => {
    LibraryStore.prototype.close = close;
  });
  LibraryStore.prototype.close = async function (this: LibraryStore) {
    await wait();
    await close.call(this);
  };
}

test.serial(
  'what retires while the directory is removed was left behind all the same',
  async (t) => {
    const { registry } = await openRegistry(t);
    const [gate] = gateMaker(t)(1) as [Gate];
    await registry.load('gate');
    const handler = activeOf(registry, 'gate');
    const outcome = failure(registry.execute('gate', {}, gate.request));
    await gate.untilEntered();
    beforeStoreCloses(t, async () => {
      gate.open();
      await eventually(
        () => handler.state,
        (state) => state === 'retired',
        'it retires',
      );
    });

    const { leftBehind } = await registry.close({ timeoutMs: 100 });

    t.is(leftBehind.length, 1);
    t.regex(leftBehind[0]?.reason ?? '', /1 native call is still running/);
    t.deepEqual(await outcome, { code: 'ERR_HANDLER_DROPPED' });
  },
);

test.serial('a file system that hangs does not hold up the end', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');
  const { promise: gate, resolve: open } = deferred<void>();
  t.teardown(open);
  beforeStoreCloses(t, () => gate);

  t.deepEqual((await registry.close({ timeoutMs: 100 })).dropped, 0);
});

test('a cooperative call is cancelled, and its version retires', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('cooperative');
  const handler = activeOf(registry, 'cooperative');
  const outcome = failure(registry.execute('cooperative', {}, '600000'), 'phase');
  await eventually(
    () => registry.stats().endpoints[0]?.versions[0]?.running,
    (running) => running === 1,
    'the call runs',
  );

  const report = await registry.close({ timeoutMs: 2000 });

  t.deepEqual(await outcome, { code: 'ERR_HANDLER_DROPPED', phase: 'running' });
  t.is(report.dropped, 1);
  // Whether that is in time for the report, a busy machine decides.
  await eventually(
    () => handler.state,
    (state) => state === 'retired',
    'the call returns long before it would end by itself',
  );
});

test('closing twice gives the same report', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');

  const [first, second] = await Promise.all([registry.close(), registry.close({ timeoutMs: 1 })]);

  t.is(first, second);
  t.is(await registry.close(), first);
});

test('closing what was never used', async (t) => {
  const { dropped, leftBehind } = await new HandlerRegistry().close();

  t.deepEqual({ dropped, leftBehind }, { dropped: 0, leftBehind: [] });
});

test('a closed registry refuses everything', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');
  const handler = activeOf(registry, 'echo');
  await registry.close();
  const path = fixture('echo');

  t.deepEqual(await failure(registry.execute('echo', {}, 'x')), closed);
  t.deepEqual(await failure(registry.executeWithTimeout('echo', {}, 'x', 100)), closed);
  t.deepEqual(await failure(registry.load('echo')), closed);
  t.deepEqual(await failure(registry.loadFrom('echo', path)), closed);
  t.deepEqual(await failure(registry.swap('echo', path)), closed);
  t.deepEqual(await failure(registry.swapGraceful('echo', path)), closed);
  t.deepEqual(await failure(registry.unload('echo')), closed);
  t.is(registry.get('echo'), undefined);
  t.false(registry.isLoaded('echo'));
  t.deepEqual(registry.list(), []);
  t.is(handler.acquireRequest(), null);
  t.deepEqual(await failure(handler.execute({}, 'x')), { code: 'ERR_HANDLER_NOT_LOADED' });
  t.is(await registry.cleanupDrained(), 0);
});

test('a load that is going on is given up, and undone when its lanes come back', async (t) => {
  const { registry } = await openRegistry(t, { preflight: false });
  const loading = registry.load('slow_init').then(
    () => 'loaded',
    (error: { code?: string }) => error.code,
  );
  await new Promise<void>((resolve) => void registry.once('loading', () => resolve()));

  const { leftBehind } = await registry.close({ timeoutMs: 60_000 });

  t.is(await loading, 'ERR_HANDLER_CLOSED');
  t.deepEqual(leftBehind, []);
});

// Serial: the environment is the whole process's.
test.serial('a load that outlives the closing is reported', async (t) => {
  const { registry } = await openRegistry(t, { preflight: false });
  const init = await holdInit(t);
  const loading = failure(registry.load('slow_init'));
  await init.untilEntered();

  const report = await registry.close({ timeoutMs: 300 });

  t.is(report.leftBehind.length, 1);
  t.is(report.leftBehind[0]?.endpoint, 'slow_init');
  t.deepEqual(await loading, closed);
  await init.release();
});

test.serial(
  'a load that takes too long: typed error, the active version untouched, nothing left',
  async (t) => {
    const cacheDir = await scratch(t);
    const { registry } = await openRegistry(t, { cacheDir, cancelGraceMs: 10 });
    const init = await holdInit(t);
    await registry.loadFrom('it', fixture('echo'));
    const before = activeOf(registry, 'it');
    const copies = async () =>
      (await readdir(cacheDir, { recursive: true })).filter((name) => name.includes('it-'));
    const had = await copies();

    const outcome = await failure(
      registry.swap('it', fixture('slow_init'), { loadTimeoutMs: 300, preflight: false }),
      'timeoutMs',
      'path',
      'version',
    );

    t.deepEqual(outcome, {
      code: 'ERR_HANDLER_LOAD_TIMEOUT',
      timeoutMs: 300,
      path: fixture('slow_init'),
      version: 2,
    });
    t.is(registry.get('it'), before);
    t.is((await registry.execute('it', {}, 'still here')).text(), 'still here');
    await init.release();
    await eventually(copies, (names) => names.length === had.length, 'the copy is removed');
    t.deepEqual(await copies(), had);
    // The options of a failed load are not kept.
    await registry.loadFrom('it', fixture('slow_init'));
    t.is(activeOf(registry, 'it').version, 3);
  },
);

test('await using closes', async (t) => {
  const cacheDir = await scratch(t);
  let handler: { state: string } | undefined;
  {
    await using registry = new HandlerRegistry({
      handlersDir: fixturesDir,
      cacheDir,
      threads: 1,
      loadTimeoutMs: 60_000,
      closeTimeoutMs: 60_000,
    });
    handler = await registry.load('echo');
  }
  t.is(handler.state, 'retired');
});

test('closing at once counts what it drops', async (t) => {
  const { registry } = await openRegistry(t, { threads: 1, cancelGraceMs: 10 });
  await registry.load('gate');
  const gates = gateMaker(t)(3);
  const outcomes = gates.map((gate) => failure(registry.execute('gate', {}, gate.request)));
  await gates[0]?.untilEntered();

  const closing = registry.close({ timeoutMs: 0 });
  for (const gate of gates) gate.open();

  t.is((await closing).dropped, 3);
  for (const outcome of outcomes) t.like(await outcome, { code: 'ERR_HANDLER_DROPPED' });
});

test('a bad option rejects, and the registry stays open', async (t) => {
  const { registry } = await openRegistry(t, {});
  const wrong = [{ timeoutMs: -1 }, { timeout: 5 }, 5, null] as CloseOptions[];
  const refused = { code: 'ERR_HANDLER_INVALID_OPTION' };
  for (const options of wrong) t.like(await failure(registry.close(options)), refused);
  await t.notThrowsAsync(registry.load('echo'));
  await registry.close();
  for (const options of wrong) t.like(await failure(registry.close(options)), refused);
});
