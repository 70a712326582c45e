/** The timeout ladder: deadlines and abort signals, wherever the request is when they strike. */
import { getEventListeners, setMaxListeners } from 'node:events';
import test, { type ExecutionContext } from 'ava';
import type { HandlerRegistry } from '../src/index.js';
import { isMapped } from '../src/library/mappings.js';
import { type Gate, gateMaker } from './support/gate.js';
import { failure, fieldsOf, outcome, rejection } from './support/outcomes.js';
import { blockMainThread, blockUntil, eventually } from './support/polling.js';
import { activeOf, activeStats, openRegistry } from './support/registry.js';

/** Slots come in 32s. */
const SLOTS = 32;

/** A lane that is held by a gate, for a request to be queued behind. */
async function heldLane(
  t: ExecutionContext,
  options = {},
): Promise<{
  registry: HandlerRegistry;
  holder: Gate;
  held: Promise<unknown>;
  gates: (n?: number) => Gate[];
}> {
  const { registry } = await openRegistry(t, {
    maxInFlight: SLOTS,
    cancelGraceMs: 60_000,
    ...options,
  });
  const gates = gateMaker(t);
  await registry.load('gate');
  const [holder] = gates() as [Gate];
  const held = registry.executeWithTimeout('gate', {}, holder.request, Number.POSITIVE_INFINITY);
  held.catch(() => undefined);
  await holder.untilEntered();
  return { registry, holder, held, gates };
}

/**
 * Executes requests with longer and longer timeouts until one's deadline passes during its native call, and returns that timeout.
 * A busy machine may not begin a call before its deadline: such a request has to time out in the queue.
 */
async function timedOutRunning(
  t: ExecutionContext,
  execute: (timeoutMs: number) => Promise<unknown>,
): Promise<number> {
  for (let timeoutMs = 100; timeoutMs < 60_000; timeoutMs *= 2) {
    const outcome = await failure(execute(timeoutMs), 'phase', 'timeoutMs');
    t.like(outcome, { code: 'ERR_HANDLER_TIMEOUT', timeoutMs });
    if (outcome['phase'] === 'running') return timeoutMs;
    t.is(outcome['phase'], 'queued');
  }
  throw new Error('no call began in time');
}

test('a deadline in the ring: withdrawn, and it never runs', async (t) => {
  const { registry, holder, held, gates } = await heldLane(t);
  const [late, after] = gates(2) as [Gate, Gate];

  const outcome = await failure(
    registry.executeWithTimeout('gate', {}, late.request, 20),
    'phase',
    'timeoutMs',
    'endpoint',
    'version',
  );

  t.deepEqual(outcome, {
    code: 'ERR_HANDLER_TIMEOUT',
    phase: 'queued',
    timeoutMs: 20,
    endpoint: 'gate',
    version: 1,
  });
  t.is(activeOf(registry, 'gate').activeRequests, 1);
  holder.open();
  await held;
  // The queue is first in, first out: once this one runs, the late one would have run.
  after.open();
  await registry.execute('gate', {}, after.request);
  t.false(late.entered);
  t.is(activeOf(registry, 'gate').activeRequests, 0);
  t.is(activeStats(registry, 'gate').totals.timedOutQueued, 1);
});

test('a deadline in the queue on the main thread: it leaves, and the others keep their order', async (t) => {
  const { registry, holder, held, gates } = await heldLane(t);
  const fillers = gates(SLOTS - 1);
  for (const filler of fillers) filler.open();
  const filling = fillers.map(({ request }) => registry.execute('gate', {}, request));
  const [before, late, after] = gates(3) as [Gate, Gate, Gate];
  const first = registry.execute('gate', {}, before.request);
  const refused = failure(registry.executeWithTimeout('gate', {}, late.request, 20), 'phase');
  const last = registry.execute('gate', {}, after.request);

  t.deepEqual(await refused, { code: 'ERR_HANDLER_TIMEOUT', phase: 'queued' });
  t.is(activeOf(registry, 'gate').activeRequests, SLOTS + 2);
  holder.open();
  await before.untilEntered();
  // One lane: if the order were another one, this one or the late one would run or have run.
  t.false(after.entered);
  t.false(late.entered);
  before.open();
  after.open();
  await Promise.all([held, ...filling, first, last]);
  t.false(late.entered);
  t.is(activeOf(registry, 'gate').activeRequests, 0);
});

test('every waiting request has its own deadline', async (t) => {
  const { registry, gates } = await heldLane(t);
  for (const { request } of gates(SLOTS - 1)) {
    registry
      .executeWithTimeout('gate', {}, request, Number.POSITIVE_INFINITY)
      .catch(() => undefined);
  }

  const timeoutsMs = [40, 10, 25, 10, 55];
  const outcomes = await Promise.all(
    gates(timeoutsMs.length).map(({ request }, index) =>
      failure(
        registry.executeWithTimeout('gate', {}, request, timeoutsMs[index] ?? 1),
        'timeoutMs',
      ),
    ),
  );

  t.deepEqual(
    outcomes,
    timeoutsMs.map((timeoutMs) => ({ code: 'ERR_HANDLER_TIMEOUT', timeoutMs })),
  );
  t.is(activeOf(registry, 'gate').activeRequests, SLOTS);
});

test('a deadline during a cooperative call: the flag is seen, and the lane is back', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 60_000 });
  await registry.load('cooperative');
  const abandoned: number[] = [];
  registry.on('abandoned', ({ lane }) => void abandoned.push(lane));

  await timedOutRunning(t, (timeoutMs) =>
    registry.executeWithTimeout('cooperative', {}, '600000', timeoutMs),
  );

  t.deepEqual(abandoned, [0]);
  // The call had ten minutes to go: only the flag brings it back.
  await eventually(
    () => activeOf(registry, 'cooperative').activeRequests,
    (count) => count === 0,
    'the call has returned',
  );
  t.is((await registry.execute('cooperative', {}, '0')).text(), 'finished');
  const { lanes, abandoned: left, running } = activeStats(registry, 'cooperative');
  t.deepEqual(
    { lanes, left, running },
    {
      lanes: { starting: 0, serving: 1, stuck: 0 },
      left: 0,
      running: 0,
    },
  );
});

test('a deadline during a call that ignores it: in flight and mapped until it returns', async (t) => {
  const { registry, gates, holder, held } = await heldLane(t, { cancelGraceMs: 50 });
  holder.open();
  await held;
  const tried: Gate[] = [];
  await timedOutRunning(t, (timeoutMs) => {
    const [gate] = gates() as [Gate];
    tried.push(gate);
    return registry.executeWithTimeout('gate', {}, gate.request, timeoutMs);
  });
  t.deepEqual(
    tried.map(({ entered }) => entered),
    tried.map((_, index) => index === tried.length - 1),
    'the last one runs, and no other ever has',
  );

  const old = activeOf(registry, 'gate');
  t.is(old.activeRequests, 1);
  const report = await registry.unload('gate', { drainTimeoutMs: 0 });

  t.is(report.library, 'resident');
  t.is(report.abandoned, 1);
  t.is(report.dropped, 0);
  t.is(old.state, 'draining');
  t.is(old.activeRequests, 1);
  t.is(await registry.cleanupDrained(), 0);
  tried.at(-1)?.open();
  await eventually(
    () => old.state,
    (state) => state === 'retired',
    'the version retires',
  );
  t.is(old.activeRequests, 0);
});

test('an immediate swap leaves an abandoned call its library; then the library goes', async (t) => {
  const { registry, holder, held } = await heldLane(t, { cancelGraceMs: 20 });
  const libraries: (boolean | undefined)[] = [];
  const old = activeOf(registry, 'gate');
  registry.on('retired', ({ report }) => void libraries.push(report.library === 'unloaded'));

  const { oldRequestsPending, draining, drained } = await registry.swap(
    'gate',
    activeOf(registry, 'gate').path,
  );

  t.deepEqual({ oldRequestsPending, draining }, { oldRequestsPending: 1, draining: true });
  t.deepEqual(await failure(held, 'reason', 'phase'), {
    code: 'ERR_HANDLER_DROPPED',
    reason: 'swap',
    phase: 'running',
  });
  t.is((await drained)?.library, 'resident');
  t.is(old.activeRequests, 1);
  t.deepEqual(libraries, []);
  holder.open();
  await eventually(
    () => old.state,
    (state) => state === 'retired',
    'the old version retires',
  );
  if (process.platform === 'linux') t.deepEqual(libraries, [true]);
});

test('the lane finds out by itself what is late while the main thread is blocked', async (t) => {
  const { registry, holder, held, gates } = await heldLane(t);
  const [late, next] = gates(2) as [Gate, Gate];
  late.open();
  next.open();
  const refused = failure(registry.executeWithTimeout('gate', {}, late.request, 15), 'phase');
  const following = registry.execute('gate', {}, next.request);

  blockMainThread(30);
  holder.open();
  // Still in the same tick: the timer cannot have fired, and the lane goes through its queue.
  next.untilEnteredBlocking();

  t.false(late.entered);
  t.deepEqual(await refused, { code: 'ERR_HANDLER_TIMEOUT', phase: 'queued' });
  await Promise.all([held, following]);
  t.is(activeOf(registry, 'gate').activeRequests, 0);
  t.is(activeStats(registry, 'gate').totals.timedOutQueued, 1);
});

test('a response that is there wins over a deadline that passed while the main thread was blocked', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');

  // A lane that comes to a request too late lets it time out in the queue; then the next has twice as long.
  let answered = 'ERR_HANDLER_TIMEOUT';
  for (let timeoutMs = 100; answered === 'ERR_HANDLER_TIMEOUT'; timeoutMs *= 2) {
    const answer = outcome(registry.executeWithTimeout('echo', {}, 'in time', timeoutMs));
    blockMainThread(timeoutMs + 10);
    // Still in the same tick: this thread has seen neither the answer nor the deadline.
    blockUntil(() => {
      const { queued, running } = activeStats(registry, 'echo');
      return queued + running === 0;
    });
    answered = await answer;
  }
  t.is(answered, 'in time');
  t.is(activeStats(registry, 'echo').totals.timedOutRunning, 0);
});

test('Infinity is no deadline, and the handler is told none', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('context');
  const none = await registry.executeWithTimeout('context', {}, '', Number.POSITIVE_INFINITY);
  t.is(none.json<{ deadlineNs: string }>().deadlineNs, '0');

  const before = process.hrtime.bigint();
  const some = await registry.executeWithTimeout('context', {}, '', 600_000);
  const after = process.hrtime.bigint();

  const deadlineNs = BigInt(some.json<{ deadlineNs: string }>().deadlineNs);
  const sentNs = deadlineNs - 600_000_000_000n;
  // The clocks of two threads are compared only once, by reading both.
  const toleranceNs = 100_000_000n;
  t.true(sentNs >= before - toleranceNs && sentNs <= after + toleranceNs, String(sentNs - before));
});

test('the default timeout counts for execute', async (t) => {
  const { registry } = await openRegistry(t, { defaultTimeoutMs: 20 });
  await registry.load('cooperative');

  t.deepEqual(await failure(registry.execute('cooperative', {}, '60000'), 'timeoutMs'), {
    code: 'ERR_HANDLER_TIMEOUT',
    timeoutMs: 20,
  });
});

for (const timeoutMs of [0, -1, Number.NaN, Number.NEGATIVE_INFINITY, 2 ** 31, '5', null, {}]) {
  test(`a timeout of ${typeof timeoutMs} ${String(timeoutMs)} is refused`, async (t) => {
    const { registry } = await openRegistry(t);
    await registry.load('echo');

    const outcome = await failure(
      (async () => registry.executeWithTimeout('echo', {}, 'x', timeoutMs as number))(),
      'option',
    );

    t.deepEqual(outcome, { code: 'ERR_HANDLER_INVALID_OPTION', option: 'timeoutMs' });
    t.is(activeOf(registry, 'echo').activeRequests, 0);
  });
}

// ---- AbortSignal ---------------------------------------------------------------------------------

for (const reason of [new Error('mine'), 'a word', 42, null, { why: 'plain' }]) {
  test(`the caller gets the signal's very reason: ${typeof reason} ${String(reason)}`, async (t) => {
    const { registry, holder, gates } = await heldLane(t);
    const [queued] = gates() as [Gate];
    const early = AbortSignal.abort(reason);
    const controller = new AbortController();
    const running = new AbortController();

    t.is(await rejection(registry.execute('gate', {}, queued.request, { signal: early })), reason);
    t.is(activeOf(registry, 'gate').activeRequests, 1);
    const inRing = rejection(
      registry.execute('gate', {}, queued.request, { signal: controller.signal }),
    );
    t.is(activeOf(registry, 'gate').activeRequests, 2);
    controller.abort(reason);
    t.is(await inRing, reason);
    t.is(activeOf(registry, 'gate').activeRequests, 1);
    holder.open();
    const [last] = gates() as [Gate];
    const inCall = rejection(registry.execute('gate', {}, last.request, running));
    await last.untilEntered();
    running.abort(reason);
    t.is(await inCall, reason);
    t.false(queued.entered);
    t.is(activeOf(registry, 'gate').activeRequests, 1);
    last.open();
    await eventually(
      () => activeOf(registry, 'gate').activeRequests,
      (count) => count === 0,
      'the aborted call returns',
    );
    t.is(activeStats(registry, 'gate').totals.aborted, 2);
  });
}

test('an abort without a reason gives an AbortError', async (t) => {
  const { registry, gates } = await heldLane(t);
  const [queued] = gates() as [Gate];
  const controller = new AbortController();
  const refused = rejection(registry.execute('gate', {}, queued.request, controller));

  controller.abort();

  const error = await refused;
  t.true(error instanceof DOMException);
  t.is((error as DOMException).name, 'AbortError');
});

test('an abort while waiting on the main thread', async (t) => {
  const { registry, holder, held, gates } = await heldLane(t);
  const fillers = gates(SLOTS - 1);
  for (const filler of fillers) filler.open();
  const filling = fillers.map(({ request }) => registry.execute('gate', {}, request));
  const [given, kept] = gates(2) as [Gate, Gate];
  kept.open();
  const controller = new AbortController();
  const refused = rejection(registry.execute('gate', {}, given.request, controller));
  const neighbour = registry.execute('gate', {}, kept.request);

  controller.abort('enough');

  t.is(await refused, 'enough');
  t.is(activeOf(registry, 'gate').activeRequests, SLOTS + 1);
  holder.open();
  await Promise.all([held, neighbour, ...filling]);
  t.false(given.entered);
  t.is(activeOf(registry, 'gate').activeRequests, 0);
});

test('a cooperative call sees an abort', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('cooperative');
  const controller = new AbortController();
  const refused = rejection(registry.execute('cooperative', {}, '60000', controller));
  await eventually(
    () => activeStats(registry, 'cooperative').running,
    (running) => running === 1,
    'the call runs',
  );

  controller.abort('enough');

  t.is(await refused, 'enough');
  await eventually(
    () => activeOf(registry, 'cooperative').activeRequests,
    (count) => count === 0,
    'the call has returned',
  );
});

test('nothing is left on a signal, however the request ended', async (t) => {
  const { registry } = await openRegistry(t, { maxQueue: 0 });
  await registry.load('echo');
  await registry.load('fails');
  await registry.load('cooperative');
  const { signal } = new AbortController();
  const listeners = () => getEventListeners(signal, 'abort').length;

  await registry.execute('echo', {}, 'x', { signal });
  t.is(listeners(), 0);
  await rejection(registry.execute('fails', {}, 'x', { signal }));
  t.is(listeners(), 0);
  await rejection(registry.executeWithTimeout('cooperative', {}, '60000', 10, { signal }));
  t.is(listeners(), 0);
  await rejection(registry.execute('echo', {}, undefined as unknown as string, { signal }));
  t.is(listeners(), 0);
  const pending = rejection(registry.execute('cooperative', {}, '60000', { signal }));
  t.is(listeners(), 1);
  await registry.swap('cooperative', activeOf(registry, 'cooperative').path);
  t.is(fieldsOf(await pending)['code'], 'ERR_HANDLER_DROPPED');
  t.is(listeners(), 0);
});

test('one signal for many requests: all of them go, and nobody else', async (t) => {
  const { registry, holder, held, gates } = await heldLane(t);
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  const theirs = gates(40);
  const ours = gates(20);
  for (const gate of [...theirs, ...ours]) gate.open();
  const refused: Promise<unknown>[] = [];
  const answered: Promise<unknown>[] = [];
  for (const [index, { request }] of theirs.entries()) {
    refused.push(rejection(registry.execute('gate', {}, request, controller)));
    const other = ours[index];
    if (other !== undefined) answered.push(registry.execute('gate', {}, other.request));
  }

  controller.abort('all');

  t.deepEqual(new Set(await Promise.all(refused)), new Set(['all']));
  t.is(activeOf(registry, 'gate').activeRequests, 1 + ours.length);
  holder.open();
  await Promise.all([held, ...answered]);
  t.true(ours.every(({ entered }) => entered));
  t.false(theirs.some(({ entered }) => entered));
  t.is(activeOf(registry, 'gate').activeRequests, 0);
});

test('the mapping of an unloaded version is gone', async (t) => {
  const { registry } = await openRegistry(t);
  const { path } = await registry.load('echo');
  const { library } = await registry.unload('echo');

  t.is(library, process.platform === 'linux' ? 'unloaded' : 'unverified');
  t.not(await isMapped(path), true);
});
