/** Threads for lanes, when there is none to be had. */

import { createRequire } from 'node:module';
import type { Worker } from 'node:worker_threads';
import test from 'ava';
import { outcome } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { activeStats, openRegistry } from './support/registry.js';

/** The one that Piscina takes its threads from: what it has of `node:worker_threads` can be changed. */
const workerThreads = createRequire(import.meta.url)('node:worker_threads') as {
  Worker: typeof Worker;
};

/** Worker threads that are started from now on. */
function newThreads(): Worker[] {
  const threads: Worker[] = [];
  process.on('worker', (worker) => threads.push(worker));
  return threads;
}

test.serial(
  'a lane dies while no thread can be had: it is told, and tried again until there is one',
  async (t) => {
    const { registry } = await openRegistry(t, { threads: 1, cleanupIntervalMs: 0 });
    const threads = newThreads();
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
