/** Native calls that outlive their callers: stuck lanes, their replacements, and what is left without any. */
import test, { type ExecutionContext } from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { HandlerRegistry, LaneCounts, RegistryOptions } from '../src/index.js';
import { Gate, gateMaker } from './support/gate.js';
import { failure, fieldsOf, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { activeOf, activeStats, openRegistry } from './support/registry.js';

type Said = ['stuck', number, boolean] | ['replaced', number, number];

interface Scene {
  registry: HandlerRegistry;
  said: Said[];
  gates: (count?: number) => Gate[];
  /** Has a native call run whose caller has given up. */
  abandonOne: () => Promise<Gate>;
}

async function scene(t: ExecutionContext, options: RegistryOptions): Promise<Scene> {
  const { registry } = await openRegistry(t, { cancelGraceMs: 10, ...options });
  const gates = gateMaker(t);
  const said: Said[] = [];
  registry.on('laneStuck', ({ lane, replaced }) => void said.push(['stuck', lane, replaced]));
  registry.on('laneReplaced', ({ lane, by }) => void said.push(['replaced', lane, by]));
  await registry.load('gate');
  const abandonOne = async () => {
    const [gate] = gates() as [Gate];
    const controller = new AbortController();
    const given = rejection(
      registry.executeWithTimeout('gate', {}, gate.request, Number.POSITIVE_INFINITY, controller),
    );
    await gate.untilEntered();
    controller.abort('given up');
    t.is(await given, 'given up');
    return gate;
  };
  return { registry, said, gates, abandonOne };
}

function lanesOf(registry: HandlerRegistry): LaneCounts {
  return activeStats(registry, 'gate').lanes;
}

function untilLanes(registry: HandlerRegistry, wanted: LaneCounts): Promise<LaneCounts> {
  const text = JSON.stringify(wanted);
  return eventually(
    () => lanesOf(registry),
    (lanes) => JSON.stringify(lanes) === text,
    `lanes are ${text}`,
  );
}

async function runOne(registry: HandlerRegistry): Promise<string> {
  const gate = new Gate();
  gate.open();
  return (await registry.execute('gate', {}, gate.request)).text();
}

test('a stuck lane is replaced, and dismissed when its call returns', async (t) => {
  const { registry, said, abandonOne } = await scene(t, { maxStuckLanes: 1 });

  const gate = await abandonOne();
  await untilLanes(registry, { starting: 0, serving: 1, stuck: 1 });

  t.deepEqual(said, [
    ['stuck', 0, true],
    ['replaced', 0, 1],
  ]);
  t.is(await runOne(registry), 'released');
  t.is(activeOf(registry, 'gate').activeRequests, 1);
  t.is(activeStats(registry, 'gate').abandoned, 1);
  gate.open();
  await untilLanes(registry, { starting: 0, serving: 1, stuck: 0 });
  t.is(activeOf(registry, 'gate').activeRequests, 0);
  t.is(activeStats(registry, 'gate').abandoned, 0);
  t.is(await runOne(registry), 'released');
});

test('what waits behind a stuck call is run by the replacement', async (t) => {
  const { registry, gates, abandonOne } = await scene(t, { maxStuckLanes: 1 });
  const [held] = gates() as [Gate];
  const controller = new AbortController();
  const given = rejection(registry.execute('gate', {}, held.request, controller));
  await held.untilEntered();
  const queued = Array.from({ length: 5 }, () => runOne(registry));

  controller.abort('given up');

  t.is(await given, 'given up');
  t.deepEqual(await Promise.all(queued), Array(5).fill('released'));
  t.false(activeStats(registry, 'gate').lanes.stuck === 0);
  held.open();
  await untilLanes(registry, { starting: 0, serving: 1, stuck: 0 });
  // The place of the stuck lane is free for the next replacement, again and again.
  for (let round = 0; round < 3; round++) {
    const again = await abandonOne();
    await untilLanes(registry, { starting: 0, serving: 1, stuck: 1 });
    again.open();
    await untilLanes(registry, { starting: 0, serving: 1, stuck: 0 });
  }
});

test('one stuck lane of two: the other serves on', async (t) => {
  const { registry, said, abandonOne } = await scene(t, { threads: 2, maxStuckLanes: 0 });

  const gate = await abandonOne();
  await untilLanes(registry, { starting: 0, serving: 1, stuck: 1 });

  t.is(said.length, 1);
  t.is(said[0]?.[2], false);
  t.is(await runOne(registry), 'released');
  gate.open();
  await untilLanes(registry, { starting: 0, serving: 2, stuck: 0 });
});

test('a call that returns within its grace is not stuck', async (t) => {
  const { registry, said, abandonOne } = await scene(t, { cancelGraceMs: 60_000 });

  const gate = await abandonOne();
  gate.open();
  await untilLanes(registry, { starting: 0, serving: 1, stuck: 0 });
  t.is(await runOne(registry), 'released');

  t.deepEqual(said, []);
});

for (const maxStuckLanes of [0, 1]) {
  test(`all lanes stuck, of which ${maxStuckLanes} may be replaced: shed at once, recover on return`, async (t) => {
    const { registry, said, gates, abandonOne } = await scene(t, { maxStuckLanes });
    const shed: Record<string, unknown>[] = [];
    registry.on('shed', ({ error }) => void shed.push(fieldsOf(error, 'stuckLanes')));
    const stuck = { code: 'ERR_HANDLER_STUCK', stuckLanes: maxStuckLanes + 1 };

    const earlier: Gate[] = [];
    for (let replaced = 0; replaced < maxStuckLanes; replaced++) {
      earlier.push(await abandonOne());
      await untilLanes(registry, { starting: 0, serving: 1, stuck: replaced + 1 });
    }
    const [last, ...queued] = gates(41) as [Gate, ...Gate[]];
    const controller = new AbortController();
    const given = rejection(registry.execute('gate', {}, last.request, controller));
    await last.untilEntered();
    // In the ring, and (with 32 slots) on the main thread.
    const waiting = queued.map(({ request }) =>
      failure(registry.execute('gate', {}, request), 'stuckLanes', 'endpoint', 'version'),
    );
    controller.abort('given up');
    t.is(await given, 'given up');

    for (const outcome of await Promise.all(waiting)) {
      t.deepEqual(outcome, { ...stuck, endpoint: 'gate', version: 1 });
    }
    const [refused] = gates() as [Gate];
    t.deepEqual(await failure(registry.execute('gate', {}, refused.request), 'stuckLanes'), stuck);
    t.deepEqual(shed, [stuck]);
    t.is(activeOf(registry, 'gate').activeRequests, maxStuckLanes + 1);
    t.is(activeStats(registry, 'gate').totals.dropped, queued.length);
    t.is(activeStats(registry, 'gate').totals.shed, 1);
    t.deepEqual(lanesOf(registry), { starting: 0, serving: 0, stuck: maxStuckLanes + 1 });
    t.deepEqual(said.at(-1), ['stuck', maxStuckLanes, false]);

    last.open();
    await untilLanes(registry, { starting: 0, serving: 1, stuck: maxStuckLanes });
    t.is(await runOne(registry), 'released');
    t.false(queued.some(({ entered }) => entered));
    t.false(refused.entered);
    for (const gate of earlier) gate.open();
    await eventually(
      () => activeOf(registry, 'gate').activeRequests,
      (count) => count === 0,
      'nothing is in flight',
    );
  });
}

test('a graceful swap brings a stuck endpoint back while the old version drains', async (t) => {
  const { registry, abandonOne } = await scene(t, { maxStuckLanes: 0 });
  const gate = await abandonOne();
  await untilLanes(registry, { starting: 0, serving: 0, stuck: 1 });
  const old = activeOf(registry, 'gate');
  const [refused] = [new Gate()];
  t.is(
    fieldsOf(await rejection(registry.execute('gate', {}, refused.request)))['code'],
    'ERR_HANDLER_STUCK',
  );

  const { oldRequestsPending, draining, drained } = await registry.swapGraceful(
    'gate',
    fixture('echo'),
  );

  t.deepEqual({ oldRequestsPending, draining }, { oldRequestsPending: 1, draining: true });
  t.is((await registry.execute('gate', {}, 'well again')).text(), 'well again');
  t.is(old.state, 'draining');
  gate.open();
  const report = await drained;
  t.is(report?.dropped, 0);
  t.is(report?.abandoned, 0);
  if (process.platform === 'linux') t.is(report?.library, 'unloaded');
  t.is(old.activeRequests, 0);
});

test('a withdrawn request does not keep a stuck version from retiring', async (t) => {
  const { registry, gates, abandonOne } = await scene(t, { maxStuckLanes: 0 });
  const gate = await abandonOne();
  const [queued] = gates() as [Gate];
  t.is((await failure(registry.execute('gate', {}, queued.request)))['code'], 'ERR_HANDLER_STUCK');
  const old = activeOf(registry, 'gate');
  const report = await registry.unload('gate', { drainTimeoutMs: 0 });
  t.is(report.library, 'resident');
  t.is(old.state, 'draining');

  gate.open();

  await eventually(
    () => old.state,
    (state) => state === 'retired',
    'the version retires',
  );
  t.false(queued.entered);
});
