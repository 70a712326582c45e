/** What a swap does to requests that are in flight, and what it says about them. */

import { basename } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { DrainReport, HandlerRegistry, LoadedHandler } from '../src/index.js';
import { copiesIn } from './support/files.js';
import { type Gate, gate } from './support/gate.js';
import { outcome, rejection } from './support/outcomes.js';
import { eventually, isSettled, turns } from './support/polling.js';
import { mappedIn, onLinux, UNLOADED } from './support/process.js';
import { openRegistry } from './support/registry.js';
import { captureWarnings } from './support/warnings.js';

/** Longer than any test takes. */
const NEVER_MS = 600_000;

function retiredReport(registry: HandlerRegistry): Promise<DrainReport> {
  return new Promise((resolve) => registry.once('retired', ({ report }) => resolve(report)));
}

interface Busy {
  old: LoadedHandler;
  gates: Gate[];
  requests: Promise<{ text(): string }>[];
  /** Lets all calls return. */
  releaseAll(): void;
}

/** Loads `gate` as `x` and sends it requests, of which as many run as it has lanes. */
async function keepBusy(
  t: ExecutionContext,
  registry: HandlerRegistry,
  { requests: count, lanes }: { requests: number; lanes: number },
): Promise<Busy> {
  const old = await registry.loadFrom('x', fixture('gate'));
  const gates = Array.from({ length: count }, () => gate(t));
  const requests = gates.map(({ request }) => registry.execute('x', {}, request));
  // Whoever awaits them does so later than some of them are rejected.
  for (const request of requests) request.catch(() => undefined);
  await Promise.all(gates.slice(0, lanes).map((gate) => gate.untilEntered()));
  return { old, gates, requests, releaseAll: () => gates.forEach((gate) => void gate.open()) };
}

async function isRetired(version: LoadedHandler): Promise<void> {
  await eventually(
    () => version.state,
    (state) => state === 'retired',
  );
}

// ---- Results ----------------------------------------------------------------------------------------

test('a swap of what is not loaded loads it', async (t) => {
  const { registry } = await openRegistry(t);
  const expected = { swapped: true, oldRequestsPending: 0, draining: false } as const;
  t.deepEqual(await registry.swap('a', fixture('version_a')), expected);
  t.deepEqual(await registry.swapGraceful('b', fixture('version_b')), expected);
  t.is(await outcome(registry.execute('a', {}, 'x')), 'A:x');
  t.is(await outcome(registry.execute('b', {}, 'x')), 'B:x');
  await registry.unload('a');
  t.deepEqual(
    await registry.swapGraceful('a', fixture('version_b')),
    expected,
    'also when unloaded',
  );
});

for (const method of ['swap', 'swapGraceful'] as const) {
  test(`${method} of an idle version: nothing pending, nothing dropped`, async (t) => {
    const { registry, cacheDir } = await openRegistry(t);
    const old = await registry.loadFrom('x', fixture('version_a'));
    await registry.execute('x', {}, 'x');
    const { drained, ...result } = await registry[method]('x', fixture('version_b'));
    t.deepEqual(result, { swapped: true, oldRequestsPending: 0, draining: false });
    const { tookMs, ...report } = (await drained) as DrainReport;
    t.true(tookMs >= 0);
    t.deepEqual(report, {
      endpoint: 'x',
      version: 1,
      finished: 0,
      dropped: 0,
      abandoned: 0,
      library: UNLOADED,
      libraries: report.libraries,
      ...(UNLOADED === 'unverified' ? { reason: report.reason } : {}),
    });
    t.like(report.libraries, [{ name: basename(old.path), fate: UNLOADED }]);
    t.is(old.state, 'retired');
    t.is((await copiesIn(cacheDir)).length, 1);
  });
}

// ---- Graceful ---------------------------------------------------------------------------------------

test('a graceful swap: those in flight finish on the old version, new ones go to the new', async (t) => {
  const { registry } = await openRegistry(t, { threads: 2 });
  const busy = await keepBusy(t, registry, { requests: 5, lanes: 2 });
  const { drained, ...result } = await registry.swapGraceful('x', fixture('version_a'));
  t.deepEqual(result, { swapped: true, oldRequestsPending: 5, draining: true });
  t.like(busy.old, { state: 'draining', draining: true, activeRequests: 5 });
  t.is(registry.drainingCount, 1);
  t.like(registry.stats(), { loadedCount: 1, drainingCount: 1, drainingRequests: 5 });
  const response = await registry.execute('x', {}, 'new');
  t.is(response.text(), 'A:new');
  t.is(response.version, 2);
  t.false(await isSettled(drained as Promise<DrainReport>));
  busy.releaseAll();
  t.deepEqual(await Promise.all(busy.requests.map(outcome)), Array(5).fill('released'));
  t.like(await drained, { version: 1, finished: 5, dropped: 0, abandoned: 0, library: UNLOADED });
  t.like(busy.old, { state: 'retired', draining: false, activeRequests: 0 });
});

test('one request less at a time, and retired with the last', async (t) => {
  const { registry } = await openRegistry(t, { threads: 3 });
  const { old, gates, requests } = await keepBusy(t, registry, { requests: 3, lanes: 3 });
  const { drained } = await registry.swapGraceful('x', fixture('version_a'));
  for (const [index, gate] of gates.entries()) {
    t.is(old.state, 'draining');
    t.is(old.activeRequests, 3 - index);
    gate.open();
    t.is(await outcome(requests[index] as Promise<{ text(): string }>), 'released');
  }
  t.like(await drained, { finished: 3, dropped: 0 });
});

test('errors of the handler count as finished', async (t) => {
  const { registry } = await openRegistry(t);
  const { requests, releaseAll } = await keepBusy(t, registry, { requests: 1, lanes: 1 });
  const failing = rejection(registry.execute('x', {}, 'not a gate'));
  const { drained } = await registry.swapGraceful('x', fixture('version_a'));
  releaseAll();
  t.like(await failing, { code: 'ERR_HANDLER_FAILED', handlerCode: 22, version: 1 });
  await Promise.all(requests);
  t.like(await drained, { finished: 2, dropped: 0 });
});

test('what was answered before a drain does not count in its report', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('version_a');
  for (let index = 0; index < 10; index++) await registry.execute('version_a', {}, 'x');
  t.like(await registry.unload('version_a'), { finished: 0, dropped: 0 });
});

test('a drain timeout drops what is left, and the report says how many', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: NEVER_MS });
  const { old, requests, releaseAll } = await keepBusy(t, registry, { requests: 3, lanes: 1 });
  const { drained, ...result } = await registry.swapGraceful('x', fixture('version_a'), 1);
  t.deepEqual(result, { swapped: true, oldRequestsPending: 3, draining: true });
  const errors = await Promise.all(requests.map(rejection));
  const common = {
    code: 'ERR_HANDLER_DROPPED',
    reason: 'drain-timeout',
    endpoint: 'x',
    version: 1,
  };
  t.like(errors[0], { ...common, phase: 'running' });
  t.like(errors[1], { ...common, phase: 'queued' });
  t.like(errors[2], { ...common, phase: 'queued' });
  t.like(old, { state: 'draining', activeRequests: 1 }, 'the native call goes on');
  t.false(await isSettled(drained as Promise<DrainReport>));
  releaseAll();
  t.like(await drained, { finished: 0, dropped: 3, abandoned: 0, library: UNLOADED });
});

test('a drain timeout of 0 is an immediate swap', async (t) => {
  const { registry } = await openRegistry(t);
  const { requests, releaseAll } = await keepBusy(t, registry, { requests: 1, lanes: 1 });
  const { drained } = await registry.swapGraceful('x', fixture('version_a'), 0);
  t.like(await rejection(requests[0] as Promise<unknown>), {
    code: 'ERR_HANDLER_DROPPED',
    reason: 'swap',
  });
  releaseAll();
  t.like(await drained, { dropped: 1 });
});

// ---- Immediate --------------------------------------------------------------------------------------

onLinux(
  'an immediate swap answers callers at once, and unloads only when the call returns',
  async (t) => {
    const options = { maxInFlight: 32, cancelGraceMs: NEVER_MS };
    const { registry, cacheDir } = await openRegistry(t, options);
    // One runs, 31 wait in the ring and 8 on the main thread.
    const { old, gates, requests, releaseAll } = await keepBusy(t, registry, {
      requests: 40,
      lanes: 1,
    });
    const [oldFile] = await mappedIn(cacheDir);
    const { drained, ...result } = await registry.swap('x', fixture('version_a'));
    t.deepEqual(result, { swapped: true, oldRequestsPending: 40, draining: true });
    const errors = (await Promise.all(requests.map(rejection))) as { phase: string }[];
    for (const error of errors) {
      t.like(error, { code: 'ERR_HANDLER_DROPPED', reason: 'swap', endpoint: 'x', version: 1 });
    }
    t.deepEqual(
      errors.map(({ phase }) => phase),
      ['running', ...Array(39).fill('queued')],
    );
    t.is(await outcome(registry.execute('x', {}, 'new')), 'A:new');

    t.like(old, { state: 'draining', activeRequests: 1 });
    t.like(registry.stats(), { drainingRequests: 1 });
    t.is(await registry.cleanupDrained(), 0);
    t.true((await mappedIn(cacheDir)).includes(oldFile ?? ''), 'the code that runs is mapped');
    t.false(await isSettled(drained as Promise<DrainReport>));

    releaseAll();
    t.like(await drained, { finished: 0, dropped: 40, abandoned: 0, library: 'unloaded' });
    t.false((await mappedIn(cacheDir)).includes(oldFile ?? ''));
    const neverRan = gates.slice(1).every(({ request }) => Atomics.load(request, 0) === 0);
    t.true(neverRan, 'a queued request that was dropped never runs');
  },
);

onLinux(
  'a report that cannot wait any longer says what still runs; a later one how it ended',
  async (t) => {
    const { registry, cacheDir } = await openRegistry(t, { cancelGraceMs: 1 });
    const { releaseAll } = await keepBusy(t, registry, { requests: 1, lanes: 1 });
    const retired = retiredReport(registry);
    const { drained } = await registry.swap('x', fixture('version_a'));
    const early = (await drained) as DrainReport;
    t.like(early, { version: 1, dropped: 1, abandoned: 1, library: 'resident' });
    t.regex(early.reason ?? '', /./);
    t.is(registry.drainingCount, 1);
    t.is((await mappedIn(cacheDir)).length, 2);
    releaseAll();
    t.like(await retired, { version: 1, dropped: 1, abandoned: 0, library: 'unloaded' });
    t.is((await mappedIn(cacheDir)).length, 1);
  },
);

// ---- Unload -----------------------------------------------------------------------------------------

test('unload waits for what is in flight', async (t) => {
  const { registry } = await openRegistry(t);
  const { old, requests, releaseAll } = await keepBusy(t, registry, { requests: 2, lanes: 1 });
  const unloading = registry.unload('x');
  await eventually(
    () => old.state,
    (state) => state === 'draining',
  );
  t.is(await outcome(registry.execute('x', {}, 'x')), 'ERR_HANDLER_NOT_LOADED');
  t.false(await isSettled(unloading));
  releaseAll();
  t.deepEqual(await Promise.all(requests.map(outcome)), ['released', 'released']);
  t.like(await unloading, { version: 1, finished: 2, dropped: 0, library: UNLOADED });
  t.is(registry.drainingCount, 0);
});

test('unload with a drain timeout of 0 drops, and waits for the native call', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: NEVER_MS });
  const { requests, releaseAll } = await keepBusy(t, registry, { requests: 2, lanes: 1 });
  const unloading = registry.unload('x', { drainTimeoutMs: 0 });
  const [running, queued] = await Promise.all(requests.map(rejection));
  t.like(running, { code: 'ERR_HANDLER_DROPPED', reason: 'unload', phase: 'running' });
  t.like(queued, { code: 'ERR_HANDLER_DROPPED', reason: 'unload', phase: 'queued' });
  t.false(await isSettled(unloading));
  releaseAll();
  t.like(await unloading, { finished: 0, dropped: 2, abandoned: 0, library: UNLOADED });
});

test('an abandoned call holds its version as long as it runs', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: NEVER_MS });
  const old = await registry.loadFrom('x', fixture('gate'));
  const held = gate(t);
  const abandoning = new AbortController();
  const request = registry.execute('x', {}, held.request, { signal: abandoning.signal });
  await held.untilEntered();
  const reason = new Error('no longer wanted');
  abandoning.abort(reason);
  t.is(await rejection(request), reason);
  t.is(old.activeRequests, 1, 'answered, and in flight');
  const { drained, ...result } = await registry.swapGraceful('x', fixture('version_a'));
  t.deepEqual(result, { swapped: true, oldRequestsPending: 1, draining: true });
  t.false(await isSettled(drained as Promise<DrainReport>));
  held.open();
  t.like(await drained, { finished: 0, dropped: 0, abandoned: 0, library: UNLOADED });
});

// ---- Limits and sweeping ----------------------------------------------------------------------------

test('no more versions drain at once than maxDrainingVersions', async (t) => {
  const { registry } = await openRegistry(t, { maxDrainingVersions: 2 });
  const guards = [];
  for (let count = 0; count < 2; count++) {
    await registry.loadFrom('x', fixture('version_a'));
    guards.push(registry.get('x')?.acquireRequest());
  }
  const active = await registry.loadFrom('x', fixture('version_b'));
  t.is(registry.drainingCount, 2);
  for (const attempt of [
    () => registry.loadFrom('x', fixture('version_a')),
    () => registry.swap('x', fixture('version_a')),
    () => registry.swapGraceful('x', fixture('version_a')),
  ]) {
    t.like(await rejection(attempt()), { code: 'ERR_HANDLER_DRAINING_LIMIT', endpoint: 'x' });
  }
  t.is(registry.get('x'), active);
  t.is(await outcome(registry.execute('x', {}, 'x')), 'B:x');
  await registry.loadFrom('y', fixture('version_a'));
  await registry.loadFrom('y', fixture('version_b'));

  guards[0]?.release();
  await eventually(
    () => registry.endpoint('x').stats()?.versions.length,
    (versions) => versions === 2,
  );
  t.is((await registry.loadFrom('x', fixture('version_a'))).state, 'active');
  guards[1]?.release();
});

test('cleanupDrained retires what has drained, and counts it', async (t) => {
  const { registry } = await openRegistry(t);
  t.is(await registry.cleanupDrained(), 0);
  const first = await registry.loadFrom('x', fixture('version_a'));
  const firstGuard = first.acquireRequest();
  const second = await registry.loadFrom('x', fixture('version_a'));
  const secondGuard = second.acquireRequest();
  await registry.loadFrom('x', fixture('version_b'));
  t.is(registry.drainingCount, 2);
  t.is(await registry.cleanupDrained(), 0, 'it does not wait for those that drain');

  secondGuard?.release();
  t.is(second.state, 'drained');
  t.is(await registry.cleanupDrained(), 1);
  t.is(second.state, 'retired');
  t.is(registry.drainingCount, 1);
  t.is(first.state, 'draining');

  firstGuard?.release();
  t.is(await registry.cleanupDrained(), 1);
  t.is(registry.drainingCount, 0);
  t.is(await registry.cleanupDrained(), 0);
});

test('cleanupDrained waits also for a version whose drain was reported already', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 1 });
  const old = await registry.loadFrom('x', fixture('version_a'));
  const guard = old.acquireRequest();
  const { drained } = await registry.swap('x', fixture('version_b'));
  t.like(await drained, { library: 'resident' });
  guard?.release();
  t.is(await registry.cleanupDrained(), 1);
  t.is(old.state, 'retired');
});

test('a version that is reported as gone is counted nowhere', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixture('version_a'));
  const { drained } = await registry.swapGraceful('x', fixture('version_b'));
  await drained;
  t.is(registry.drainingCount, 0);
  t.is(registry.stats().endpoints[0]?.versions.length, 1);
});

test('a version retires by itself, without sweeps', async (t) => {
  const { registry } = await openRegistry(t, { cleanupIntervalMs: 0 });
  const { old, requests, releaseAll } = await keepBusy(t, registry, { requests: 2, lanes: 1 });
  await registry.swapGraceful('x', fixture('version_a'));
  releaseAll();
  await Promise.all(requests);
  await isRetired(old);
  await eventually(
    () => registry.drainingCount,
    (count) => count === 0,
  );
  t.pass();
});

test('frequent sweeps disturb nothing', async (t) => {
  const { registry } = await openRegistry(t, { cleanupIntervalMs: 1 });
  for (let round = 0; round < 4; round++) {
    const requests = Array.from({ length: 50 }, (_, index) =>
      registry.isLoaded('x') ? outcome(registry.execute('x', {}, `${index}`)) : 'A:',
    );
    const { drained } = await registry.swapGraceful('x', fixture('version_a'));
    for (const text of await Promise.all(requests)) t.regex(text, /^A:/);
    if (drained !== undefined) t.like(await drained, { dropped: 0, library: UNLOADED });
  }
});

test('`drained` never rejects, also when its listeners throw and nobody waits', async (t) => {
  const { warnings } = captureWarnings(t, ({ name }) => name === 'ListenerWarning');
  const { registry } = await openRegistry(t, { cancelGraceMs: 1 });
  for (const event of ['draining', 'drained', 'retired'] as const) {
    registry.on(event, () => {
      throw new Error(`a listener for ${event}`);
    });
  }
  const reports: Promise<DrainReport>[] = [];
  for (const drainTimeoutMs of [0, 1, 50, 30_000]) {
    const { releaseAll } = await keepBusy(t, registry, { requests: 2, lanes: 1 });
    const { drained } = await registry.swapGraceful('x', fixture('version_b'), drainTimeoutMs);
    if (drained !== undefined) reports.push(drained);
    releaseAll();
  }
  t.is(reports.length, 4);
  for (const report of await Promise.all(reports)) t.is(report.endpoint, 'x');
  const versions = registry.get('x')?.version ?? 0;
  await eventually(
    () => registry.drainingCount,
    (count) => count === 0,
  );
  // Warnings are emitted on a later tick.
  await turns(1);
  // Of every version but the last, in three listeners.
  t.is(warnings.length, 3 * (versions - 1));
  for (const { message } of warnings) {
    t.regex(message, /^a listener for '(draining|drained|retired)' threw: .*a listener for \1/);
  }
});
