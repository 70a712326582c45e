/** Threads for lanes: when there is none to be had, and when one ends late. */

import { createRequire } from 'node:module';
import { MessageChannel, Worker } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { deferred } from '../src/deferred.js';
import { LanePool } from '../src/lane-pool.js';
import type { LaneStart } from '../src/lane-protocol.js';
import { isPrepareThread } from '../src/library/prepare/prepare-thread.js';
import { outcome } from './support/outcomes.js';
import { eventually, isSettled } from './support/polling.js';
import { activeStats, openRegistry } from './support/registry.js';

/** The one that Piscina takes its threads from: what it has of `node:worker_threads` can be changed. */
const workerThreads = createRequire(import.meta.url)('node:worker_threads') as {
  Worker: typeof Worker;
};

/** Threads of lanes that are started from now on. */
function newThreads(t: ExecutionContext): Worker[] {
  const threads: Worker[] = [];
  const started = (worker: Worker) => {
    if (!isPrepareThread(worker)) threads.push(worker);
  };
  process.on('worker', started);
  t.teardown(() => process.off('worker', started));
  return threads;
}

test.serial(
  'a lane dies while no thread can be had: it is told, and tried again until there is one',
  async (t) => {
    const { registry } = await openRegistry(t, { threads: 1, cleanupIntervalMs: 0 });
    const threads = newThreads(t);
    await registry.load('echo');
    const { Worker: real } = workerThreads;
    let refused = 0;
    t.teardown(() => {
      workerThreads.Worker = real;
    });
    workerThreads.Worker = function none() {
      refused += 1;
      throw Object.assign(new Error('EAGAIN'), { code: 'ERR_WORKER_INIT_FAILED' });
    } as unknown as typeof Worker;
    const codes: unknown[] = [];
    registry.on('laneExited', ({ error }) => void codes.push((error as { code?: unknown }).code));

    // What is thrown in an event, nobody can catch: it would end this process.
    await threads[0]?.terminate();
    const waiting = outcome(registry.execute('echo', {}, 'still here'));
    await eventually(
      () => refused,
      (count) => count >= 2,
      'it is tried again',
    );
    t.is(activeStats(registry, 'echo').lanes.serving, 0);
    workerThreads.Worker = real;

    t.is(await waiting, 'still here');
    t.is(codes[1], 'ERR_WORKER_INIT_FAILED');
    t.is(activeStats(registry, 'echo').totals.laneExited, 0);
  },
);

/** A task that a thread fails at once. */
function impossible(): LaneStart {
  return { port: new MessageChannel().port1 } as unknown as LaneStart;
}

test.serial('a surplus thread that ends late is waited for, and not replaced', async (t) => {
  const threads: Worker[] = [];
  const surplus = deferred<Worker>();
  const onWorker = (thread: Worker) => {
    threads.push(thread);
    // The first one that is told to end is the surplus one; it does so late.
    thread.terminate = async () => {
      for (const one of threads) Reflect.deleteProperty(one, 'terminate');
      surplus.resolve(thread);
      return 0;
    };
  };
  process.on('worker', onWorker);
  // Neither a lane nor a surplus thread keeps the process alive.
  const alive = setInterval(() => undefined, 1000);
  t.teardown(() => {
    process.off('worker', onWorker);
    clearInterval(alive);
  });
  const pool = new LanePool({ maxThreads: 2, resourceLimits: undefined, env: {} });
  await Promise.all(
    [impossible(), impossible()].map((task) =>
      t.throwsAsync(pool.run(task, 'thread', () => undefined)),
    ),
  );
  const late = await surplus.promise;
  const destroyed = pool.destroy();
  t.false(await isSettled(destroyed));

  await Worker.prototype.terminate.call(late);
  await destroyed;

  t.is(threads.length, 2);
});

test.serial(
  'two threads die in one turn, before they have a lane: both lanes are told',
  async (t) => {
    const threads: Worker[] = [];
    const lost = [new Error('the first death'), new Error('the second death')];
    const onWorker = (thread: Worker) => {
      threads.push(thread);
      if (threads.length < lost.length) return;
      for (const [index, cause] of lost.entries()) threads[index]?.emit('error', cause);
    };
    process.on('worker', onWorker);
    t.teardown(() => process.off('worker', onWorker));
    const pool = new LanePool({ maxThreads: 2, resourceLimits: undefined, env: {} });

    const told = await Promise.all(
      [impossible(), impossible()].map((task) =>
        t.throwsAsync(pool.run(task, 'thread', () => undefined)),
      ),
    );

    t.deepEqual(told, lost);
    await pool.destroy();
  },
);

test.serial('a thread ends without an error before it has a lane: the load is told', async (t) => {
  const { registry } = await openRegistry(t, { threads: 1 });
  const onWorker = (thread: Worker) => {
    if (!isPrepareThread(thread)) void thread.terminate();
  };
  process.on('worker', onWorker);
  t.teardown(() => process.off('worker', onWorker));

  await t.throwsAsync(registry.load('echo'), { code: 'ERR_HANDLER_LOAD_FAILED' });

  t.is(registry.stats().hangingLoads, 0);
});
