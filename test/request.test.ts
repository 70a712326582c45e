/** What can be sent, what is a mistake, and when bytes are read where they are. */
import { Readable } from 'node:stream';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import type { HandlerError } from '../src/errors.js';
import { RegionBudget, RegionTable } from '../src/regions.js';
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
  'what belongs to the options': { signal: AbortSignal.abort() },
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
    t.throws(() => encodeRequest(context, body, LIMIT), INVALID);
  }
});

const shrunk = () => {
  const buffer = new ArrayBuffer(64, { maxByteLength: 64 });
  return { buffer, shrink: () => buffer.resize(4) };
};
const views: readonly (new (
  buffer: ArrayBuffer,
  byteOffset?: number,
  length?: number,
) => ArrayBufferView)[] = [Uint8Array, Int32Array, Float64Array, BigInt64Array, DataView];

for (const View of views) {
  test(`a ${View.name} whose bytes are gone is refused, and an empty one is not`, (t) => {
    const detached = new View(new ArrayBuffer(64));
    structuredClone(detached.buffer, { transfer: [detached.buffer as ArrayBuffer] });
    t.throws(() => encodeRequest({}, detached, LIMIT), INVALID);
    const { buffer, shrink } = shrunk();
    const outside = new View(buffer, 8, 2);
    t.true(encodeRequest({}, outside, LIMIT).byteLength > 0);
    shrink();
    t.throws(() => encodeRequest({}, outside, LIMIT), INVALID);
    t.is(encodeRequest({}, new View(new ArrayBuffer(0)), LIMIT).byteLength, 0);
  });
}

test('a buffer that was transferred is refused', (t) => {
  const buffer = new ArrayBuffer(8);
  structuredClone(buffer, { transfer: [buffer] });
  t.throws(() => encodeRequest({}, buffer, LIMIT), INVALID);
});

test('a view that grows with its buffer has the length that it had at the call', (t) => {
  for (const buffer of [
    new SharedArrayBuffer(8, { maxByteLength: 64 }),
    new ArrayBuffer(8, { maxByteLength: 64 }),
  ]) {
    const encoded = encodeRequest({}, new Uint8Array(buffer), LIMIT);
    if (buffer instanceof SharedArrayBuffer) buffer.grow(64);
    else buffer.resize(64);
    t.is(encoded.byteLength, 8);
    t.is((encoded.body as Uint8Array).byteLength, 8);
  }
});

test("so has one of another realm's", (t) => {
  const buffer = runInNewContext(
    'new SharedArrayBuffer(8, { maxByteLength: 64 })',
  ) as SharedArrayBuffer;
  const encoded = encodeRequest({}, new Uint8Array(buffer), LIMIT);
  buffer.grow(64);
  t.is((encoded.body as Uint8Array).byteLength, 8);
});

test('what JSON would lose is refused, in requests and in metadata, at any depth', (t) => {
  class Hidden {
    readonly #value = 1;
    get value(): number {
      return this.#value;
    }
  }
  const lost: Record<string, unknown> = {
    'a Map': new Map([[1, 2]]),
    'a Set': new Set([1]),
    'a WeakMap': new WeakMap(),
    'a Blob': new Blob(['x']),
    'a File': new File(['x'], 'x'),
    'a web stream': new ReadableStream(),
    'a stream': Readable.from(['x']),
    'a Response': new Response('x'),
    'a URLSearchParams': new URLSearchParams('a=1'),
    'a FormData': new FormData(),
    'a function': () => 1,
    'a symbol': Symbol('x'),
    'a bigint': 1n,
    'an Error': new Error('x'),
    'an Error with a code': Object.assign(new Error('x'), { code: 'E' }),
    'a RegExp': /x/,
    NaN: Number.NaN,
    Infinity: Number.POSITIVE_INFINITY,
    'an object that keeps its state to itself': new Hidden(),
    'bytes in an object': { bytes: new Uint8Array(3) },
    'a boxed NaN': Object(Number.NaN),
    'undefined in an array': [1, undefined],
    'a hole in an array': Object.assign(new Array(2), { 0: 1 }),
    'a Map with a property of its own': Object.assign(new Map([[1, 2]]), { name: 'x' }),
    'a Set with a property of its own': Object.assign(new Set([1]), { name: 'x' }),
    "another realm's Map": runInNewContext('new Map()'),
  };
  for (const [what, value] of Object.entries(lost)) {
    for (const place of [value, { a: [{ b: value }] }]) {
      const isBytes = ArrayBuffer.isView(place);
      if (!isBytes) t.throws(() => encodeRequest({}, place as object, LIMIT), INVALID, what);
      t.throws(() => encodeRequest({ metadata: place }, 'x', LIMIT), INVALID, what);
    }
  }
});

test('what JSON can represent is sent as it is', (t) => {
  class Point {
    constructor(
      readonly x: number,
      readonly y: number,
    ) {}
  }
  const kept: [value: unknown, text: string][] = [
    [{}, '{}'],
    [Object.create(null), '{}'],
    [runInNewContext('({ a: [1, {}] })'), '{"a":[1,{}]}'],
    [new Point(1, 2), '{"x":1,"y":2}'],
    [{ a: undefined, b: 1 }, '{"b":1}'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
    [new URL('http://x/'), '"http://x/"'],
    [{ m: { toJSON: () => 'mine' } }, '{"m":"mine"}'],
    [Object(7), '7'],
    [[null, true, -0.5, 'é'], '[null,true,-0.5,"é"]'],
    [null, 'null'],
  ];
  for (const [value, text] of kept) {
    t.is(encodeRequest({}, value as object, LIMIT).body, text);
    t.is(encodeRequest({ metadata: value }, 'x', LIMIT).metadata, text);
  }
});

test('what a getter throws may be anything', (t) => {
  for (const thrown of [undefined, null, Symbol('x'), 'text', new Error('x')]) {
    const metadata = {
      get it() {
        throw thrown;
      },
    };
    t.throws(() => encodeRequest({ metadata }, 'x', LIMIT), INVALID);
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
  const regions = new RegionTable(() => undefined, new RegionBudget(2 ** 20));
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
