/** Every limit: how many, how large, and what is no request at all. */
import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import { HandlerRegistry, type PayloadTooLargeError, type RequestPayload } from '../src/index.js';
import { type Gate, gateMaker } from './support/gate.js';
import { failure, rejection } from './support/outcomes.js';
import { onLinux } from './support/process.js';
import { activeOf, activeStats, openRegistry } from './support/registry.js';

const MIB = 1024 * 1024;

function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) bytes[index] = index % 251;
  return bytes;
}

function same(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

// ---- How many --------------------------------------------------------------------------------------

test('1,000 requests into 32 slots and a queue of 10: 42 are accepted and settle, 958 are shed', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32, maxQueue: 10 });
  const gates = gateMaker(t);
  await registry.load('gate');
  let shed = 0;
  registry.on('shed', () => void shed++);
  const all = gates(1000);

  const outcomes = all.map(({ request }) =>
    registry.execute('gate', {}, request).then(
      (response) => response.text(),
      (error: { code: string; maxQueue: number }) => `${error.code} ${error.maxQueue}`,
    ),
  );
  t.is(activeOf(registry, 'gate').activeRequests, 42);
  for (const gate of all) gate.open();

  const settled = await Promise.all(outcomes);
  t.is(shed, 958);
  t.deepEqual(settled.slice(0, 42), Array(42).fill('released'));
  t.deepEqual(settled.slice(42), Array(958).fill('ERR_HANDLER_QUEUE_FULL 10'));
  t.is(all.filter(({ entered }) => entered).length, 42);
  t.is(activeOf(registry, 'gate').activeRequests, 0);
  const { totals, queued, running } = activeStats(registry, 'gate');
  t.deepEqual([totals.succeeded, totals.shed, queued, running], [42, 958, 0, 0]);
});

test('room that has become free is given out again', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32, maxQueue: 0 });
  const gates = gateMaker(t);
  await registry.load('gate');

  for (let round = 0; round < 3; round++) {
    const all = gates(33);
    const accepted = all.slice(0, 32).map(({ request }) => registry.execute('gate', {}, request));
    const [refused] = all.slice(32) as [Gate];
    t.deepEqual(await failure(registry.execute('gate', {}, refused.request), 'maxQueue'), {
      code: 'ERR_HANDLER_QUEUE_FULL',
      maxQueue: 0,
    });
    for (const gate of all) gate.open();
    await Promise.all(accepted);
    t.is(activeOf(registry, 'gate').activeRequests, 0);
  }
});

test('requests run in the order in which they came, through the ring and the queue', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32, maxQueue: 100 });
  const gates = gateMaker(t);
  await registry.load('gate');
  const all = gates(80);
  const answers = all.map(({ request }) => registry.execute('gate', {}, request));

  for (const [index, gate] of all.entries()) {
    await gate.untilEntered();
    // One lane: whoever had been before would have been seen.
    t.is(all.filter(({ entered }) => entered).length, index + 1);
    gate.open();
  }
  await Promise.all(answers);
});

// ---- How large -------------------------------------------------------------------------------------

const contexts = {
  'without context': undefined,
  'with context': { requestId: 'id', metadata: { trace: 'á' } },
};
const sizes = [0, 1, 4070, 4071, 4072, 4073, 4080, 4095, 4096, 4097, 8192, 8193, MIB, 16 * MIB];

for (const [what, context] of Object.entries(contexts)) {
  test(`requests and responses of all sizes come back as they went, ${what}`, async (t) => {
    const { registry } = await openRegistry(t);
    await registry.load('echo');

    for (const size of sizes) {
      const bytes = pattern(size);
      const response = await registry.execute('echo', context, bytes);
      t.is(response.bytes.length, size);
      t.true(same(response.bytes, bytes), `${size} bytes`);
    }
    t.is(activeOf(registry, 'echo').activeRequests, 0);
  });
}

test('shared memory of all sizes, at an offset', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('echo');

  for (const size of [0, 1, 4096, 4097, MIB]) {
    const memory = new SharedArrayBuffer(size + 24);
    const view = new Uint8Array(memory, 16, size);
    view.set(pattern(size));
    const { bytes } = await registry.execute('echo', undefined, view);
    t.true(same(bytes, pattern(size)), `${size} bytes`);
  }
});

test('a request at the limit, and one over', async (t) => {
  const { registry } = await openRegistry(t, { maxPayloadBytes: 5000 });
  await registry.load('echo');

  t.is((await registry.execute('echo', {}, pattern(5000))).bytes.length, 5000);
  for (const over of [pattern(5001), 'x'.repeat(5001), 'é'.repeat(2501), ['x'.repeat(4998)]]) {
    const error = await rejection(registry.execute('echo', {}, over));
    const whose = { endpoint: 'echo', version: 1 };
    t.like(error, { code: 'ERR_HANDLER_PAYLOAD_TOO_LARGE', limitBytes: 5000, ...whose });
    const { actualBytes } = error as PayloadTooLargeError;
    t.true(actualBytes > 5000, String(actualBytes));
  }
  t.is(activeOf(registry, 'echo').activeRequests, 0);
});

for (const id of ['in_place', 'large_response']) {
  test(`a response at the limit, and one over: ${id}`, async (t) => {
    const { registry } = await openRegistry(t, { maxPayloadBytes: 10_000 });
    await registry.load(id);

    for (const size of [0, 1, 4095, 4096, 4097, 9999, 10_000]) {
      const { bytes } = await registry.execute(id, {}, String(size));
      t.true(same(bytes, pattern(size)), `${size} bytes`);
    }
    t.deepEqual(await failure(registry.execute(id, {}, '10001'), 'limitBytes', 'actualBytes'), {
      code: 'ERR_HANDLER_RESPONSE_TOO_LARGE',
      limitBytes: 10_000,
      actualBytes: 10_001,
    });
    t.is((await registry.execute(id, {}, '3')).bytes.length, 3);
    t.is(activeStats(registry, id).totals.badResponse, 1);
  });
}

test('every response from memory of the handler is given back to it', async (t) => {
  const { registry } = await openRegistry(t, { maxPayloadBytes: 10_000 });
  await registry.load('large_response');

  const asked = ['0', '100', '5000', '10001', '10000', '20000'];
  await Promise.allSettled(asked.map((size) => registry.execute('large_response', {}, size)));

  t.is((await registry.execute('large_response', {}, 'live')).text(), '0');
});

test('large responses reach the requests they are for', async (t) => {
  const { registry } = await openRegistry(t, { threads: 2 });
  await registry.load('in_place');
  const asked = Array.from({ length: 200 }, (_, index) => 4090 + index);

  const responses = await Promise.all(
    asked.map((size) => registry.execute('in_place', {}, String(size))),
  );

  t.deepEqual(
    responses.map(({ bytes }) => bytes.length),
    asked,
  );
  t.true(responses.every(({ bytes }) => same(bytes, pattern(bytes.length))));
});

test('large requests side by side do not mix', async (t) => {
  const { registry } = await openRegistry(t, { threads: 2 });
  await registry.load('echo');

  for (let round = 0; round < 5; round++) {
    const sent = Array.from({ length: 50 }, (_, index) =>
      new Uint8Array(5000 + index * 400).fill(round * 50 + index),
    );
    const answers = await Promise.all(sent.map((bytes) => registry.execute('echo', {}, bytes)));
    t.true(answers.every(({ bytes }, index) => same(bytes, sent[index] ?? new Uint8Array())));
  }
});

test('a context at the limit, and one over', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.load('context');
  const requestId = 'r'.repeat(4088);

  const answer = await registry.execute('context', { requestId }, '');
  t.is(answer.json<{ requestId: string }>().requestId, requestId);
  for (const context of [
    { requestId: `${requestId}r` },
    { metadata: 'm'.repeat(4087) },
    { requestId: 'r'.repeat(2000), metadata: 'é'.repeat(1044) },
  ]) {
    const outcome = await failure(registry.execute('context', context, ''), 'limitBytes');
    t.deepEqual(outcome, { code: 'ERR_HANDLER_PAYLOAD_TOO_LARGE', limitBytes: 4088 });
  }
  t.is(activeOf(registry, 'context').activeRequests, 0);
});

test('a buffer may be used again as soon as execute has returned', async (t) => {
  const { registry } = await openRegistry(t, { maxInFlight: 32 });
  await registry.load('echo');
  const small = new Uint8Array(64);
  const large = new Uint8Array(10_000);
  const answers: Promise<[number, number, Uint8Array]>[] = [];

  // Far more than there are slots: most wait on the main thread.
  for (let value = 1; value <= 200; value++) {
    for (const buffer of [small, large]) {
      buffer.fill(value);
      const answer = registry.execute('echo', {}, buffer);
      answers.push(answer.then(({ bytes }) => [value, buffer.length, bytes]));
    }
  }
  small.fill(0);
  large.fill(0);

  for (const [value, length, bytes] of await Promise.all(answers)) {
    t.true(same(bytes, new Uint8Array(length).fill(value)), `${length} bytes of ${value}`);
  }
});

// ---- What is no answer -------------------------------------------------------------------------------

for (const id of ['lying_length', 'null_response']) {
  test(`a response that cannot be read is refused: ${id}`, async (t) => {
    const { registry } = await openRegistry(t);
    await registry.load(id);

    t.deepEqual(await failure(registry.execute(id, {}, 'x'), 'endpoint', 'version'), {
      code: 'ERR_HANDLER_INVALID_RESPONSE',
      endpoint: id,
      version: 1,
    });
    t.is(activeOf(registry, id).activeRequests, 0);
    t.is(activeStats(registry, id).totals.badResponse, 1);
  });
}

onLinux(
  'a response that is not there is an error, and nothing is given back that never was',
  async (t) => {
    const { registry } = await openRegistry(t);
    await registry.load('foreign_pointer');
    const ask = (request: string) => registry.execute('foreign_pointer', {}, request);

    for (const request of ['unmapped', 'wild', 'runs_out', 'negative']) {
      t.like(await rejection(ask(request)), { code: 'ERR_HANDLER_INVALID_RESPONSE' }, request);
    }
    t.like(await rejection(ask('endless')), {
      code: 'ERR_HANDLER_RESPONSE_TOO_LARGE',
      actualBytes: 2 ** 64,
    });
    t.like(await rejection(ask('fail')), {
      code: 'ERR_HANDLER_FAILED',
      handlerCode: 5,
      handlerMessage: '',
    });
    // What is there is found, on one page and on many.
    for (const text of ['', 'x', 'y'.repeat(5000), 'z'.repeat(1_000_000)]) {
      t.true((await ask(text)).text() === text, `${text.length} bytes`);
    }
    t.is(activeOf(registry, 'foreign_pointer').activeRequests, 0);
  },
);

for (const isolation of ['thread', ...(process.platform === 'linux' ? ['process'] : [])] as const) {
  test(`a response that is too large, without a length that says so (${isolation})`, async (t) => {
    const { registry } = await openRegistry(t, {
      isolation: isolation as 'thread' | 'process',
      maxPayloadBytes: 5000,
    });
    await registry.load('too_large');
    const outcomes = ['', '0', '5000', '5001'].map((request) =>
      failure(registry.execute('too_large', {}, request), 'limitBytes', 'actualBytes'),
    );
    const code = 'ERR_HANDLER_RESPONSE_TOO_LARGE';
    t.deepEqual(await Promise.all(outcomes), [
      { code, limitBytes: 5000, actualBytes: null },
      { code, limitBytes: 5000, actualBytes: null },
      { code, limitBytes: 5000, actualBytes: null },
      { code, limitBytes: 5000, actualBytes: 5001 },
    ]);
    t.notRegex(String(await rejection(registry.execute('too_large', {}, ''))), /\b0 bytes/);
    t.is(activeStats(registry, 'too_large').totals.badResponse, 5);
  });
}

onLinux('pre-flight notices it too', async (t) => {
  const { registry } = await openRegistry(t);
  for (const request of ['unmapped', 'runs_out']) {
    const preflight = { selfTest: { request } };
    t.like(await rejection(registry.load('foreign_pointer', { preflight })), {
      code: 'ERR_HANDLER_PREFLIGHT',
      reason: 'self-test-failed',
    });
  }
});

// ---- What is no request ------------------------------------------------------------------------------

/** What is refused before it reaches a lane needs none of its own: one `echo` for all of these, one after the other. */
const shared = new HandlerRegistry({ threads: 1, preflight: false, loadTimeoutMs: 60_000 });

test.before(async () => {
  await shared.loadFrom('echo', fixture('echo'));
});

test.after.always(() => shared.close());

const circular: Record<string, unknown> = {};
circular['self'] = circular;
const throwing = {
  toJSON() {
    throw new Error('no');
  },
};
const notRequests: Record<string, unknown> = {
  undefined: undefined,
  'a function': () => 1,
  'a symbol': Symbol('s'),
  'a bigint': 1n,
  'a bigint inside': { value: 1n },
  'circular JSON': circular,
  'a toJSON that throws': throwing,
  'a toJSON that gives nothing': { toJSON: () => undefined },
};

for (const [what, value] of Object.entries(notRequests)) {
  test.serial(`${what} is no request, and nothing is in flight afterwards`, async (t) => {
    t.deepEqual(await failure(shared.execute('echo', {}, value as RequestPayload)), {
      code: 'ERR_HANDLER_INVALID_REQUEST',
    });
    if (value !== undefined) {
      const outcome = await failure(shared.execute('echo', { metadata: value }, 'x'));
      t.deepEqual(outcome, { code: 'ERR_HANDLER_INVALID_REQUEST' });
    }
    t.is(activeOf(shared, 'echo').activeRequests, 0);
    t.is((await shared.execute('echo', {}, 'next')).text(), 'next');
  });
}

for (const requestId of [1, null, {}, Symbol('s')]) {
  test.serial(`a request id of ${typeof requestId} ${String(requestId)}`, async (t) => {
    const context = { requestId: requestId as string };

    const outcome = await shared.execute('echo', context, 'x').then(
      (response) => response.text(),
      (error: { code: string }) => error.code,
    );

    // null is as good as none.
    t.is(outcome, requestId === null ? 'x' : 'ERR_HANDLER_INVALID_REQUEST');
    t.is(activeOf(shared, 'echo').activeRequests, 0);
  });
}

// ---- Bad ids -----------------------------------------------------------------------------------------

const badIds: unknown[] = [
  '',
  '.',
  '..',
  '/',
  'a/b',
  '../echo',
  'a\\b',
  'echo\0',
  'echo.so',
  'échö',
  'ｅcho',
  ' echo',
  'echo\n',
  'x'.repeat(65),
  undefined,
  null,
  7,
  {},
  ['echo'],
  Symbol('echo'),
  Object('echo'),
];
const path = fixture('echo');
const methods: Record<string, (registry: HandlerRegistry, id: string) => Promise<unknown>> = {
  load: (registry, id) => registry.load(id),
  loadFrom: (registry, id) => registry.loadFrom(id, path),
  swap: (registry, id) => registry.swap(id, path),
  swapGraceful: (registry, id) => registry.swapGraceful(id, path),
  unload: (registry, id) => registry.unload(id),
  execute: (registry, id) => registry.execute(id, {}, 'x'),
  executeWithTimeout: (registry, id) => registry.executeWithTimeout(id, {}, 'x', 100),
  endpoint: async (registry, id) => registry.endpoint(id),
};

for (const [method, call] of Object.entries(methods)) {
  test.serial(`${method} refuses ids that are none`, async (t) => {
    for (const id of badIds) {
      const outcome = await failure(call(shared, id as string));
      t.deepEqual(outcome, { code: 'ERR_HANDLER_INVALID_ID' }, String(id));
    }
    t.is(shared.count, 1);
    t.is(shared.stats().endpoints.length, 1);
  });
}

test.serial('looking for an id that is none finds nothing', async (t) => {
  for (const id of [...badIds, '__proto__', 'constructor']) {
    t.is(shared.get(id as string), undefined);
    t.false(shared.isLoaded(id as string));
  }
});

test('an id that objects have a property of is like any other', async (t) => {
  const { registry } = await openRegistry(t);
  for (const id of ['__proto__', 'constructor', 'hasOwnProperty']) {
    t.is((await registry.loadFrom(id, path)).id, id);
    t.is((await registry.execute(id, {}, id)).text(), id);
    t.is(registry.endpoint(id).stats()?.id, id);
    await registry.unload(id);
    t.is(registry.get(id), undefined);
  }
});

test('an id of 64 characters is one', async (t) => {
  const { registry } = await openRegistry(t);
  const id = 'x'.repeat(64);
  await registry.loadFrom(id, path);

  t.is((await registry.execute(id, {}, 'x')).text(), 'x');
  t.deepEqual(await failure(registry.execute('x'.repeat(63), {}, 'x'), 'endpoint'), {
    code: 'ERR_HANDLER_NOT_LOADED',
    endpoint: 'x'.repeat(63),
  });
});
