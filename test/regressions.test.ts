/** What went wrong once: each of these failed when it was written. */
import test from 'ava';
import type { EndpointOptions, HandlerRegistry } from '../src/index.js';
import { type Gate, gateMaker } from './support/gate.js';
import { failure, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { activeOf, activeStats, openRegistry } from './support/registry.js';

for (const signal of [null, {}, 'abort']) {
  test(`a signal of ${typeof signal} ${String(signal)} leaves nothing in flight`, async (t) => {
    const { registry } = await openRegistry(t);
    await registry.load('echo');

    await registry
      .execute('echo', {}, 'x', { signal: signal as unknown as AbortSignal })
      .catch(() => undefined);

    t.is(activeOf(registry, 'echo').activeRequests, 0);
  });
}

test('a timeout listener may abort other waiting requests', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32, cancelGraceMs: 60_000 });
  const gates = gateMaker(t);
  await registry.load('gate');
  for (const { request } of gates(32)) {
    registry
      .executeWithTimeout('gate', {}, request, Number.POSITIVE_INFINITY)
      .catch(() => undefined);
  }
  const controller = new AbortController();
  registry.on('timeout', () => controller.abort('with it'));
  const [first, second, third] = gates(3) as [Gate, Gate, Gate];

  const first20 = failure(registry.executeWithTimeout('gate', {}, first.request, 20));
  const aborted = rejection(
    registry.executeWithTimeout('gate', {}, second.request, 60_000, controller),
  );
  const last = failure(registry.executeWithTimeout('gate', {}, third.request, 40));

  const timeout = { code: 'ERR_HANDLER_TIMEOUT' };
  t.deepEqual(await first20, timeout);
  t.is(await aborted, 'with it');
  t.deepEqual(await last, timeout);
  t.is(activeOf(registry, 'gate').activeRequests, 32);
});

test('a load that fails without any grace still says why', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 0, preflight: true });

  t.is((await failure(registry.load('missing_entry')))['code'], 'ERR_HANDLER_MISSING_SYMBOL');
});

test('close with no time at all', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');

  const { dropped } = await registry.close({ timeoutMs: 0 });

  t.is(dropped, 0);
});

test('a small maxPayloadBytes limits responses too', async (t) => {
  const { registry } = await openRegistry(t, { maxPayloadBytes: 100 });
  await registry.load('in_place');

  t.is((await registry.execute('in_place', {}, '100')).bytes.length, 100);
  for (const size of ['101', '4096']) {
    t.is(
      (await failure(registry.execute('in_place', {}, size)))['code'],
      'ERR_HANDLER_RESPONSE_TOO_LARGE',
    );
  }
});

test('a wrong timeout rejects and does not throw; none at all is wrong too', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');

  const invalid = { code: 'ERR_HANDLER_INVALID_OPTION' };
  t.deepEqual(await failure(registry.executeWithTimeout('echo', {}, 'x', -1)), invalid);
  const none = undefined as unknown as number;
  t.deepEqual(await failure(registry.executeWithTimeout('echo', {}, 'x', none)), invalid);
});

test("what close drops says 'close'", async (t) => {
  const { registry } = await openRegistry(t);
  const [gate] = gateMaker(t)() as [Gate];
  await registry.load('gate');
  const outcome = failure(registry.execute('gate', {}, gate.request), 'reason');
  await gate.untilEntered();

  await registry.close({ timeoutMs: 100 });

  t.deepEqual(await outcome, { code: 'ERR_HANDLER_DROPPED', reason: 'close' });
});

async function stickOne(registry: HandlerRegistry, gate: Gate): Promise<void> {
  const controller = new AbortController();
  const given = rejection(registry.execute('gate', {}, gate.request, controller));
  await gate.untilEntered();
  controller.abort();
  await given;
}

const oneLane: EndpointOptions = { threads: 1, maxStuckLanes: 2, cancelGraceMs: 1 };
const settledLanes = (registry: HandlerRegistry) =>
  eventually(
    () => activeStats(registry, 'gate').lanes,
    ({ starting, serving, stuck }) => starting === 0 && serving === 1 && stuck === 0,
    'one lane is left',
  );

test('a replacement that is stuck and replaced in turn', async (t) => {
  const { registry } = await openRegistry(t, oneLane);
  const [first, second] = gateMaker(t)(2) as [Gate, Gate];
  await registry.load('gate');
  let replaced = 0;
  registry.on('laneReplaced', () => void replaced++);
  for (const [index, gate] of [first, second].entries()) {
    await stickOne(registry, gate);
    await eventually(
      () => replaced,
      (count) => count === index + 1,
      'replaced',
    );
  }

  first.open();
  await eventually(
    () => activeOf(registry, 'gate').activeRequests,
    (n) => n === 1,
    'one is back',
  );
  second.open();

  await settledLanes(registry);
  t.pass();
});

test('a lane that is stuck again before its replacement has started', async (t) => {
  const { registry } = await openRegistry(t, oneLane);
  const [first, second] = gateMaker(t)(2) as [Gate, Gate];
  await registry.load('gate');
  let stuck = 0;
  registry.on('laneStuck', () => void stuck++);
  await stickOne(registry, first);
  await eventually(
    () => stuck,
    (count) => count === 1,
    'stuck',
  );
  first.open();
  await stickOne(registry, second);
  await eventually(
    () => stuck,
    (count) => count === 2,
    'stuck again',
  );
  second.open();

  await settledLanes(registry);
  t.pass();
});

test('a request that aborts its own signal while it is written as JSON', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');
  const controller = new AbortController();
  const request = {
    toJSON() {
      controller.abort('on the way');
      return 1;
    },
  };

  t.is(await rejection(registry.execute('echo', {}, request, controller)), 'on the way');
  t.is(activeOf(registry, 'echo').activeRequests, 0);
});
