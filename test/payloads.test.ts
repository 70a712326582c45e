import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import {
  HandlerRegistry,
  type InvalidRequestError,
  type PayloadTooLargeError,
  type RequestPayload,
} from '../src/index.js';
import { PLACE_BYTES } from '../src/ring/outbox.js';
import { gate } from './support/gate.js';
import { outcome, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { openRegistry } from './support/registry.js';

/** What a slot has room for, context included; more goes another way. */
const ROOM_BYTES = 4096;
const MAX_CONTEXT_BYTES = 4088;

const registry = new HandlerRegistry({ threads: 1, loadTimeoutMs: 60_000 });

test.before(async () => {
  await registry.loadFrom('echo', fixture('echo'));
  await registry.loadFrom('context', fixture('context'));
});

test.after.always(() => registry.close());

async function echo(request: RequestPayload): Promise<Buffer> {
  const { bytes } = await registry.execute('echo', {}, request);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 255);
}

const BYTES = pattern(64);

const VIEWS: Record<string, RequestPayload> = {
  'a Uint8Array': new Uint8Array(BYTES.buffer, 8, 16),
  'a Buffer that is part of a larger one': Buffer.concat([BYTES]).subarray(8, 24),
  'a DataView': new DataView(BYTES.buffer, 8, 16),
  'a Float64Array': new Float64Array(BYTES.buffer, 8, 2),
  'a Uint8ClampedArray': new Uint8ClampedArray(BYTES.buffer, 8, 16),
  'an ArrayBuffer': BYTES.slice(8, 24).buffer,
  'a view of a SharedArrayBuffer': new Uint8Array(shared(BYTES), 8, 16),
  'a wide view of a SharedArrayBuffer': new Float64Array(shared(BYTES), 8, 2),
  'a DataView of a SharedArrayBuffer': new DataView(shared(BYTES), 8, 16),
  'a SharedArrayBuffer': shared(BYTES.slice(8, 24)),
};

function shared(bytes: Uint8Array): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(bytes.length);
  new Uint8Array(memory).set(bytes);
  return memory;
}

for (const [kind, request] of Object.entries(VIEWS)) {
  test(`${kind} arrives as its bytes`, async (t) => {
    t.deepEqual([...(await echo(request))], [...BYTES.subarray(8, 24)]);
  });
}

const EMPTY: Record<string, RequestPayload> = {
  'an empty string': '',
  'empty bytes': new Uint8Array(0),
  'an empty ArrayBuffer': new ArrayBuffer(0),
  'an empty SharedArrayBuffer': new SharedArrayBuffer(0),
  'an empty view at the end of a SharedArrayBuffer': new Uint8Array(shared(BYTES), 64),
};

for (const [kind, request] of Object.entries(EMPTY)) {
  test(`${kind} is an empty request`, async (t) => {
    t.is((await echo(request)).length, 0);
  });
}

const AROUND = [ROOM_BYTES, 16_384, PLACE_BYTES].flatMap((limit) => [limit - 1, limit, limit + 1]);
const LENGTHS = [1, ...AROUND, 8192, 8193, 65_536, 1_000_003, 5_000_001];

for (const length of LENGTHS) {
  test(`${length} bytes arrive, copied and shared`, async (t) => {
    const bytes = pattern(length);
    t.is(Buffer.compare(await echo(bytes), bytes), 0);
    t.is(Buffer.compare(await echo(new Uint8Array(shared(bytes))), bytes), 0);
  });
}

test('many large responses at once, of all sizes: each has its own bytes', async (t) => {
  const requests = Array.from({ length: 200 }, (_, index) => pattern(5000 + index * 700));
  const responses = await Promise.all(requests.map((request) => echo(request)));
  for (const [index, request] of requests.entries()) {
    t.is(Buffer.compare(responses[index] as Buffer, request), 0, `${request.length} bytes`);
  }
});

test('where context and request meet, neither loses a byte', async (t) => {
  const requestId = 'é'.repeat(50);
  for (let length = ROOM_BYTES - 120; length <= ROOM_BYTES - 90; length++) {
    const bytes = pattern(length);
    const response = await registry.execute('echo', { requestId }, bytes);
    t.is(Buffer.compare(response.bytes, bytes), 0, `${length} bytes`);
  }
});

const TEXTS = {
  ascii: 'hello',
  'several bytes a character': 'žluťoučký kůň 🐎 漢字',
  'a NUL inside': 'a\0b',
  'longer than a slot': 'ž🐎'.repeat(5000),
};

for (const [kind, text] of Object.entries(TEXTS)) {
  test(`a string arrives as UTF-8: ${kind}`, async (t) => {
    const response = await registry.execute('echo', {}, text);
    t.is(response.text(), text);
    t.is(Buffer.compare(response.bytes, Buffer.from(text)), 0);
  });
}

test('a lone surrogate becomes U+FFFD, as in every UTF-8 encoder', async (t) => {
  for (const text of ['\ud83dx', 'x\udc0e', '\ud83d'.repeat(3000)]) {
    t.is((await echo(text)).toString(), text.replaceAll(/[\ud800-\udfff]/g, '\ufffd'));
  }
});

const VALUES: RequestPayload[] = [
  null,
  true,
  false,
  0,
  -1.5,
  [],
  [1, 'two', null, { three: [] }],
  {},
  { name: 'žluťoučký', nested: { deep: [{ er: null }] } },
  { filler: 'x'.repeat(10_000) },
];

test('everything else arrives as JSON', async (t) => {
  for (const value of VALUES) {
    const response = await registry.execute('echo', {}, value);
    t.is(response.text(), JSON.stringify(value));
    t.deepEqual(response.json(), value);
  }
});

test('a response that is not JSON says so when it is read as JSON', async (t) => {
  const response = await registry.execute('echo', {}, 'not json');
  t.throws(() => response.json(), { instanceOf: SyntaxError });
});

test('what cannot be sent is refused and takes nothing', async (t) => {
  // Its own: other tests have requests in flight meanwhile.
  const { registry: own } = await openRegistry(t);
  await own.loadFrom('context', fixture('context'));
  const circular: { self?: unknown } = {};
  circular.self = circular;
  const refused = [undefined, () => 1, Symbol('s'), 10n, circular, { toJSON: () => undefined }];
  for (const request of refused) {
    const error = await rejection(own.execute('context', {}, request as RequestPayload));
    t.is((error as InvalidRequestError).code, 'ERR_HANDLER_INVALID_REQUEST');
  }
  t.is(own.get('context')?.activeRequests, 0);
});

test('neither can what has no proper signal or timeout, and it takes nothing', async (t) => {
  const { registry: own } = await openRegistry(t);
  const echo = await own.load('echo');
  const wrong = { signal: new AbortController() as unknown as AbortSignal };
  t.regex(await outcome(own.execute('echo', {}, 'x', wrong)), /^ERR_HANDLER_INVALID_/);
  for (const timeoutMs of [0, -1, Number.NaN, '5', null] as number[]) {
    const refused = own.executeWithTimeout('echo', {}, 'x', timeoutMs);
    t.like(await rejection(refused), { code: 'ERR_HANDLER_INVALID_OPTION', option: 'timeoutMs' });
  }
  t.is(echo.activeRequests, 0);
});

test('the bytes are taken at the call: the caller may use them again at once', async (t) => {
  const bytes = Buffer.from('before');
  const large = Buffer.alloc(20_000, 'before');
  const responses = [registry.execute('echo', {}, bytes), registry.execute('echo', {}, large)];
  bytes.fill('!');
  large.fill('!');
  const [small, big] = await Promise.all(responses);
  t.is(small?.text(), 'before');
  t.is(big?.text(), 'before'.repeat(20_000).slice(0, 20_000));
});

test('also those of a request that has to wait on the main thread', async (t) => {
  const { registry: own } = await openRegistry(t, { maxInFlight: 32 });
  await own.loadFrom('gate', fixture('gate'));
  const held = gate(t);
  const running = own.execute('gate', {}, held.request);
  await held.untilEntered();
  const fillers = Array.from({ length: 31 }, () => gate(t));
  for (const filler of fillers) filler.open();
  const filling = fillers.map((filler) => own.execute('gate', {}, filler.request));
  // This gate is open when it is sent and shut afterwards: only a copy lets the call return.
  const words = Int32Array.of(0, 1);
  const waiting = own.execute('gate', {}, words);
  words[1] = 0;
  held.open();
  await Promise.all([running, ...filling]);
  t.is((await waiting).text(), 'released');
  t.deepEqual([...words], [0, 0], 'the handler wrote to its own copy');
});

test('shared memory is not copied: the handler writes where the caller reads', async (t) => {
  const { registry: own } = await openRegistry(t);
  await own.loadFrom('gate', fixture('gate'));
  const memory = new SharedArrayBuffer(4096);
  const words = new Int32Array(memory, 1024, 2);
  const running = own.execute('gate', {}, words);
  await eventually(
    () => Atomics.load(words, 0),
    (entered) => entered === 1,
    'the gate is entered',
  );
  t.is(new Int32Array(memory)[256], 1, 'at the offset of the view');
  Atomics.store(words, 1, 1);
  t.is((await running).text(), 'released');
});

test('a shared buffer can be used again, also by many requests at once', async (t) => {
  const memory = shared(pattern(10_000));
  const starts = Array.from({ length: 100 }, (_, index) => index * 100);
  const responses = await Promise.all(
    starts.map((start) => registry.execute('echo', {}, new Uint8Array(memory, start, 100))),
  );
  for (const [index, response] of responses.entries()) {
    const expected = pattern(10_000).subarray(index * 100, index * 100 + 100);
    t.is(Buffer.compare(response.bytes, expected), 0);
  }
});

test("a response's bytes are the caller's own", async (t) => {
  const [first, second] = await Promise.all([
    registry.execute('echo', {}, 'first'),
    registry.execute('echo', {}, 'second'),
  ]);
  first.bytes.fill(0);
  t.is(second.text(), 'second');
  t.false((second.bytes.buffer as unknown) instanceof SharedArrayBuffer);
  t.true(first.queuedMs >= 0 && first.ranMs >= 0);
  t.is(first.version, 1);
});

// ---- Limits -----------------------------------------------------------------------------------------

test('a request may have maxPayloadBytes, and no byte more', async (t) => {
  const { registry: own } = await openRegistry(t, { maxPayloadBytes: 5000 });
  await own.loadFrom('echo', fixture('echo'));
  t.is((await own.execute('echo', {}, new Uint8Array(5000))).bytes.length, 5000);
  for (const request of [new Uint8Array(5001), 'x'.repeat(5001), new SharedArrayBuffer(5001)]) {
    const error = (await rejection(own.execute('echo', {}, request))) as PayloadTooLargeError;
    t.is(error.code, 'ERR_HANDLER_PAYLOAD_TOO_LARGE');
    t.is(error.limitBytes, 5000);
    t.is(error.actualBytes, 5001);
  }
  const wide = (await rejection(own.execute('echo', {}, 'é'.repeat(2501)))) as PayloadTooLargeError;
  t.is(wide.actualBytes, 5002, 'counted in bytes, not in characters');
  t.is(own.get('echo')?.activeRequests, 0);
});

// ---- Context ----------------------------------------------------------------------------------------

interface SeenContext {
  requestId: string;
  metadata: unknown;
  metadataLength: number;
  deadlineNs: string;
  abiVersion: number;
}

test('the handler sees request id and metadata', async (t) => {
  const metadata = { traceparent: '00-é-01', list: [1, null], 'quo"te': 'a\0b' };
  const response = await registry.execute('context', { requestId: 'růžový "1"', metadata }, 'x');
  const seen = response.json<SeenContext>();
  t.is(seen.requestId, 'růžový "1"');
  t.deepEqual(seen.metadata, metadata);
  t.is(seen.metadataLength, Buffer.byteLength(JSON.stringify(metadata)));
  t.is(seen.abiVersion, 1);
});

test('a request without context does not see the one before', async (t) => {
  const before = { requestId: 'before', metadata: { secret: 1 } };
  for (const context of [undefined, {}, { requestId: '' }]) {
    await registry.execute('context', before, 'x');
    const seen = (await registry.execute('context', context, 'x')).json<SeenContext>();
    t.is(seen.requestId, '');
    t.is(seen.metadata, null);
    t.is(seen.metadataLength, 0);
  }
});

test('metadata alone, an id alone, and metadata that is null', async (t) => {
  const only = await registry.execute('context', { metadata: [1] }, 'x');
  t.like(only.json<SeenContext>(), { requestId: '', metadataLength: 3 });
  const id = await registry.execute('context', { requestId: 'a' }, 'x');
  t.like(id.json<SeenContext>(), { requestId: 'a', metadataLength: 0 });
  const none = await registry.execute('context', { metadata: null }, 'x');
  t.like(none.json<SeenContext>(), { metadata: null, metadataLength: 4 });
});

test('the deadline is on the clock of C, and 0 without one', async (t) => {
  const before = process.hrtime.bigint();
  const response = await registry.executeWithTimeout('context', {}, 'x', 60_000);
  const after = process.hrtime.bigint();
  const deadlineNs = BigInt(response.json<SeenContext>().deadlineNs);
  const slackNs = 1_000_000n;
  t.true(deadlineNs >= before + 60_000_000_000n - slackNs);
  t.true(deadlineNs <= after + 60_000_000_000n + slackNs);
  const without = await registry.executeWithTimeout('context', {}, 'x', Number.POSITIVE_INFINITY);
  t.is(without.json<SeenContext>().deadlineNs, '0');
});

test('a context may have 4,088 bytes, and no byte more', async (t) => {
  const metadata = 'm'.repeat(1000 - 2);
  const requestId = 'i'.repeat(MAX_CONTEXT_BYTES - 1000);
  const request = pattern(100);
  const response = await registry.execute('echo', { requestId, metadata }, request);
  t.is(Buffer.compare(response.bytes, request), 0);
  const seen = await registry.execute('context', { requestId, metadata }, 'x');
  t.like(seen.json<SeenContext>(), { requestId, metadata });
  const over = registry.execute('echo', { requestId: `${requestId}i`, metadata }, request);
  const error = (await rejection(over)) as PayloadTooLargeError;
  t.is(error.code, 'ERR_HANDLER_PAYLOAD_TOO_LARGE');
  t.is(error.limitBytes, MAX_CONTEXT_BYTES);
  t.is(error.actualBytes, MAX_CONTEXT_BYTES + 1);
});

test('a context that is not one is refused', async (t) => {
  const circular: { self?: unknown } = {};
  circular.self = circular;
  for (const context of [{ requestId: 5 }, { metadata: () => 1 }, { metadata: circular }]) {
    const error = await rejection(registry.execute('echo', context as object, 'x'));
    t.is((error as InvalidRequestError).code, 'ERR_HANDLER_INVALID_REQUEST');
  }
});
