/**
 * Both sides of the ring in one thread, step by step. Every access to shared memory is an Atomics call, so an
 * interleaving is enumerated by running the other side before the first, second, third, ... call of this side; and
 * a thread that dies is one whose n-th call throws.
 */
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { NOTHING, RingConsumer } from '../src/ring/consumer.js';
import { CONTROL, LANE, laneAt, SLOT, STATE, STATUS, slotAt, WAIT } from '../src/ring/layout.js';
import { NO_SLOT, RingProducer } from '../src/ring/producer.js';

// ---- Stepping --------------------------------------------------------------------------------------

const stepNames = [
  'load',
  'store',
  'add',
  'sub',
  'or',
  'exchange',
  'compareExchange',
  'notify',
  'wait',
] as const;
type Atomic = (...operands: unknown[]) => unknown;
const atomics = Atomics as unknown as Record<string, Atomic>;

/** Calls `before` with the number of each Atomics call that `run` makes, from 0. */
function stepping<T>(run: () => T, before: (step: number) => void): T {
  const originals = stepNames.map((name) => [name, atomics[name] as Atomic] as const);
  const restore = () => {
    for (const [name, original] of originals) atomics[name] = original;
  };
  let step = 0;
  const patch = () => {
    for (const [name, original] of originals) {
      atomics[name] = (...operands) => {
        restore();
        before(step++);
        patch();
        return original.apply(Atomics, operands);
      };
    }
  };
  patch();
  try {
    return run();
  } finally {
    restore();
  }
}

/**
 * Runs `scene` once for each step of what it steps through, until there are no more. Its `run` does `between` at
 * that step; a scene whose step was not reached has nothing to check. Returns how many steps there were.
 */
function forEachStep(
  scene: (at: number, interleave: <T>(run: () => T, between: () => void) => T) => void,
  most = 200,
): number {
  for (let at = 0; at < most; at++) {
    const unreached = new Unreached();
    try {
      scene(at, (run, between) => {
        let reached = false;
        try {
          return stepping(run, (step) => {
            if (step !== at) return;
            reached = true;
            between();
          });
        } finally {
          // biome-ignore lint/correctness/noUnsafeFinally: whatever it returned, there was no such step
          if (!reached) throw unreached;
        }
      });
    } catch (error) {
      if (error === unreached) return at;
      throw error;
    }
  }
  return most;
}

class Unreached extends Error {}

/** One ring with its host and some lanes; checks that each request comes out once. */
class World {
  readonly ring: RingProducer;
  readonly lanes: RingConsumer[];
  /** Doorbell messages on their way to the host. */
  bells = 0;
  readonly collected: number[] = [];
  #accepted = 0;

  constructor({ slots = 32, lanes = 2 } = {}) {
    const shape = { slots, lanes };
    this.ring = new RingProducer(shape);
    this.lanes = Array.from(
      { length: lanes },
      (_, lane) => new RingConsumer(this.ring.memory, shape, lane, () => this.bells++),
    );
  }

  lane(index: number): RingConsumer {
    const lane = this.lanes[index];
    if (lane === undefined) throw new Error(`there is no lane ${index}`);
    return lane;
  }

  /** As a lane does: a status is written before the slot is handed back. */
  complete(lane: number, slot: number): void {
    const { words, layout } = this.ring;
    words[slotAt(layout, slot) + SLOT.STATUS] = STATUS.OK;
    this.lane(lane).complete(slot);
  }

  submit(): number {
    const slot = this.ring.takeSlot();
    if (slot === NO_SLOT) throw new Error('no slot');
    this.ring.acquire();
    this.ring.submit(slot, Number.POSITIVE_INFINITY);
    this.#accepted++;
    return slot;
  }

  collect(): void {
    this.ring.collect((slot) => {
      this.collected.push(slot);
      this.ring.freeSlot(slot);
    });
  }

  /** As the host does: collects for each doorbell, and only for doorbells. */
  answerBells(): void {
    while (this.bells > 0) {
      this.bells -= 1;
      this.collect();
    }
  }

  /** Lets lane 0 do all that is queued, and the host hear of it. */
  finish(): void {
    for (let slot = this.lane(0).take(); slot !== NOTHING; slot = this.lane(0).take()) {
      this.lane(0).complete(slot);
    }
    this.answerBells();
  }

  /** Everything that was accepted has come out, and the ring is as new. */
  checkEnd(t: ExecutionContext, what: string): void {
    t.is(this.collected.length, this.#accepted, `${what}: as many came out as went in`);
    t.is(this.ring.inFlight, 0, `${what}: in flight`);
    t.true(this.ring.taken === 0, `${what}: every slot is free`);
    const free = new Set<number>();
    for (let slot = this.ring.takeSlot(); slot !== NO_SLOT; slot = this.ring.takeSlot()) {
      t.false(free.has(slot), `${what}: slot ${slot} was freed twice`);
      t.is(this.ring.stateOf(slot), STATE.FREE, `${what}: state of ${slot}`);
      free.add(slot);
    }
    t.is(free.size, this.ring.layout.slots, `${what}: no slot is lost`);
  }
}

// ---- One after the other -----------------------------------------------------------------------------

test('a request goes through all states', (t) => {
  const world = new World();
  const { ring } = world;
  t.is(world.lane(0).take(), NOTHING);
  const slot = world.submit();
  t.is(ring.stateOf(slot), STATE.QUEUED);
  t.is(ring.inFlight, 1);
  t.is(world.lane(1).take(), slot);
  t.is(ring.stateOf(slot), STATE.RUNNING);
  t.is(ring.laneOf(slot), 1);
  t.false(ring.withdraw(slot));
  t.is(ring.inFlight, 1);
  world.complete(1, slot);
  t.is(ring.stateOf(slot), STATE.DONE);
  t.is(ring.inFlight, 1);
  t.is(ring.taken, 1);
  t.is(world.bells, 1);
  world.answerBells();
  t.deepEqual(world.collected, [slot]);
  t.is(ring.inFlight, 0);
  world.checkEnd(t, 'end');
});

test('a withdrawn request is skipped, and its slot comes back', (t) => {
  const world = new World();
  const slot = world.submit();
  const next = world.submit();

  t.true(world.ring.withdraw(slot));
  t.false(world.ring.withdraw(slot));
  t.is(world.ring.inFlight, 1);
  t.is(world.lane(0).take(), next);
  world.answerBells();
  t.deepEqual(world.collected, [slot]);
  world.complete(0, next);
  world.answerBells();
  world.checkEnd(t, 'end');
});

test('a closed ledger takes nothing more, and counts down to 0', (t) => {
  const { ring } = new World();
  t.true(ring.acquire());
  t.true(ring.acquire());
  ring.closeLedger();
  t.false(ring.acquire());
  t.is(ring.inFlight, 2);
  ring.release();
  ring.release();
  t.is(ring.inFlight, 0);
  t.throws(() => ring.release(), { name: 'AssertionError' });
});

for (const start of [2 ** 31 - 5, -5, -(2 ** 31), 2 ** 31 - 1, 0]) {
  test(`first in, first out, with counts from ${start >>> 0}`, (t) => {
    const world = new World();
    Atomics.store(world.ring.words, CONTROL.HEAD, start | 0);
    Atomics.store(world.ring.words, CONTROL.TAIL, start | 0);

    for (let round = 0; round < 20; round++) {
      const submitted = Array.from({ length: 32 }, () => world.submit());
      t.is(world.ring.takeSlot(), NO_SLOT);
      const taken = submitted.map((_, index) => world.lane(index % 2).take());
      t.deepEqual(taken, submitted);
      for (const slot of taken) world.complete(0, slot);
      world.answerBells();
    }
    world.checkEnd(t, 'end');
  });
}

test('every slot of many has its own bit', (t) => {
  const world = new World({ slots: 1024 });
  const submitted = Array.from({ length: 1024 }, () => world.submit());
  for (const slot of submitted) {
    t.is(world.lane(0).take(), slot);
    world.complete(0, slot);
    world.answerBells();
    t.is(world.collected.at(-1), slot);
  }
  world.checkEnd(t, 'end');
});

test('one doorbell for many completions', (t) => {
  const world = new World();
  for (let index = 0; index < 32; index++) world.submit();
  for (let index = 0; index < 32; index++) world.lane(0).complete(world.lane(0).take());

  t.is(world.bells, 1);
  world.answerBells();
  world.checkEnd(t, 'end');
});

// ---- Interleavings -----------------------------------------------------------------------------------

test('withdraw at each step of take: one of the two wins', (t) => {
  const outcomes = new Set<string>();
  const steps = forEachStep((at, interleave) => {
    const world = new World();
    const slot = world.submit();
    let withdrawn = false;
    const taken = interleave(
      () => world.lane(0).take(),
      () => {
        withdrawn = world.ring.withdraw(slot);
      },
    );
    t.is(taken, withdrawn || taken === NOTHING ? NOTHING : slot, `step ${at}`);
    t.is(world.ring.inFlight, withdrawn ? 0 : 1, `step ${at}`);
    outcomes.add(`withdrawn: ${withdrawn}`);
    if (taken !== NOTHING) world.complete(0, taken);
    world.finish();
    world.checkEnd(t, `step ${at}`);
  });
  t.true(steps > 5, `${steps} steps`);
  // Every step of take comes before the exchange that decides; the other outcome is the next test's.
  t.deepEqual([...outcomes], ['withdrawn: true']);
});

test('take at each step of withdraw: one of the two wins', (t) => {
  const steps = forEachStep((at, interleave) => {
    const world = new World();
    const slot = world.submit();
    let taken = NOTHING;
    const withdrawn = interleave(
      () => world.ring.withdraw(slot),
      () => {
        taken = world.lane(0).take();
      },
    );
    t.not(withdrawn, taken === slot, `step ${at}`);
    if (taken !== NOTHING) world.complete(0, taken);
    world.finish();
    world.checkEnd(t, `step ${at}`);
  });
  t.true(steps > 0);
});

for (const queued of [1, 2, 3]) {
  test(`another lane takes at each step of take, ${queued} queued`, (t) => {
    const steps = forEachStep((at, interleave) => {
      const world = new World();
      const submitted = Array.from({ length: queued }, () => world.submit());
      let other = NOTHING;
      const mine = interleave(
        () => world.lane(0).take(),
        () => {
          other = world.lane(1).take();
        },
      );
      const taken = [mine, other].filter((slot) => slot !== NOTHING);
      t.is(new Set(taken).size, taken.length, `step ${at}: not the same`);
      t.is(taken.length, Math.min(2, queued), `step ${at}: none is lost`);
      t.deepEqual(taken.toSorted(), submitted.slice(0, 2).toSorted(), `step ${at}: the oldest`);
      for (const [lane, slot] of [mine, other].entries()) {
        if (slot !== NOTHING) world.complete(lane, slot);
      }
      world.finish();
      world.checkEnd(t, `step ${at}`);
    });
    t.true(steps > 5, `${steps} steps`);
  });
}

test('the queue goes round more than once at each step of take', (t) => {
  const steps = forEachStep((at, interleave) => {
    const world = new World();
    world.submit();
    world.submit();
    const mine = interleave(
      () => world.lane(0).take(),
      () => {
        // Twice the length of the queue, always with something in it.
        for (let turn = 0; turn < 2 * (world.ring.layout.queueMask + 1); turn++) {
          world.submit();
          const slot = world.lane(1).take();
          world.complete(1, slot);
          world.answerBells();
        }
      },
    );
    t.not(mine, NOTHING, `step ${at}`);
    t.is(world.ring.stateOf(mine), STATE.RUNNING, `step ${at}`);
    world.complete(0, mine);
    world.finish();
    world.checkEnd(t, `step ${at}`);
  });
  t.true(steps > 5, `${steps} steps`);
});

for (const apart of [1, 31]) {
  test(`another lane completes at each step of collect, ${apart} slots apart`, (t) => {
    const steps = forEachStep((at, interleave) => {
      const world = new World({ slots: 64 });
      const submitted = Array.from({ length: 40 }, () => world.submit());
      for (const slot of submitted) t.is(world.lane(0).take(), slot);
      const [first, second] = [submitted[0] ?? 0, submitted[apart] ?? 0];
      world.complete(0, first);
      world.bells -= 1;
      interleave(
        () => world.collect(),
        () => {
          world.complete(1, second);
        },
      );
      // Whether it was seen or not: a doorbell is on its way, or it has been collected.
      world.answerBells();
      t.deepEqual(
        world.collected.filter((slot) => slot === first || slot === second).sort(),
        [first, second].sort(),
        `step ${at}`,
      );
    });
    t.true(steps > 3, `${steps} steps`);
  });
}

test('the host collects at each step of complete', (t) => {
  forEachStep((at, interleave) => {
    const world = new World();
    const slots = [world.submit(), world.submit()];
    for (const slot of slots) t.is(world.lane(0).take(), slot);
    const [first = 0, second = 0] = slots;
    world.complete(1, first);
    interleave(
      () => world.complete(0, second),
      () => {
        world.answerBells();
        // What can be seen to be done is not in flight any more.
        t.true(world.ring.inFlight <= 2 - world.collected.length, `step ${at}`);
      },
    );
    world.answerBells();
    world.checkEnd(t, `step ${at}`);
  });
});

const wakers: Record<string, (world: World) => void> = {
  'a request': (world) => void world.submit(),
  stop: (world) => world.ring.stop(),
  dismissal: (world) => world.ring.dismiss(0),
  mail: (world) => world.ring.announceMail(),
};
for (const [what, wake] of Object.entries(wakers)) {
  for (const watches of [false, true]) {
    test(`no wake-up is lost: ${what} at each step of ${watches ? 'watching' : 'park'}`, (t) => {
      const steps = forEachStep((at, interleave) => {
        const world = new World({ lanes: 1 });
        if (watches) {
          // A wait that ends at once makes the lane watch before it sleeps the next time.
          world.submit();
          world.lane(0).park(world.ring.mail);
          world.finish();
        }
        const waitWord = laneAt(world.ring.layout, 0) + LANE.WAIT;
        const mailRead = world.ring.mail;
        const wait = Atomics.wait;
        let asleep = false;
        // Instead of blocking: would it have slept, that is, was the word still the one it waits on?
        Atomics.wait = ((words: Int32Array, index: number, value: number) => {
          asleep = Atomics.load(words, index) === value;
          return 'not-equal';
        }) as unknown as typeof Atomics.wait;
        try {
          interleave(
            () => world.lane(0).park(mailRead),
            () => {
              wake(world);
              // One that sleeps already must be woken, which is seen by its mark.
              if (asleep) asleep = Atomics.load(world.ring.words, waitWord) === WAIT.ASLEEP;
            },
          );
        } finally {
          Atomics.wait = wait;
        }
        t.false(asleep, `step ${at}: it sleeps although there is ${what}`);
        t.is(Atomics.load(world.ring.words, waitWord), WAIT.NO);
      }, 60);
      t.true(steps >= 3, `${steps} steps`);
    });
  }
}

// ---- Which lane is woken ------------------------------------------------------------------------------

const waitOf = (world: World, lane: number) =>
  Atomics.load(world.ring.words, laneAt(world.ring.layout, lane) + LANE.WAIT);
const setWait = (world: World, lane: number, wait: number) =>
  Atomics.store(world.ring.words, laneAt(world.ring.layout, lane) + LANE.WAIT, wait);

test('a lane that watches is preferred to one that sleeps, and each is claimed once', (t) => {
  const world = new World();
  setWait(world, 0, WAIT.ASLEEP);
  setWait(world, 1, WAIT.WATCHING);
  world.submit();
  t.deepEqual([waitOf(world, 0), waitOf(world, 1)], [WAIT.ASLEEP, WAIT.NO]);
  world.submit();
  t.deepEqual([waitOf(world, 0), waitOf(world, 1)], [WAIT.NO, WAIT.NO]);
});

test('a lane that was told to leave is not claimed for work', (t) => {
  const world = new World();
  setWait(world, 0, WAIT.WATCHING);
  setWait(world, 1, WAIT.ASLEEP);
  world.ring.dismiss(0);
  world.submit();
  t.is(waitOf(world, 1), WAIT.NO);
});

for (const [how, lose] of Object.entries<(world: World) => void>({
  dismissed: (world) => world.ring.dismiss(0),
  buried: (world) => void world.ring.bury(0),
})) {
  test(`what a lane was claimed for that is then ${how} wakes another`, (t) => {
    const world = new World();
    setWait(world, 0, WAIT.WATCHING);
    setWait(world, 1, WAIT.ASLEEP);
    world.submit();
    t.is(waitOf(world, 1), WAIT.ASLEEP);
    lose(world);
    t.is(waitOf(world, 1), WAIT.NO);
  });
}

test('a limit below the number of slots is kept', (t) => {
  const ring = new RingProducer({ slots: 32, lanes: 1 }, 3);
  const slots = [ring.takeSlot(), ring.takeSlot(), ring.takeSlot()];
  t.is(new Set(slots).size, 3);
  t.is(ring.takeSlot(), NO_SLOT);
  t.is(ring.taken, 3);
  for (const slot of slots) ring.freeSlot(slot);
  t.is(ring.taken, 0);
});

// ---- Dying lanes ---------------------------------------------------------------------------------------

class Death extends Error {}

for (const withdrawn of [false, true]) {
  test(`a lane dies at each step of take${withdrawn ? ' of a withdrawn request' : ''}`, (t) => {
    const steps = forEachStep((at, interleave) => {
      const world = new World();
      const slot = world.submit();
      const next = world.submit();
      if (withdrawn) t.true(world.ring.withdraw(slot));
      let completed = false;
      try {
        interleave(
          () => world.lane(1).take(),
          () => {
            completed = world.ring.stateOf(slot) === STATE.DONE;
            throw new Death();
          },
        );
      } catch (error) {
        if (!(error instanceof Death)) throw error;
      }
      // Between completing and telling so nothing allocates, so that no thread ends there by itself.
      if (completed) return;
      world.collect();
      const died = world.ring.bury(1);
      if (died !== NO_SLOT) {
        world.collected.push(died);
        world.ring.freeSlot(died);
      }
      world.finish();
      t.deepEqual(world.collected.toSorted(), [slot, next].toSorted(), `step ${at}`);
      world.checkEnd(t, `step ${at}`);
    });
    t.true(steps > 5, `${steps} steps`);
  });
}

// ---- Any order ---------------------------------------------------------------------------------------

type Operation =
  | { type: 'submit' }
  | { type: 'take' | 'complete' | 'bury'; lane: number }
  | { type: 'withdraw'; which: number }
  | { type: 'collect' | 'guard' | 'unguard' };

const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 5, arbitrary: fc.constant({ type: 'submit' } as const) },
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constantFrom('take' as const, 'complete' as const),
      lane: fc.nat({ max: 1 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('bury' as const), lane: fc.nat(1) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('withdraw' as const), which: fc.nat() }) },
  { weight: 3, arbitrary: fc.constant({ type: 'collect' } as const) },
  { weight: 1, arbitrary: fc.constant({ type: 'guard' } as const) },
  { weight: 1, arbitrary: fc.constant({ type: 'unguard' } as const) },
);

test('any order of operations: each request comes out once, and the ledger is right', (t) => {
  fc.assert(
    fc.property(
      fc.array(operation, { maxLength: 400 }),
      fc.constantFrom(0, 2 ** 31 - 20, -20),
      (operations, start) => {
        const world = new World();
        const { ring } = world;
        Atomics.store(ring.words, CONTROL.HEAD, start | 0);
        Atomics.store(ring.words, CONTROL.TAIL, start | 0);
        const queued: number[] = [];
        const withdrawn = new Set<number>();
        const running: (number | null)[] = [null, null];
        /** Those of them that were run: still in flight until they are collected. */
        const completed = new Set<number>();
        const done = new Set<number>();
        let guards = 0;
        const out = (slot: number) => {
          if (!done.delete(slot)) throw new Error(`slot ${slot} came out and was not done`);
          completed.delete(slot);
          ring.freeSlot(slot);
        };
        for (const op of operations) {
          switch (op.type) {
            case 'submit': {
              const slot = ring.takeSlot();
              if (slot === NO_SLOT) break;
              if (ring.stateOf(slot) !== STATE.FREE) throw new Error(`slot ${slot} was not free`);
              ring.acquire();
              ring.submit(slot, Number.POSITIVE_INFINITY);
              queued.push(slot);
              break;
            }
            case 'take': {
              if (running[op.lane] !== null) break;
              const slot = world.lane(op.lane).take();
              // Withdrawn ones are passed over on the way.
              while (queued.length > 0 && withdrawn.has(queued[0] ?? NOTHING)) {
                const skipped = queued.shift() ?? NOTHING;
                withdrawn.delete(skipped);
                done.add(skipped);
              }
              const expected = queued.shift() ?? NOTHING;
              if (slot !== expected) throw new Error(`took ${slot}, expected ${expected}`);
              if (slot !== NOTHING) running[op.lane] = slot;
              break;
            }
            case 'complete': {
              const slot = running[op.lane];
              if (slot === null || slot === undefined) break;
              world.complete(op.lane, slot);
              running[op.lane] = null;
              done.add(slot);
              completed.add(slot);
              break;
            }
            case 'bury': {
              ring.collect(out);
              const slot = ring.bury(op.lane);
              if (slot !== (running[op.lane] ?? NO_SLOT)) throw new Error(`buried ${slot}`);
              running[op.lane] = null;
              if (slot !== NO_SLOT) ring.freeSlot(slot);
              break;
            }
            case 'withdraw': {
              const all = [...queued, ...running.filter((slot) => slot !== null), ...done];
              const slot = all[op.which % Math.max(1, all.length)];
              if (slot === undefined) break;
              const may = queued.includes(slot) && !withdrawn.has(slot);
              if (ring.withdraw(slot) !== may) throw new Error(`withdraw ${slot} was not ${may}`);
              if (may) withdrawn.add(slot);
              break;
            }
            case 'collect':
              ring.collect(out);
              if (done.size > 0) throw new Error(`not collected: ${[...done]}`);
              break;
            case 'guard':
              if (ring.acquire()) guards++;
              break;
            case 'unguard':
              if (guards > 0) {
                ring.release();
                guards--;
              }
          }
          const runs = running.filter((slot) => slot !== null).length;
          const live = queued.length - withdrawn.size + runs + completed.size;
          if (ring.inFlight !== live + guards) {
            throw new Error(`in flight ${ring.inFlight}, expected ${live + guards}`);
          }
        }
        for (const [lane, slot] of running.entries()) {
          if (slot !== null) world.complete(lane, slot);
        }
        for (let slot = world.lane(0).take(); slot !== NOTHING; slot = world.lane(0).take()) {
          world.complete(0, slot);
        }
        ring.collect((slot) => ring.freeSlot(slot));
        if (ring.taken > 0) throw new Error('a slot is lost');
        if (ring.inFlight !== guards) throw new Error(`in flight ${ring.inFlight} at the end`);
      },
    ),
    { numRuns: 500 },
  );
  t.pass();
});
