/** Responses that are given back: their memory serves the next ones, and nobody sees another's bytes. */

import { markAsUntransferable } from 'node:worker_threads';
import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import { BufferPool } from '../src/buffer-pool.js';
import { HandlerResponse } from '../src/index.js';
import { openRegistry } from './support/registry.js';

const KIB = 1024;
const MIB = 1024 * KIB;

test('a pool gives what it was given, if it is large enough and not much larger', (t) => {
  const pool = new BufferPool(MIB);
  t.is(pool.take(70_000).byteLength, 70_000, 'nobody gives back, and nobody gets more');
  const buffer = new ArrayBuffer(81_920);
  pool.put(buffer);
  t.not(pool.take(30_000), buffer);
  t.not(pool.take(81_921), buffer);
  t.is(pool.take(70_000), buffer);
  t.not(pool.take(70_000), buffer, 'once');
});

test('a pool that is closed keeps nothing', (t) => {
  const pool = new BufferPool(MIB);
  const [before, after] = [new ArrayBuffer(64 * KIB), new ArrayBuffer(64 * KIB)];
  pool.put(before);
  pool.close();
  pool.put(after);
  t.deepEqual(pool.empty(), []);
});

test('a pool keeps no more than its limit', (t) => {
  const pool = new BufferPool(100 * KIB);
  const [first, second] = [new ArrayBuffer(64 * KIB), new ArrayBuffer(64 * KIB)];
  pool.put(first);
  pool.put(second);
  pool.put(new ArrayBuffer(0));
  t.deepEqual(pool.empty(), [first]);
  t.deepEqual(pool.empty(), []);
  pool.put(second);
  t.is(pool.take(64 * KIB), second);
});

for (const [name, bytes] of Object.entries({
  'in its slot': 100,
  'in the outbox': 64 * KIB,
  posted: MIB,
})) {
  test(`after release a response that came ${name} is empty, and releasing again is nothing`, async (t) => {
    const { registry } = await openRegistry(t, { threads: 1, preflight: false });
    await registry.loadFrom('echo', fixture('echo'));
    const response = await registry.execute('echo', undefined, new Uint8Array(bytes).fill(7));
    const kept = response.bytes;
    t.is(kept.length, bytes);
    response.release();
    t.is(response.bytes.length, 0);
    if (bytes > 4 * KIB) t.is(kept.length, 0, 'nobody reads what will be another response');
    t.is(response.text(), '');
    response.release();
    t.is(response.bytes.length, 0);
  });

  test(`responses that came ${name}, some released and some kept, all have their own bytes`, async (t) => {
    const { registry } = await openRegistry(t, { threads: 2, preflight: false });
    await registry.loadFrom('echo', fixture('echo'));
    const kept: { response: HandlerResponse; value: number; length: number }[] = [];
    let value = 0;
    const caller = async () => {
      for (let turn = 0; turn < 30; turn++) {
        value = (value % 255) + 1;
        const own = value;
        const length = bytes - (turn % 5) * Math.floor(bytes / 7);
        const request = new Uint8Array(length).fill(own);
        const response = await registry.execute('echo', undefined, request);
        t.is(Buffer.compare(response.bytes, request), 0);
        if (turn % 3 === 0) kept.push({ response, value: own, length });
        else response.release();
      }
    };
    await Promise.all(Array.from({ length: 4 }, caller));
    for (const each of kept) {
      const expected = new Uint8Array(each.length).fill(each.value);
      t.is(Buffer.compare(each.response.bytes, expected), 0);
      each.response[Symbol.dispose]();
    }
  });
}

test('what is released after the lane has gone, or was moved elsewhere, is nobody’s', async (t) => {
  const { registry } = await openRegistry(t, { threads: 1, preflight: false });
  await registry.loadFrom('echo', fixture('echo'));
  const request = new Uint8Array(MIB).fill(1);
  const moved = await registry.execute('echo', undefined, request);
  const elsewhere = structuredClone(moved.bytes, { transfer: [moved.bytes.buffer] });
  moved.release();
  t.is(Buffer.compare(elsewhere, request), 0);
  const late = await registry.execute('echo', undefined, request);
  await registry.unload('echo');
  late.release();
  t.is(late.bytes.length, 0);
});

test('memory that its holder has marked as not to be moved is left to the collector', async (t) => {
  const recycled: ArrayBuffer[] = [];
  const bytes = new Uint8Array(10_000).fill(3);
  markAsUntransferable(bytes.buffer);
  const response = new HandlerResponse(bytes, 1, 0, 0, (memory) => recycled.push(memory));
  response.release();
  t.is(response.bytes.length, 0);
  t.deepEqual(recycled, []);
  t.is(bytes.length, 10_000, 'its holder still has it');
});
