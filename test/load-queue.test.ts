/** Loads are admitted a few at a time. */

import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import { deferred } from '../src/deferred.js';
import { LoadQueue } from '../src/load-queue.js';
import { passTime } from './support/clock.js';
import { holdInit } from './support/held-init.js';
import { rejection } from './support/outcomes.js';
import { turns } from './support/polling.js';
import { openRegistry } from './support/registry.js';

const never = new AbortController().signal;

test('as many go on as may, the others in the order in which they asked', async (t) => {
  const queue = new LoadQueue(2);
  const begun: number[] = [];
  const ends = Array.from({ length: 5 }, () => deferred<number>());
  const loads = ends.map(({ promise }, index) => {
    const load = () => {
      begun.push(index);
      return promise;
    };
    return queue.admit(load, never);
  });
  await turns(1);
  t.deepEqual(begun, [0, 1]);
  ends[1]?.resolve(1);
  t.is(await loads[1], 1);
  await turns(1);
  t.deepEqual(begun, [0, 1, 2]);
  // One that fails leaves its place like any other.
  ends[2]?.reject('failed');
  t.is(await rejection(loads[2] as Promise<number>), 'failed');
  await turns(1);
  t.deepEqual(begun, [0, 1, 2, 3]);
  for (const { resolve } of ends) resolve(0);
  await Promise.allSettled(loads);
  t.deepEqual(begun, [0, 1, 2, 3, 4]);
});

test('one that is given up while it waits never begins, and holds nobody up', async (t) => {
  const queue = new LoadQueue(1);
  const end = deferred<string>();
  const first = queue.admit(() => end.promise, never);
  const controller = new AbortController();
  const second = queue.admit(async () => t.fail('it was given up'), controller.signal);
  const third = queue.admit(async () => 'third', never);
  await turns(1);
  controller.abort('given up');
  t.is(await rejection(second), 'given up');
  end.resolve('first');
  t.deepEqual(await Promise.all([first, third]), ['first', 'third']);
  t.is(await rejection(queue.admit(async () => 'late', AbortSignal.abort('before'))), 'before');
  t.is(await queue.admit(async () => 'free', never), 'free');
});

// Serial: whether handler_init is held is said in the environment, which is the whole process's, as the clock is.
test.serial('a load that waits for its turn uses up none of its time', async (t) => {
  const { registry } = await openRegistry(t, { maxConcurrentLoads: 1, preflight: false });
  const held = await holdInit(t);
  const slow = registry.load('slow_init');
  await held.untilEntered();
  const begun: string[] = [];
  registry.on('loading', ({ endpoint }) => void begun.push(endpoint));
  const waiting = registry.load('echo');
  const other = registry.loadFrom('other', fixture('echo'));
  await turns(5);
  // By now their time would be over.
  passTime(t, 600_000);
  t.deepEqual(begun, []);
  t.is(registry.count, 0);
  await held.release();
  await Promise.all([slow, waiting, other]);
  t.deepEqual(begun, ['echo', 'other']);
});

test.serial('closing ends the wait for a turn', async (t) => {
  const { registry } = await openRegistry(t, { maxConcurrentLoads: 1, preflight: false });
  const held = await holdInit(t);
  const outcomes = Promise.all([
    rejection(registry.load('slow_init')),
    rejection(registry.load('echo')),
  ]);
  await held.untilEntered();
  const failed: string[] = [];
  registry.on('loadFailed', ({ endpoint }) => void failed.push(endpoint));
  const closing = registry.close();
  const codes = (await outcomes).map((error) => (error as { code: string }).code);
  t.deepEqual(codes, Array(2).fill('ERR_HANDLER_CLOSED'));
  // The other had not begun.
  t.deepEqual(failed, ['slow_init']);
  await held.release();
  await closing;
});

test('what is wrong with the options is told without a wait', async (t) => {
  const { registry } = await openRegistry(t, { maxConcurrentLoads: 1, preflight: false });
  const first = registry.load('echo');
  const wrong = registry.load('counter', { threads: 0 });
  t.like(await rejection(wrong), { code: 'ERR_HANDLER_INVALID_OPTION', option: 'threads' });
  t.is(registry.count, 0);
  await first;
});

test('a self-test whose check never settles does not hold up other loads for ever', async (t) => {
  const { registry } = await openRegistry(t, { maxConcurrentLoads: 1 });
  const check = () => new Promise(() => undefined);
  const selfTest = { request: 'x', check };
  const hanging = registry.load('counter', { loadTimeoutMs: 5000, preflight: { selfTest } });
  const other = registry.load('echo', { preflight: false });
  t.like(await rejection(hanging), { code: 'ERR_HANDLER_LOAD_TIMEOUT', step: 'self-test' });
  t.is((await other).id, 'echo');
});
