/** At exit every ring is frozen: lanes in koffi get a moment to come out, none goes in. */
import test from 'ava';
import { guardAtExit, unguardAtExit } from '../src/exit-guard.js';
import { RingConsumer } from '../src/ring/consumer.js';
import { CONTROL, LANE, laneAt, MODE } from '../src/ring/layout.js';
import { RingProducer } from '../src/ring/producer.js';

const shape = { slots: 32, lanes: 2 };

/** The exit listeners that `add` adds. */
function exitListenersOf(add: () => void): (() => void)[] {
  const before = new Set<unknown>(process.listeners('exit'));
  add();
  return process.listeners('exit').filter((listener) => !before.has(listener)) as (() => void)[];
}

/** Runs `run` with `Atomics.wait` replaced; what would block ends with what `instead` does. */
function withoutBlocking(
  instead: (index: number, timeoutMs: number | undefined) => void,
  run: () => void,
): void {
  const wait = Atomics.wait;
  Atomics.wait = ((words: Int32Array, index: number, value: number, timeoutMs?: number) => {
    if (Atomics.load(words, index) !== value) return 'not-equal';
    instead(index, timeoutMs);
    return 'ok';
  }) as unknown as typeof Atomics.wait;
  try {
    run();
  } finally {
    Atomics.wait = wait;
  }
}

test.serial('one listener for all rings, and none without', (t) => {
  const [first, second] = [new RingProducer(shape), new RingProducer(shape)];
  const added = exitListenersOf(() => {
    guardAtExit(first);
    guardAtExit(second);
  });
  t.is(added.length, 1);

  unguardAtExit(first);
  t.true(process.listeners('exit').includes(added[0] as never));
  unguardAtExit(second);
  t.false(process.listeners('exit').includes(added[0] as never));
});

test.serial('at exit it freezes every ring, and waits for the lanes that are in koffi', (t) => {
  const rings = [new RingProducer(shape), new RingProducer(shape)] as const;
  const [freeze] = exitListenersOf(() => {
    for (const ring of rings) guardAtExit(ring);
  });
  t.teardown(() => {
    for (const ring of rings) unguardAtExit(ring);
  });
  const lane = new RingConsumer(rings[1].memory, shape, 1, () => undefined);
  lane.enterCritical();
  const critical = laneAt(rings[1].layout, 1) + LANE.CRITICAL;
  const waitedOn: number[] = [];

  withoutBlocking(
    (index) => {
      // Both are frozen before the first is waited for, so that the lanes come out side by side.
      t.true(rings.every(({ words }) => Atomics.load(words, CONTROL.MODE) === MODE.FREEZE));
      waitedOn.push(index);
    },
    () => freeze?.(),
  );

  t.deepEqual(waitedOn, [critical]);
});

class StoodStill extends Error {}

for (const [what, step] of [
  ['enters koffi', (lane: RingConsumer) => lane.enterCritical()],
  ['leaves koffi', (lane: RingConsumer) => lane.leaveCritical()],
] as const) {
  test.serial(`a lane that ${what} when the process is ending stands still outside it`, (t) => {
    const ring = new RingProducer(shape);
    const lane = new RingConsumer(ring.memory, shape, 0, () => undefined);
    if (what === 'leaves koffi') lane.enterCritical();
    ring.freeze();

    const run = () => {
      withoutBlocking(
        () => {
          throw new StoodStill();
        },
        () => step(lane),
      );
    };

    t.throws(run, { instanceOf: StoodStill });
    t.is(Atomics.load(ring.words, laneAt(ring.layout, 0) + LANE.CRITICAL), 0);
  });
}

test.serial('a frozen ring stays frozen, also if it is stopped afterwards', (t) => {
  const ring = new RingProducer(shape);
  ring.freeze();
  ring.stop();
  t.is(Atomics.load(ring.words, CONTROL.MODE), MODE.FREEZE);
});

test.serial('waiting for a lane that never comes out ends', (t) => {
  const ring = new RingProducer(shape);
  new RingConsumer(ring.memory, shape, 0, () => undefined).enterCritical();
  const critical = laneAt(ring.layout, 0) + LANE.CRITICAL;
  const waits: (number | undefined)[] = [];

  withoutBlocking(
    (index, timeoutMs) => {
      t.is(index, critical);
      waits.push(timeoutMs);
    },
    () => ring.awaitFrozen(60_000),
  );

  t.is(waits.length, 1);
  const [timeoutMs = Number.POSITIVE_INFINITY] = waits;
  t.true(timeoutMs > 0 && timeoutMs <= 60_000, `${timeoutMs}`);
  // For real, too: the lane is still in there when it gives up.
  ring.awaitFrozen(30);
  t.is(Atomics.load(ring.words, critical), 1);
});
