/** The dispatcher with a lane that the test plays itself, in the same thread: every moment is the test's. */
import test, { type ExecutionContext } from 'ava';
import { Dispatcher } from '../src/dispatcher.js';
import { KeepAlive } from '../src/keep-alive.js';
import { type EndpointOptions, resolveEndpointOptions } from '../src/options.js';
import { RegionBudget, RegionTable } from '../src/regions.js';
import { laneExited } from '../src/request-errors.js';
import { NOTHING, RingConsumer } from '../src/ring/consumer.js';
import {
  ROOM_BYTES,
  requestRoomAt,
  SLOT,
  SLOT_DOUBLE,
  STATUS,
  slotAt,
  slotDoubleAt,
} from '../src/ring/layout.js';
import { NO_PLACE, Outbox, PLACE_BYTES, reserveOutbox } from '../src/ring/outbox.js';
import { RingProducer } from '../src/ring/producer.js';
import { failure, rejection } from './support/outcomes.js';

const LARGE_BYTES = 10_000;

function scene(
  t: ExecutionContext,
  more: EndpointOptions = {},
  budget = new RegionBudget(2 ** 28),
) {
  const shape = { slots: 32, lanes: 1 };
  const ring = new RingProducer(shape);
  const lane = new RingConsumer(ring.memory, shape, 0, () => undefined);
  const regionsSeen = new Map<number, SharedArrayBuffer>();
  const regions = new RegionTable((message) => {
    if (message.type === 'region') regionsSeen.set(message.region.id, message.region.memory);
    else if (message.type === 'forget') regionsSeen.delete(message.id);
  }, budget);
  const outbox = new Outbox(reserveOutbox());
  const dispatcher = new Dispatcher({
    identity: { endpoint: 'it', version: 1 },
    options: resolveEndpointOptions({ maxInFlight: 32, cancelGraceMs: 60_000, ...more }),
    ring,
    regions,
    keepAlive: new KeepAlive(),
    hooks: {
      timedOut: () => undefined,
      abandoned: () => undefined,
      shed: () => undefined,
      callStuck: () => undefined,
      callReturned: () => undefined,
      handlerAnswered: () => undefined,
      takePosted: () => new ArrayBuffer(0),
      recycle: () => undefined,
      outboxOf: () => outbox,
      requestLeft: () => undefined,
    },
  });
  t.teardown(() => dispatcher.dispose());
  const execute = (request: Uint8Array, signal?: AbortSignal) =>
    dispatcher.execute(undefined, request, Number.POSITIVE_INFINITY, signal);
  /** The first byte of the request that a running slot has, as its handler sees it now. */
  const firstByte = (slot: number): number | undefined => {
    const region = ring.words[slotAt(ring.layout, slot) + SLOT.REGION] ?? 0;
    if (region === 0) return ring.bytes[requestRoomAt(ring.layout, slot)];
    const memory = regionsSeen.get(region);
    return memory === undefined ? undefined : new Uint8Array(memory)[0];
  };
  /** The lane answers with nothing. */
  const answer = (slot: number, status: number = STATUS.OK) => {
    ring.words[slotAt(ring.layout, slot) + SLOT.STATUS] = status;
    ring.doubles[slotDoubleAt(ring.layout, slot) + SLOT_DOUBLE.RESPONSE_LENGTH] = 0;
    lane.complete(slot);
    dispatcher.collect();
  };
  /** The lane answers with so many bytes of this value, in its outbox. */
  const answerLarge = (slot: number, value: number, length: number) => {
    const place = outbox.take();
    outbox.bytes.fill(value, outbox.at(place), outbox.at(place) + length);
    ring.words[slotAt(ring.layout, slot) + SLOT.OUTBOX_PLACE] = place;
    ring.words[slotAt(ring.layout, slot) + SLOT.STATUS] = STATUS.OK_IN_OUTBOX;
    ring.doubles[slotDoubleAt(ring.layout, slot) + SLOT_DOUBLE.RESPONSE_LENGTH] = length;
    lane.complete(slot);
    return place;
  };
  return { ring, lane, outbox, dispatcher, execute, firstByte, answer, answerLarge };
}

const filled = (value: number, length = LARGE_BYTES) => new Uint8Array(length).fill(value);

for (const length of [8, LARGE_BYTES]) {
  test(`a request of ${length} bytes keeps its memory until its call returns, answered or not`, async (t) => {
    const { lane, execute, firstByte, answer, ring } = scene(t);
    const controller = new AbortController();
    const given = rejection(execute(filled(1, length), controller.signal));
    const running = lane.take();
    t.is(firstByte(running), 1);

    controller.abort('given up');
    t.is(await given, 'given up');
    t.is(ring.inFlight, 1);
    const others = Array.from({ length: 5 }, (_, index) => execute(filled(10 + index, length)));

    t.is(firstByte(running), 1);
    answer(running);
    for (let index = 0; index < others.length; index++) {
      const slot = lane.take();
      t.is(firstByte(slot), 10 + index);
      answer(slot);
    }
    await Promise.all(others);
    t.is(ring.inFlight, 0);
    t.is(ring.taken, 0);
  });
}

test('a response in the outbox is copied out, and its place is free again', async (t) => {
  const { lane, dispatcher, execute, answerLarge } = scene(t);
  for (const [value, length] of [
    [1, LARGE_BYTES],
    [2, PLACE_BYTES],
    [3, ROOM_BYTES + 1],
  ] as const) {
    const response = execute(filled(0, 8));
    const place = answerLarge(lane.take(), value, length);
    dispatcher.collect();
    const { bytes } = await response;
    t.is(place, 0, 'the one before has been freed');
    t.is(bytes.length, length);
    t.is(bytes.buffer.byteLength, length, 'a buffer of its own');
    t.true(bytes.every((byte) => byte === value));
  }
});

test('also if nobody waits for it any more', async (t) => {
  const { lane, dispatcher, execute, answerLarge, ring } = scene(t);
  const controller = new AbortController();
  const given = rejection(execute(filled(1, 8), controller.signal));
  const slot = lane.take();
  controller.abort('given up');
  t.is(await given, 'given up');
  answerLarge(slot, 1, LARGE_BYTES);
  dispatcher.collect();
  t.is(ring.taken, 0);

  const response = execute(filled(1, 8));
  t.is(answerLarge(lane.take(), 2, LARGE_BYTES), 0);
  dispatcher.collect();
  t.is((await response).bytes[LARGE_BYTES - 1], 2);
});

test('an outbox has an end, and places are taken once', (t) => {
  const { outbox } = scene(t);
  const places = new Set<number>();
  for (let place = outbox.take(); place !== NO_PLACE; place = outbox.take()) places.add(place);
  t.is(outbox.take(), NO_PLACE);
  t.is(Math.max(...places), places.size - 1);
  t.true(outbox.at(places.size) <= outbox.bytes.length);
  outbox.free(2);
  t.is(outbox.take(), 2);
});

test('a withdrawn request keeps its slot until a lane has passed over it', async (t) => {
  const { lane, execute, ring, dispatcher } = scene(t);
  const controller = new AbortController();
  const given = rejection(execute(filled(1), controller.signal));
  controller.abort('given up');
  t.is(await given, 'given up');
  t.is(ring.inFlight, 0);
  t.is(ring.taken, 1);
  t.true(dispatcher.idle);

  t.is(lane.take(), NOTHING);
  dispatcher.collect();

  t.is(ring.taken, 0);
});

test('an abort that comes after the lane has completed does not take the response away', async (t) => {
  const { lane, execute, ring } = scene(t);
  const controller = new AbortController();
  const response = execute(filled(1, 8), controller.signal);
  const slot = lane.take();
  ring.words[slotAt(ring.layout, slot) + SLOT.STATUS] = STATUS.OK;
  ring.doubles[slotDoubleAt(ring.layout, slot) + SLOT_DOUBLE.RESPONSE_LENGTH] = 0;
  lane.complete(slot);

  controller.abort('too late');

  t.is((await response).bytes.length, 0);
  t.is(ring.taken, 0);
});

test('a response that was completed before its deadline wins over the timer', async (t) => {
  const { lane, dispatcher, ring } = scene(t);
  const response = dispatcher.execute(undefined, filled(1, 8), 5, undefined);
  const slot = lane.take();
  ring.words[slotAt(ring.layout, slot) + SLOT.STATUS] = STATUS.OK;
  ring.doubles[slotDoubleAt(ring.layout, slot) + SLOT_DOUBLE.RESPONSE_LENGTH] = 0;
  // No doorbell reaches the dispatcher: only its alarm makes it look. Timers are not refed.
  const hold = setInterval(() => undefined, 1000);
  t.teardown(() => clearInterval(hold));
  lane.complete(slot);

  t.is((await response).bytes.length, 0);
  t.is(dispatcher.totals.timedOutRunning, 0);
});

test('the request of a lane that died is answered, and its slot is free', async (t) => {
  const { lane, execute, ring, dispatcher } = scene(t);
  const outcome = failure(execute(filled(1)), 'endpoint', 'version');
  const slot = lane.take();

  dispatcher.collect();
  t.is(ring.bury(0), slot);
  const identity = { endpoint: 'it', version: 1 };
  dispatcher.buried(slot, () => laneExited(identity, new Error('heap'), null));

  t.deepEqual(await outcome, { code: 'ERR_HANDLER_LANE_EXITED', endpoint: 'it', version: 1 });
  t.is(ring.inFlight, 0);
  t.is(ring.taken, 0);
  t.is(dispatcher.totals.laneExited, 1);
});

/** A signal of a class that Node does not know, as polyfills and test environments have them. */
class ForeignSignal {
  aborted = false;
  reason: unknown;
  readonly listeners = new Set<() => void>();

  addEventListener(_type: string, listener: () => void): void {
    this.listeners.add(listener);
  }

  removeEventListener(_type: string, listener: () => void): void {
    this.listeners.delete(listener);
  }

  abort(reason: unknown): void {
    this.aborted = true;
    this.reason = reason;
    const listeners = [...this.listeners];
    this.listeners.clear();
    for (const listener of listeners) listener();
  }
}

const asSignal = (signal: ForeignSignal): AbortSignal => signal as unknown as AbortSignal;

test("a signal of another class works as Node's own", async (t) => {
  const { dispatcher, execute, lane, answer } = scene(t);
  const signal = new ForeignSignal();
  const aborted = rejection(execute(new Uint8Array(8), asSignal(signal)));
  const reason = new Error('enough');
  signal.abort(reason);
  t.is(await aborted, reason);
  t.is(signal.listeners.size, 0);
  const other = new ForeignSignal();
  const answered = execute(new Uint8Array(8), asSignal(other));
  t.not(lane.take(), NOTHING, 'the request that was withdrawn is passed over');
  answer(1);
  t.is((await answered).bytes.byteLength, 0);
  t.is(other.listeners.size, 0);
  t.true(dispatcher.idle);
});

for (const [when, misbehave] of Object.entries({
  'throws when it is listened to': (signal: ForeignSignal) => {
    signal.addEventListener = () => {
      throw new Error('no listeners here');
    };
  },
  'throws when it is asked a second time': (signal: ForeignSignal) => {
    let asked = 0;
    Object.defineProperty(signal, 'aborted', {
      get: () => {
        asked += 1;
        if (asked > 1) throw new Error('asked too often');
        return false;
      },
    });
  },
})) {
  test(`a signal that ${when} leaves nothing behind`, async (t) => {
    const { dispatcher, execute, ring } = scene(t);
    const signal = new ForeignSignal();
    misbehave(signal);
    t.true((await rejection(execute(new Uint8Array(8), asSignal(signal)))) instanceof Error);
    t.is(ring.inFlight, 0);
    t.true(dispatcher.idle);
  });
}

test('a signal that takes the bytes away when it is listened to', async (t) => {
  const { dispatcher, execute, ring } = scene(t);
  const body = new Uint8Array(8);
  const signal = new ForeignSignal();
  signal.addEventListener = (_type, listener) => {
    signal.listeners.add(listener);
    structuredClone(body.buffer, { transfer: [body.buffer] });
  };
  t.deepEqual(await failure(execute(body, asSignal(signal))), {
    code: 'ERR_HANDLER_INVALID_REQUEST',
  });
  t.is(signal.listeners.size, 0);
  t.is(ring.inFlight, 0);
  t.true(dispatcher.idle);
});

test('a signal that fires while it is listened to, or from within a request of its own', async (t) => {
  const { dispatcher, execute, ring } = scene(t);
  const signal = new ForeignSignal();
  signal.addEventListener = (_type, listener) => {
    signal.listeners.add(listener);
    signal.abort('at once');
  };
  t.is(await rejection(execute(new Uint8Array(8), asSignal(signal))), 'at once');
  t.is(signal.listeners.size, 0);
  t.is(ring.inFlight, 0);
  t.true(dispatcher.idle);
});

test('a request that waits keeps the length that it had, though its buffer grows', async (t) => {
  const { dispatcher, execute, ring, lane, answer } = scene(t);
  const slots = ring.layout.slots;
  const filling = Array.from({ length: slots }, () => execute(new Uint8Array(8)));
  const buffer = new SharedArrayBuffer(8, { maxByteLength: 1 << 20 });
  const waiting = execute(new Uint8Array(buffer, 4));
  buffer.grow(1 << 20);
  const first = lane.take();
  answer(first);
  const lengths = ring.words[slotAt(ring.layout, first) + SLOT.REQUEST_LENGTH];
  t.is(lengths, 4);
  for (let slot = lane.take(); slot !== NOTHING; slot = lane.take()) answer(slot);
  await Promise.all([...filling, waiting]);
  t.true(dispatcher.idle);
});

test('what waits is limited in bytes, but for one request and for shared memory', async (t) => {
  const { dispatcher, execute, ring, lane, answer } = scene(t, { maxQueueBytes: 1000 });
  const filling = Array.from({ length: ring.layout.slots }, () => execute(new Uint8Array(8)));
  const full = { code: 'ERR_HANDLER_QUEUE_FULL', limit: 'maxQueueBytes' };
  const outcomes: Promise<unknown>[] = [];
  const waits = (request: Uint8Array, signal?: AbortSignal) =>
    void outcomes.push(execute(request, signal).catch((reason: unknown) => reason));

  const giveUp = new AbortController();
  waits(new Uint8Array(5000), giveUp.signal);
  t.deepEqual(await failure(execute(new Uint8Array(1)), 'limit'), full, 'one may always wait');
  waits(new Uint8Array(new SharedArrayBuffer(50_000)));
  giveUp.abort('given up');
  t.is(await outcomes[0], 'given up');
  waits(new Uint8Array(600));
  waits(new Uint8Array(400));
  t.deepEqual(await failure(execute(new Uint8Array(1)), 'limit'), full);
  answer(lane.take());
  t.deepEqual(await failure(execute(new Uint8Array(1)), 'limit'), full, 'the shared one has left');
  answer(lane.take());
  waits(new Uint8Array(600));
  t.deepEqual(await failure(execute(new Uint8Array(1)), 'limit'), full);
  for (let slot = lane.take(); slot !== NOTHING; slot = lane.take()) answer(slot);
  await Promise.all([...filling, ...outcomes]);
  t.true(dispatcher.idle);
});
