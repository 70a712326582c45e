/** Responses in slabs: small ones share a buffer, and none can take the others' away. */
import test, { type ExecutionContext } from 'ava';
import { copyOut, HandlerResponse } from '../src/response.js';

function sharedBytes(length: number, value: number) {
  const memory = new SharedArrayBuffer(length);
  return { bytes: new Uint8Array(memory).fill(value), words: new Int32Array(memory) };
}

const shared = sharedBytes(64, 7);

test('a response is a copy: neither the shared memory nor its neighbours are in it', (t) => {
  const one = copyOut(shared, 0, 16);
  const two = copyOut(shared, 16, 16);
  shared.bytes.fill(9);
  one.fill(1);
  t.deepEqual([...two], new Array(16).fill(7));
  t.not(one.byteOffset, two.byteOffset);
  t.is(two.byteOffset % 8, 0);
});

test('a response of any length is copied to its last byte, and the next one begins after it', (t) => {
  const source = sharedBytes(2056, 0);
  source.bytes.forEach((_, at) => {
    source.bytes[at] = at * 7;
  });
  for (let length = 0; length <= 2049; length++) {
    const one = copyOut(source, 4, length);
    const two = copyOut(source, 0, 5);
    t.deepEqual(Buffer.from(one), Buffer.from(source.bytes.slice(4, 4 + length)));
    t.deepEqual([...two], [0, 7, 14, 21, 28]);
  }
});

test('a small response cannot be transferred, so its neighbours stay whole', (t) => {
  const one = copyOut(shared, 0, 16);
  const two = copyOut(shared, 0, 16);
  try {
    structuredClone(one, { transfer: [one.buffer] });
  } catch (error) {
    // Node 20 clones it instead.
    t.is((error as DOMException).name, 'DataCloneError');
  }
  t.is(one.length, 16);
  t.is(two.length, 16);
  t.is(copyOut(shared, 0, 16).length, 16);
});

function transferAway(t: ExecutionContext, response: Uint8Array<ArrayBuffer>): void {
  const buffer = response.buffer as ArrayBuffer & { transfer?: () => ArrayBuffer };
  try {
    buffer.transfer?.();
  } catch (error) {
    // Newer versions of Node refuse; older ones do not have it, or detach.
    t.is((error as Error).name, 'TypeError');
  }
}

test('whatever a caller does to its buffer, the next response has its bytes', (t) => {
  transferAway(t, copyOut(shared, 0, 16));
  t.is(copyOut(shared, 0, 16).length, 16);
});

test('the same of empty responses, the first of which begins a slab', (t) => {
  transferAway(t, copyOut(shared, 0, 16));
  transferAway(t, copyOut(shared, 0, 0));
  t.is(copyOut(shared, 0, 0).length, 0);
  t.is(copyOut(shared, 0, 16).length, 16);
});

test('a large response has a buffer of its own, which can be transferred', (t) => {
  const source = sharedBytes(8192, 3);
  const bytes = copyOut(source, 0, 8192);
  t.is(bytes.buffer.byteLength, 8192);
  t.is(structuredClone(bytes, { transfer: [bytes.buffer] }).length, 8192);
});

test('text replaces what is not UTF-8, json throws what JSON.parse throws', (t) => {
  const response = (...bytes: number[]) => new HandlerResponse(new Uint8Array(bytes), 1, 0, 0);
  t.is(response(0x61, 0xff).text(), 'a\ufffd');
  t.deepEqual(response(0x5b, 0x31, 0x5d).json(), [1]);
  t.throws(() => response(0x5b).json(), { instanceOf: SyntaxError });
});
