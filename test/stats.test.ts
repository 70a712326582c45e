import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { HandlerRegistry, LatencySummary, VersionStats } from '../src/index.js';
import { passTime } from './support/clock.js';
import { gate } from './support/gate.js';
import { NO_TOTALS, outcome, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { openRegistry } from './support/registry.js';

/** The statistics of an endpoint's active version. */
function statsOf(registry: HandlerRegistry, id: string): VersionStats {
  const [version] = registry.endpoint(id).stats()?.versions ?? [];
  if (version === undefined) throw new Error(`no version of ${id}`);
  return version;
}

const NO_LATENCY: LatencySummary = {
  count: 0,
  minMs: 0,
  meanMs: 0,
  p50Ms: 0,
  p90Ms: 0,
  p99Ms: 0,
  p999Ms: 0,
  maxMs: 0,
};

test('before anything is loaded', async (t) => {
  const { registry } = await openRegistry(t);
  t.deepEqual(registry.stats(), {
    loadedCount: 0,
    drainingCount: 0,
    hangingLoads: 0,
    activeRequests: 0,
    drainingRequests: 0,
    endpoints: [],
  });
});

test('of a version that has done nothing yet', async (t) => {
  const { registry } = await openRegistry(t, { threads: 2 });
  await registry.load('echo');
  const none = { window: NO_LATENCY, total: NO_LATENCY };
  t.deepEqual(registry.stats(), {
    loadedCount: 1,
    drainingCount: 0,
    hangingLoads: 0,
    activeRequests: 0,
    drainingRequests: 0,
    endpoints: [
      {
        id: 'echo',
        activeVersion: 1,
        standbyLanes: 0,
        versions: [
          {
            version: 1,
            state: 'active',
            path: fixture('echo'),
            isolation: 'thread',
            activeRequests: 0,
            lanes: { starting: 0, serving: 2, stuck: 0 },
            processIds: [],
            refusing: null,
            queued: 0,
            running: 0,
            abandoned: 0,
            totals: NO_TOTALS,
            latency: { queue: none, run: none },
          },
        ],
      },
    ],
  });
  t.deepEqual(registry.endpoint('echo').stats(), registry.stats().endpoints[0]);
});

test('a snapshot stays what it was, and is plain data', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');
  const before = registry.stats();
  const copy = structuredClone(before);
  await registry.execute('echo', {}, 'x');
  t.deepEqual(before, copy);
  t.is(registry.stats().endpoints[0]?.versions[0]?.totals.succeeded, 1);
  t.deepEqual(JSON.parse(JSON.stringify(before)), copy);
});

test('the sums are those of the versions', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32 });
  await registry.loadFrom('x', fixture('gate'));
  // One runs, 31 wait in the ring, 3 on the main thread.
  const gates = Array.from({ length: 35 }, () => gate(t));
  const requests = gates.map(({ request }) => outcome(registry.execute('x', {}, request)));
  await gates[0]?.untilEntered();
  t.like(registry.stats().endpoints[0]?.versions[0], {
    activeRequests: 35,
    running: 1,
    queued: 34,
    abandoned: 0,
  });
  await registry.loadFrom('x', fixture('gate'));
  const more = gate(t);
  requests.push(outcome(registry.execute('x', {}, more.request)));
  await more.untilEntered();
  await registry.loadFrom('x', fixture('version_a'));
  await registry.loadFrom('y', fixture('echo'));
  const guard = registry.get('y')?.acquireRequest();

  const stats = registry.stats();
  t.like(stats, { loadedCount: 2, drainingCount: 2, activeRequests: 1, drainingRequests: 36 });
  t.deepEqual(
    stats.endpoints.map(({ id, activeVersion }) => [id, activeVersion]),
    [
      ['x', 3],
      ['y', 1],
    ],
  );
  const versions = stats.endpoints[0]?.versions ?? [];
  t.deepEqual(
    versions.map(({ version, state, activeRequests }) => [version, state, activeRequests]),
    [
      [3, 'active', 0],
      [2, 'draining', 1],
      [1, 'draining', 35],
    ],
    'the active one first, then the newest',
  );
  guard?.release();
  for (const gate of [...gates, more]) gate.open();
  t.deepEqual(await Promise.all(requests), Array(36).fill('released'));
  await eventually(
    () => registry.stats().endpoints[0]?.versions.length,
    (count) => count === 1,
  );
  t.like(registry.stats(), { drainingCount: 0, activeRequests: 0, drainingRequests: 0 });
});

test('an endpoint that was unloaded is listed without a version', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');
  await registry.unload('echo');
  t.deepEqual(registry.stats().endpoints, [
    { id: 'echo', activeVersion: null, standbyLanes: 0, versions: [] },
  ]);
  t.is(registry.stats().loadedCount, 0);
});

// Serial: the clock is the whole thread's.
test.serial('every accepted request ends in exactly one total', async (t) => {
  const { registry } = await openRegistry(t, {
    maxInFlight: 32,
    maxQueue: 2,
    cancelGraceMs: 60_000,
  });
  const version = await registry.loadFrom('x', fixture('gate'));
  const stats = (): VersionStats => registry.stats().endpoints[0]?.versions.at(-1) as VersionStats;
  const totals = () => stats().totals;
  const expected = { ...NO_TOTALS };

  const [opened, late, aborted, dropped] = [gate(t), gate(t), gate(t), gate(t)];
  opened.open();
  t.is(await outcome(registry.execute('x', {}, opened.request)), 'released');
  expected.succeeded += 1;
  t.deepEqual(totals(), expected);

  t.is(await outcome(registry.execute('x', {}, 'not a gate')), 'ERR_HANDLER_FAILED');
  expected.failed += 1;
  t.deepEqual(totals(), expected);

  // The first runs until it is let go, its deadline passes meanwhile.
  const running = outcome(registry.executeWithTimeout('x', {}, late.request, 600_000));
  await late.untilEntered();
  const queue = () => outcome(registry.executeWithTimeout('x', {}, gate(t).request, 1));
  t.is(await queue(), 'ERR_HANDLER_TIMEOUT');
  expected.timedOutQueued += 1;
  t.deepEqual(totals(), expected);
  const queued = queue();
  passTime(t, 600_000);
  t.is(await queued, 'ERR_HANDLER_TIMEOUT');
  expected.timedOutQueued += 1;
  t.is(await running, 'ERR_HANDLER_TIMEOUT');
  expected.timedOutRunning += 1;
  t.deepEqual(totals(), expected);
  t.like(stats(), { running: 1, abandoned: 1, queued: 0, activeRequests: 1 });
  late.open();
  await eventually(
    () => version.activeRequests,
    (active) => active === 0,
  );
  await eventually(
    () => stats().abandoned,
    (abandoned) => abandoned === 0,
  );

  const controller = new AbortController();
  const running2 = registry.execute('x', {}, aborted.request, { signal: controller.signal });
  const queued2 = registry.execute('x', {}, gate(t).request, { signal: controller.signal });
  const reasons = Promise.all([rejection(running2), rejection(queued2)]);
  await aborted.untilEntered();
  controller.abort('enough');
  t.deepEqual(await reasons, ['enough', 'enough']);
  expected.aborted += 2;
  t.deepEqual(totals(), expected);
  const never = registry.execute('x', {}, 'x', { signal: AbortSignal.abort('before') });
  t.is(await rejection(never), 'before');
  t.deepEqual(totals(), expected, 'what was aborted before it was sent was not accepted');
  aborted.open();
  await eventually(
    () => version.activeRequests,
    (active) => active === 0,
  );
  await eventually(
    () => stats().abandoned,
    (abandoned) => abandoned === 0,
  );

  const holding = outcome(registry.execute('x', {}, dropped.request));
  await dropped.untilEntered();
  const filling = Array.from({ length: 33 }, () => outcome(registry.execute('x', {}, 'x')));
  t.is(await outcome(registry.execute('x', {}, 'x')), 'ERR_HANDLER_QUEUE_FULL');
  expected.shed += 1;
  t.deepEqual(totals(), expected);
  const { drained } = await registry.swap('x', fixture('version_a'));
  t.deepEqual(await Promise.all([holding, ...filling]), Array(34).fill('ERR_HANDLER_DROPPED'));
  expected.dropped += 34;
  t.deepEqual(totals(), expected);
  dropped.open();
  t.like(await drained, { dropped: 34, finished: 0 });
});

test('responses that cannot be used have a total of their own', async (t) => {
  const { registry } = await openRegistry(t, { maxPayloadBytes: 5000 });
  for (const [id, request, code] of [
    ['lying_length', '', 'ERR_HANDLER_INVALID_RESPONSE'],
    ['null_response', '', 'ERR_HANDLER_INVALID_RESPONSE'],
    ['large_response', '5001', 'ERR_HANDLER_RESPONSE_TOO_LARGE'],
    ['in_place', '5001', 'ERR_HANDLER_RESPONSE_TOO_LARGE'],
  ] as const) {
    await registry.load(id);
    t.like(await rejection(registry.execute(id, {}, request)), { code, endpoint: id, version: 1 });
    const { totals } = statsOf(registry, id);
    t.deepEqual(totals, { ...NO_TOTALS, badResponse: 1 });
  }
});

test('a small maxPayloadBytes bounds responses too', async (t) => {
  const { registry } = await openRegistry(t, { maxPayloadBytes: 100 });
  for (const id of ['large_response', 'in_place']) {
    await registry.load(id);
    const { bytes } = await registry.execute(id, {}, '100');
    t.is(bytes.length, 100);
    t.like(await rejection(registry.execute(id, {}, '101')), {
      code: 'ERR_HANDLER_RESPONSE_TOO_LARGE',
      limitBytes: 100,
      actualBytes: 101,
    });
  }
});

test('what is refused at the door is in no total', async (t) => {
  const { registry } = await openRegistry(t, { maxPayloadBytes: 10 });
  await registry.load('echo');
  t.is(
    await outcome(registry.execute('echo', {}, 'x'.repeat(11))),
    'ERR_HANDLER_PAYLOAD_TOO_LARGE',
  );
  t.is(await outcome(registry.execute('echo', {}, 1n as never)), 'ERR_HANDLER_INVALID_REQUEST');
  t.deepEqual(registry.stats().endpoints[0]?.versions[0]?.totals, NO_TOTALS);
});

test('latency counts what ran, in the window and since the start', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('sleep');
  const beganMs = performance.now();
  const requests = Array.from({ length: 3 }, () => registry.execute('sleep', {}, '20'));
  const sendingMs = performance.now() - beganMs;
  const responses = await Promise.all(requests);
  const { latency } = statsOf(registry, 'sleep');
  for (const { window, total } of [latency.queue, latency.run]) {
    t.deepEqual(window, total);
    t.is(window.count, 3);
  }
  t.true(latency.run.total.minMs >= 19.5, `${latency.run.total.minMs}`);
  // One lane: the third waited for two sleeps, less what went by until it was sent.
  const [firstMs = 0, secondMs = 0] = responses.map(({ ranMs }) => ranMs);
  t.true(latency.queue.total.maxMs >= (firstMs + secondMs - sendingMs) * 0.98);
  const longest = (key: 'queuedMs' | 'ranMs') => Math.max(...responses.map((it) => it[key]));
  t.true(Math.abs(latency.queue.total.maxMs - longest('queuedMs')) <= longest('queuedMs') * 0.02);
  t.true(Math.abs(latency.run.total.maxMs - longest('ranMs')) <= longest('ranMs') * 0.02);
});
