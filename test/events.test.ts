import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { HandlerRegistry, QueueFullError, RegistryEvents } from '../src/index.js';
import { passTime } from './support/clock.js';
import { gate } from './support/gate.js';
import { outcome, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { UNLOADED } from './support/process.js';
import { openRegistry } from './support/registry.js';
import { captureWarnings } from './support/warnings.js';

type Name = keyof RegistryEvents;

const NAMES: readonly Name[] = [
  'loading',
  'loaded',
  'loadFailed',
  'swapped',
  'draining',
  'drained',
  'retired',
  'timeout',
  'abandoned',
  'laneStuck',
  'laneExited',
  'laneReplaced',
  'shed',
];

/** Every event with its details, in order. */
function record(registry: HandlerRegistry): [Name, Record<string, unknown>][] {
  const events: [Name, Record<string, unknown>][] = [];
  for (const name of NAMES) {
    registry.on(name, (details: object) => events.push([name, { ...details }]));
  }
  return events;
}

const ofVersion = (version: number) => ({ endpoint: 'x', version });

test('a life: loaded, swapped, drained, retired', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  const events = record(registry);
  const [pathA, pathB] = [fixture('version_a'), fixture('version_b')];
  const first = await registry.loadFrom('x', pathA);
  const { drained } = await registry.swapGraceful('x', pathB);
  await drained;
  const second = registry.get('x');
  await registry.unload('x');

  t.deepEqual(
    events.map(([name, { version }]) => `${name} ${version}`),
    [
      'loading 1',
      'loaded 1',
      'loading 2',
      'draining 1',
      'drained 1',
      'loaded 2',
      'swapped 2',
      'retired 1',
      'draining 2',
      'drained 2',
      'retired 2',
    ],
  );
  const [loading1, loaded1, loading2, draining1, drained1, loaded2, swapped, retired1, draining2] =
    events.map(([, details]) => details);
  const info = (tag: string) => ({ name: 'tagged', version: tag, description: null });
  t.deepEqual(loading1, { ...ofVersion(1), path: pathA });
  const { tookMs, ...rest } = loaded1 ?? {};
  t.true((tookMs as number) > 0);
  t.deepEqual(rest, { ...ofVersion(1), path: pathA, sha256: first.sha256, info: info('A') });
  t.deepEqual(loading2, { ...ofVersion(2), path: pathB });
  t.deepEqual(draining1, { ...ofVersion(1), activeRequests: 0, reason: 'swap' });
  t.deepEqual(drained1, ofVersion(1));
  t.like(loaded2, { ...ofVersion(2), path: pathB, sha256: second?.sha256, info: info('B') });
  t.deepEqual(swapped, { ...ofVersion(2), from: 1, graceful: true });
  t.deepEqual(retired1, { ...ofVersion(1), report: retired1?.['report'] });
  t.like(retired1?.['report'], { ...ofVersion(1), dropped: 0, library: UNLOADED });
  t.deepEqual(draining2, { ...ofVersion(2), activeRequests: 0, reason: 'unload' });
});

test('an immediate swap says so, with what was in flight and abandoned', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 60_000 });
  await registry.loadFrom('x', fixture('gate'));
  const held = gate(t);
  const request = rejection(registry.execute('x', {}, held.request));
  await held.untilEntered();
  const events = record(registry);
  const { drained } = await registry.swap('x', fixture('version_a'));
  await request;
  t.deepEqual(
    events.map(([name]) => name),
    ['loading', 'draining', 'abandoned', 'loaded', 'swapped'],
  );
  t.deepEqual(events[1]?.[1], { ...ofVersion(1), activeRequests: 1, reason: 'swap' });
  t.deepEqual(events[2]?.[1], { ...ofVersion(1), lane: 0 });
  t.deepEqual(events[4]?.[1], { ...ofVersion(2), from: 1, graceful: false });
  held.open();
  await drained;
  t.deepEqual(
    events.slice(5).map(([name]) => name),
    ['drained', 'retired'],
  );
});

test('a load that fails', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  const events = record(registry);
  const path = fixture('wrong_abi');
  const error = await rejection(registry.loadFrom('x', path));
  t.deepEqual(events, [
    ['loading', { ...ofVersion(1), path }],
    ['loadFailed', { ...ofVersion(1), path, error }],
  ]);
});

// Serial: the clock is the whole thread's.
test.serial('timeouts, in both phases, and the call that is abandoned', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 60_000 });
  await registry.loadFrom('x', fixture('gate'));
  const held = gate(t);
  const events = record(registry);
  const running = rejection(registry.executeWithTimeout('x', {}, held.request, 600_000));
  await held.untilEntered();
  const queued = rejection(registry.executeWithTimeout('x', {}, gate(t).request, 1));
  passTime(t, 600_000);
  t.like(await queued, { phase: 'queued' });
  t.like(await running, { phase: 'running' });
  t.deepEqual(events, [
    ['timeout', { ...ofVersion(1), phase: 'queued', timeoutMs: 1 }],
    ['timeout', { ...ofVersion(1), phase: 'running', timeoutMs: 600_000 }],
    ['abandoned', { ...ofVersion(1), lane: 0 }],
  ]);
  held.open();
});

test('a stuck lane, and the one that takes its place', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 1, maxStuckLanes: 1 });
  await registry.loadFrom('x', fixture('gate'));
  const held = gate(t);
  const controller = new AbortController();
  const running = rejection(registry.execute('x', {}, held.request, controller));
  await held.untilEntered();
  const events = record(registry);
  controller.abort('given up');
  t.is(await running, 'given up');
  await eventually(
    () => events.length,
    (length) => length === 3,
  );
  t.deepEqual(events, [
    ['abandoned', { ...ofVersion(1), lane: 0 }],
    ['laneStuck', { ...ofVersion(1), lane: 0, replaced: true, killed: false }],
    ['laneReplaced', { ...ofVersion(1), lane: 0, by: 1 }],
  ]);
  held.open();
});

test('a request that is shed', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32, maxQueue: 1 });
  await registry.loadFrom('x', fixture('gate'));
  const gates = Array.from({ length: 33 }, () => gate(t));
  const accepted = gates.map(({ request }) => outcome(registry.execute('x', {}, request)));
  const events = record(registry);
  const error = (await rejection(registry.execute('x', {}, gate(t).request))) as QueueFullError;
  t.is(error.code, 'ERR_HANDLER_QUEUE_FULL');
  t.deepEqual(events, [['shed', { ...ofVersion(1), error }]]);
  for (const gate of gates) gate.open();
  await Promise.all(accepted);
});

test('listeners that throw cost warnings, and nothing else', async (t) => {
  const { warnings } = captureWarnings(t, ({ name }) => name === 'ListenerWarning');
  const { registry } = await openRegistry(t, {
    cancelGraceMs: 1,
    maxStuckLanes: 1,
    maxInFlight: 32,
    maxQueue: 0,
  });
  const thrown = new Map<Name, Error>();
  for (const name of NAMES) {
    const error = new Error(`from a listener for ${name}`);
    registry.on(name, () => {
      thrown.set(name, error);
      throw error;
    });
  }

  await rejection(registry.loadFrom('x', fixture('failing_init')));
  await registry.loadFrom('x', fixture('gate'));
  const gates = Array.from({ length: 32 }, () => gate(t));
  const [first] = gates;
  const controller = new AbortController();
  const outcomes = gates.map(({ request }, index) => {
    if (index === 0) return rejection(registry.execute('x', {}, request, controller));
    return outcome(registry.executeWithTimeout('x', {}, request, index === 1 ? 1 : 60_000));
  });
  await first?.untilEntered();
  t.is(await outcome(registry.execute('x', {}, 'x')), 'ERR_HANDLER_QUEUE_FULL');
  t.is(await outcomes[1], 'ERR_HANDLER_TIMEOUT');
  controller.abort('given up');
  t.is(await outcomes[0], 'given up');
  await eventually(
    () => thrown.has('laneReplaced'),
    (replaced) => replaced,
  );
  for (const gate of gates) gate.open();
  t.deepEqual(await Promise.all(outcomes.slice(2)), Array(30).fill('released'));
  const { drained } = await registry.swapGraceful('x', fixture('version_a'));
  t.like(await drained, { dropped: 0 });
  t.is(await outcome(registry.execute('x', {}, 'x')), 'A:x');
  await registry.unload('x');

  const untold = NAMES.filter((name) => !thrown.has(name));
  t.deepEqual(untold, ['laneExited'], 'a native handler cannot end its thread alone');
  await eventually(
    () => {
      const causes = new Set(warnings.map(({ cause }) => cause));
      return [...thrown.values()].filter((error) => !causes.has(error)).map(String);
    },
    (missing) => missing.length === 0,
  );
});

test('a listener may give up what is just being given up', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32, cancelGraceMs: 60_000 });
  const version = await registry.loadFrom('x', fixture('gate'));
  const held = gate(t);
  const running = outcome(registry.execute('x', {}, held.request));
  await held.untilEntered();
  const filling = Array.from({ length: 31 }, () => outcome(registry.execute('x', {}, 'no gate')));
  // These wait on the main thread, with one deadline; the first to time out aborts the others.
  const controller = new AbortController();
  registry.once('timeout', () => controller.abort({ code: 'GIVEN_UP' }));
  const { signal } = controller;
  const waiting = Array.from({ length: 5 }, () =>
    outcome(registry.executeWithTimeout('x', {}, 'no gate', 20, { signal })),
  );
  const outcomes = await Promise.all(waiting);
  t.true(outcomes.includes('ERR_HANDLER_TIMEOUT'));
  for (const text of outcomes) t.regex(text, /^(ERR_HANDLER_TIMEOUT|GIVEN_UP)$/);
  t.is(version.activeRequests, 32, 'each has left once');
  held.open();
  t.is(await running, 'released');
  t.deepEqual(await Promise.all(filling), Array(31).fill('ERR_HANDLER_FAILED'));
  await eventually(
    () => version.activeRequests,
    (active) => active === 0,
  );
});

test('nothing needs a listener', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 1 });
  await rejection(registry.loadFrom('x', fixture('wrong_abi')));
  await registry.loadFrom('x', fixture('gate'));
  const held = gate(t);
  const running = registry.executeWithTimeout('x', {}, held.request, 50);
  t.is(await outcome(running), 'ERR_HANDLER_TIMEOUT');
  held.open();
  const { drained } = await registry.swap('x', fixture('version_a'));
  await drained;
  t.is(await outcome(registry.execute('x', {}, 'x')), 'A:x');
});

test('a listener may call the registry', async (t) => {
  const { registry } = await openRegistry(t);
  const answers: Promise<string>[] = [];
  const loads: Promise<unknown>[] = [];
  registry.on('loaded', ({ endpoint }) => {
    answers.push(outcome(registry.execute(endpoint, {}, 'x')));
    if (endpoint === 'x') loads.push(registry.loadFrom('y', fixture('version_b')));
    registry.stats();
  });
  registry.once('retired', () => {
    loads.push(registry.cleanupDrained());
  });
  await registry.loadFrom('x', fixture('version_a'));
  await Promise.all(loads);
  t.deepEqual(await Promise.all(answers), ['A:x', 'B:x']);
  await registry.unload('y');
});
