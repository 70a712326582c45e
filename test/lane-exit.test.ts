/** Lanes whose thread ends by itself: what the ring makes of it, and what the callers get. */
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { fixture } from '../fixtures/paths.js';
import { RingConsumer } from '../src/ring/consumer.js';
import {
  CONTROL,
  holdersIn,
  LANE,
  LIBRARY,
  laneAt,
  libraryIn,
  libraryWord,
  SLOT,
  STATE,
  slotAt,
  stateOn,
} from '../src/ring/layout.js';
import { reserveOutbox } from '../src/ring/outbox.js';
import { NO_SLOT, RingProducer } from '../src/ring/producer.js';
import { scratch } from './support/files.js';
import { failure } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { activeOf, activeStats, openRegistry } from './support/registry.js';

const shape = { slots: 32, lanes: 2 };
/** Node starts, and koffi does not fit. */
const TINY = { maxOldGenerationSizeMb: 4, maxYoungGenerationSizeMb: 1 };

// ---- The ring's part ---------------------------------------------------------------------------------

function makeRing() {
  const ring = new RingProducer(shape);
  const lanes = [0, 1].map((lane) => new RingConsumer(ring.memory, shape, lane, () => undefined));
  const [dead, other] = lanes as [RingConsumer, RingConsumer];
  const submit = () => {
    const slot = ring.takeSlot();
    ring.acquire();
    ring.submit(slot, Number.POSITIVE_INFINITY);
    return slot;
  };
  /** Lane 0 has noted that it is about to take this slot. */
  const note = (slot: number) => {
    Atomics.store(ring.words, laneAt(ring.layout, 0) + LANE.SLOT, slot + 1);
  };
  /** Moves the head as a lane does that dies before it has changed the slot's state. */
  const loseHead = () => void Atomics.add(ring.words, CONTROL.HEAD, 1);
  return { ring, dead, other, submit, note, loseHead };
}

test('a lane without a request', (t) => {
  const { ring, submit, other } = makeRing();
  t.is(ring.bury(0), NO_SLOT);
  const slot = submit();
  t.is(ring.bury(0), NO_SLOT);
  t.is(other.take(), slot);
});

test('a queued request that was lost from the queue is queued again', (t) => {
  const { ring, submit, note, loseHead, other } = makeRing();
  const slot = submit();
  note(slot);
  loseHead();
  t.is(other.take(), -1);

  t.is(ring.bury(0), NO_SLOT);

  t.is(ring.inFlight, 1);
  t.is(other.take(), slot);
  t.is(other.take(), -1);
});

test('a queued request that is still in the queue is not queued twice', (t) => {
  const { ring, submit, note, other } = makeRing();
  const slot = submit();
  note(slot);

  t.is(ring.bury(0), NO_SLOT);

  const tail = Atomics.load(ring.words, CONTROL.TAIL);
  t.is(tail, 1);
  t.is(other.take(), slot);
  t.is(other.take(), -1);
});

test('a withdrawn request that was lost from the queue still gives its slot back', (t) => {
  const { ring, submit, note, loseHead, other } = makeRing();
  const slot = submit();
  note(slot);
  loseHead();
  t.true(ring.withdraw(slot));

  t.is(ring.bury(0), NO_SLOT);

  t.is(ring.inFlight, 0);
  t.is(other.take(), -1);
  const collected: number[] = [];
  ring.collect((done) => void collected.push(done));
  t.deepEqual(collected, [slot]);
});

test('a running request dies with its lane: no longer in flight, and handed back', (t) => {
  const { ring, submit, dead } = makeRing();
  const slot = submit();
  t.is(dead.take(), slot);

  t.is(ring.bury(0), slot);

  t.is(ring.inFlight, 0);
  t.is(ring.stateOf(slot), STATE.RUNNING);
  t.is(ring.bury(0), NO_SLOT);
  ring.collect(() => t.fail('it is the caller of bury who settles it'));
  ring.freeSlot(slot);
  t.is(ring.taken, 0);
});

test('a request that another lane runs is not touched', (t) => {
  const { ring, submit, note, other } = makeRing();
  const slot = submit();
  note(slot);
  t.is(other.take(), slot);

  t.is(ring.bury(0), NO_SLOT);

  t.is(ring.inFlight, 1);
  t.is(ring.stateOf(slot), STATE.RUNNING);
});

test('a request that is done is not touched', (t) => {
  const { ring, submit, note, dead } = makeRing();
  const slot = submit();
  t.is(dead.take(), slot);
  dead.complete(slot);
  note(slot);

  t.is(ring.bury(0), NO_SLOT);

  const collected: number[] = [];
  ring.collect((done) => void collected.push(done));
  t.deepEqual(collected, [slot]);
  t.is(ring.inFlight, 0);
});

test('a lane that dies before it can say what it has completed', (t) => {
  const { ring, submit, dead } = makeRing();
  const slot = submit();
  t.is(dead.take(), slot);
  const collected: number[] = [];
  const collect = () => ring.collect((done) => void collected.push(done));
  // All that `complete` does first.
  Atomics.store(ring.words, slotAt(ring.layout, slot) + SLOT.STATE, stateOn(0, STATE.DONE));
  collect();
  t.deepEqual(collected, []);

  t.is(ring.bury(0), NO_SLOT);
  collect();

  t.deepEqual(collected, [slot]);
  t.is(ring.inFlight, 0);
});

test('a lane that dies in handler_init does not leave the others waiting', (t) => {
  const { ring, other } = makeRing();
  other.hold();
  Atomics.store(ring.words, CONTROL.LIBRARY, libraryWord(LIBRARY.INITIALISING, 0, 1));

  ring.bury(0);

  t.false(other.initialiseOnce(() => true));
});

test('the library of dead lanes is new to the next one, unless someone holds it still', (t) => {
  const { ring, dead, other } = makeRing();
  dead.hold();
  other.hold();
  t.true(dead.initialiseOnce(() => true));
  ring.bury(0);
  t.is(Atomics.load(ring.words, CONTROL.LIBRARY), libraryWord(LIBRARY.READY, 0, 1));
  ring.bury(1);
  t.is(Atomics.load(ring.words, CONTROL.LIBRARY), LIBRARY.NEW);
});

test('the last to let go shuts the library down, once', (t) => {
  const { dead, other } = makeRing();
  dead.hold();
  other.hold();
  dead.initialiseOnce(() => true);
  t.false(other.letGo());
  t.true(dead.letGo());
});

test('what a dead lane was doing to the library is over, what another does is not', (t) => {
  const { ring, other } = makeRing();
  const word = () => Atomics.load(ring.words, CONTROL.LIBRARY);
  const busy = (state: number, actor: number) => {
    Atomics.store(ring.words, CONTROL.LIBRARY, libraryWord(state, actor, 1));
    ring.bury(0);
    return word();
  };
  other.hold();
  t.is(busy(LIBRARY.CLOSING, 1), libraryWord(LIBRARY.CLOSING, 1, 1));
  t.is(busy(LIBRARY.INITIALISING, 1), libraryWord(LIBRARY.INITIALISING, 1, 1));
  t.is(libraryIn(busy(LIBRARY.INITIALISING, 0)), LIBRARY.REFUSED);
  t.is(libraryIn(busy(LIBRARY.CLOSING, 0)), LIBRARY.NEW);
  t.is(holdersIn(word()), 1);
});

// ---- The registry's part -------------------------------------------------------------------------------

test('a version whose lanes cannot start is refused, with nothing left of it', async (t) => {
  const cacheDir = await scratch(t);
  const { registry } = await openRegistry(t, { cacheDir, threads: 2 });
  await registry.loadFrom('it', fixture('echo'));
  const before = activeOf(registry, 'it');
  const had = await readdir(cacheDir, { recursive: true });
  const failed: unknown[] = [];
  registry.on('loadFailed', ({ version }) => void failed.push(version));

  const outcome = await failure(
    // With time enough to undo everything: a busy machine takes long to end threads.
    registry.swap('it', fixture('echo'), { resourceLimits: TINY, cancelGraceMs: 60_000 }),
    'endpoint',
    'version',
    'path',
  );

  t.deepEqual(outcome, {
    code: 'ERR_HANDLER_LOAD_FAILED',
    endpoint: 'it',
    version: 2,
    path: fixture('echo'),
  });
  t.deepEqual(failed, [2]);
  t.is(registry.get('it'), before);
  t.is((await registry.execute('it', {}, 'still here')).text(), 'still here');
  t.deepEqual(await readdir(cacheDir, { recursive: true }), had);
});

test('the first load too, and the id can be loaded afterwards', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 60_000 });

  const outcome = await failure(registry.load('echo', { resourceLimits: TINY }));

  t.is(outcome['code'], 'ERR_HANDLER_LOAD_FAILED');
  t.false(registry.isLoaded('echo'));
  t.deepEqual(registry.stats().endpoints, []);
  await registry.load('echo', { resourceLimits: {} });
  t.is((await registry.execute('echo', {}, 'x')).text(), 'x');
});

/**
 * Each shared buffer that a request brings is remembered by the lane, on its heap: many of them bring it to its
 * limit. In a process of its own, since V8 may end the whole process there.
 * With half of that limit, a lane on Node 24 has not even room to load anything, once in ten times.
 */
const flood = `
  import { HandlerRegistry } from ${JSON.stringify(new URL('../src/index.js', import.meta.url).href)};
  const [path, cacheDir] = process.argv.slice(-2);
  const registry = new HandlerRegistry({ cacheDir, threads: 1, maxQueue: 2000, cleanupIntervalMs: 0, loadTimeoutMs: 60_000 });
  const exits = [];
  registry.on('laneExited', ({ lane, error }) => exits.push([lane, error.code]));
  const limits = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 1 };
  await registry.loadFrom('it', path, { resourceLimits: limits, defaultTimeoutMs: Infinity });
  const codes = {};
  const count = (code) => { codes[code] = (codes[code] ?? 0) + 1; };
  const kept = [];
  const lost = () => codes.ERR_HANDLER_LANE_EXITED ?? 0;
  const untilExit = new Promise((resolve) => registry.once('laneExited', resolve));
  for (let batch = 0; batch < 200 && exits.length === 0; batch++) {
    const answers = [];
    for (let index = 0; index < 500; index++) {
      const buffer = new Uint8Array(new SharedArrayBuffer(8));
      kept.push(buffer);
      answers.push(registry.execute('it', {}, buffer).then(() => count('ok'), (e) => count(e.code)));
    }
    await Promise.race([Promise.all(answers), untilExit]);
  }
  // Its successors are given the same buffers and end the same way: this process has said what it had to say.
  console.log(JSON.stringify({ exits: exits.slice(0, 1), lost: lost() }));
  process.kill(process.pid, 'SIGKILL');
`;

test('a lane at its heap limit ends alone: one request is told so, the rest is not lost', async (t) => {
  const cacheDir = await scratch(t);
  const args = ['--input-type=module', '-e', flood, fixture('echo'), cacheDir];

  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, {
    timeout: 110_000,
  }).catch((error: { stdout: string; stderr: string }) => error);

  t.not(stdout, '', stderr);
  const said = JSON.parse(stdout) as { exits: [number, string][]; lost: number };
  t.deepEqual(said.exits, [[0, 'ERR_WORKER_OUT_OF_MEMORY']]);
  t.true(said.lost <= 1, `${said.lost} requests were lost`);
});

// ---- A lane for which there is no memory -------------------------------------------------------------

/** Has the next `count` outboxes fail as they do when the address space is used up. */
function withoutOutboxes(t: ExecutionContext, count: number): void {
  const { SharedArrayBuffer: Real } = globalThis;
  const bytes = reserveOutbox().byteLength;
  let left = count;
  globalThis.SharedArrayBuffer = new Proxy(Real, {
    construct: (target, given, newTarget) => {
      if (given[0] === bytes && left > 0) {
        left -= 1;
        throw new RangeError('Array buffer allocation failed');
      }
      return Reflect.construct(target, given, newTarget);
    },
  });
  t.teardown(() => {
    globalThis.SharedArrayBuffer = Real;
  });
}

test.serial('a lane for which there is no memory fails the load', async (t) => {
  const { registry } = await openRegistry(t);
  withoutOutboxes(t, 1);
  t.deepEqual(await failure(registry.load('echo')), { code: 'ERR_HANDLER_LOAD_FAILED' });
  await registry.load('echo');
  t.is((await registry.execute('echo', {}, 'here')).text(), 'here');
});

test.serial('a replacement for which there is no memory is tried again', async (t) => {
  const { registry } = await openRegistry(t, { isolation: 'process' });
  await registry.load('echo');
  const [pid] = activeStats(registry, 'echo').processIds;
  withoutOutboxes(t, 1);
  process.kill(pid as number, 'SIGKILL');
  await eventually(
    () => activeStats(registry, 'echo').processIds,
    (pids) => pids.length === 1 && pids[0] !== pid,
    'another process serves',
  );
  t.is((await registry.execute('echo', {}, 'here')).text(), 'here');
});
