/** What can be sent, what is a mistake, and when bytes are read where they are. */
import { runInNewContext } from 'node:vm';
import test from 'ava';
import type { HandlerError } from '../src/errors.js';
import { RegionTable } from '../src/regions.js';
import { detachRequest, encodeRequest, writeRequest } from '../src/request.js';
import { SLOT, slotAt } from '../src/ring/layout.js';
import { RingProducer } from '../src/ring/producer.js';

const LIMIT = 1024 * 1024;
const INVALID = { code: 'ERR_HANDLER_INVALID_REQUEST' };

test('an ArrayBuffer of another realm is bytes', (t) => {
  const foreign = runInNewContext('new Uint8Array([1, 2, 3]).buffer') as ArrayBuffer;
  t.false(foreign instanceof ArrayBuffer);
  t.deepEqual([...(encodeRequest({}, foreign, LIMIT).body as Uint8Array)], [1, 2, 3]);
});

test('a promise is no request: somebody forgot to await it', (t) => {
  t.throws(() => encodeRequest({}, Promise.resolve('x'), LIMIT), INVALID);
});

for (const [what, context] of Object.entries({
  bytes: new Uint8Array(1),
  'a string': 'r-1',
  null: null,
  'an array': [],
  'a number': 7,
})) {
  test(`a context that is ${what} is refused`, (t) => {
    t.throws(() => encodeRequest(context as never, 'x', LIMIT), INVALID);
  });
}

test('what a toJSON or a getter takes away is not sent', (t) => {
  let body = new Uint8Array(8);
  const take = () => structuredClone(body.buffer, { transfer: [body.buffer] }).byteLength;
  for (const context of [
    { metadata: { toJSON: take } },
    {
      get requestId() {
        return String(take());
      },
    },
  ]) {
    // What has been taken cannot be taken again; newer Nodes throw.
    body = new Uint8Array(8).fill(7);
    const encoded = encodeRequest(context, body, LIMIT);
    t.is(encoded.byteLength, 0);
    t.is((encoded.body as Uint8Array).byteLength, 0);
  }
});

test('an id with a NUL would be another one to a handler in C', (t) => {
  t.throws(() => encodeRequest({ requestId: 'a\0b' }, 'x', LIMIT), INVALID);
});

test('metadata that is no JSON, or too much of it', (t) => {
  const circular: { self?: object } = {};
  circular.self = circular;
  const thrower = {
    toJSON() {
      throw new Error('no');
    },
  };
  for (const metadata of [circular, thrower, 1n, () => 1, Symbol('s')]) {
    t.throws(() => encodeRequest({ metadata }, 'x', LIMIT), INVALID);
  }
  const tooLarge = { code: 'ERR_HANDLER_PAYLOAD_TOO_LARGE' };
  t.throws(() => encodeRequest({ metadata: 'x'.repeat(4087) }, 'x', LIMIT), tooLarge);
  let deep: unknown = null;
  for (let level = 0; level < 100_000; level++) deep = [deep];
  // The JSON of newer Nodes is not limited by the stack.
  const { code } = t.throws(() => encodeRequest({ metadata: deep }, 'x', LIMIT)) as HandlerError;
  t.true([INVALID.code, tooLarge.code].includes(code), code);
  const polluting = JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1}');
  t.is(encodeRequest({ metadata: polluting }, 'x', LIMIT).metadata, JSON.stringify(polluting));
  t.is(({} as { polluted?: boolean }).polluted, undefined);
});

test('lone surrogates are measured as they are written', (t) => {
  const requestId = '\ud800a\udfff';
  const encoded = encodeRequest({ requestId, metadata: { [requestId]: 1 } }, requestId, LIMIT);
  t.is(encoded.requestIdLength, Buffer.from(requestId).length);
  t.is(encoded.metadataLength, Buffer.from(encoded.metadata).length);
  t.is(encoded.byteLength, Buffer.from(requestId).length);
});

function write(body: Uint8Array): { region: number; offset: number } {
  const ring = new RingProducer({ slots: 32, lanes: 1 });
  const room = Buffer.from(ring.memory, 0, ring.layout.totalBytes);
  const slot = ring.takeSlot();
  const regions = new RegionTable(() => undefined);
  const region = writeRequest(ring, room, regions, slot, encodeRequest({}, body, LIMIT));
  const offset = ring.words[slotAt(ring.layout, slot) + SLOT.REQUEST_OFFSET] ?? -1;
  return { region, offset };
}

test('shared bytes are read where they are if they are aligned, and copied if not', (t) => {
  const memory = new SharedArrayBuffer(64);
  t.deepEqual(write(new Uint8Array(memory, 8, 8)), { region: 1, offset: 8 });
  t.deepEqual(write(new Uint8Array(memory, 9, 8)), { region: 0, offset: 0 });
});

test('nothing at all needs no region, whatever memory it is a view of', (t) => {
  t.is(write(new Uint8Array(new SharedArrayBuffer(0))).region, 0);
  t.is(write(new Uint8Array(new SharedArrayBuffer(64), 8, 0)).region, 0);
});

test('a request that has to wait has bytes of its own, unless they are shared', (t) => {
  const own = Uint8Array.of(1, 2, 3);
  const waiting = detachRequest(encodeRequest({}, own, LIMIT));
  own.fill(0);
  t.deepEqual([...(waiting.body as Uint8Array)], [1, 2, 3]);
  const shared = new Uint8Array(new SharedArrayBuffer(8));
  t.is(detachRequest(encodeRequest({}, shared, LIMIT)).body, shared);
});
