/** A pool that has ended starts no more threads, whatever it hears of late. */

import { once } from 'node:events';
import { MessageChannel, Worker } from 'node:worker_threads';
import test from 'ava';
import { deferred } from '../src/deferred.js';
import { LanePool } from '../src/lane-pool.js';
import type { LaneTask } from '../src/lane-protocol.js';

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A task that a thread fails at once. */
function impossible(): LaneTask {
  return { process: null, port: new MessageChannel().port1 } as unknown as LaneTask;
}

test('a surplus thread that ends after its pool is not replaced', async (t) => {
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
  const pool = new LanePool({ threads: 1, maxThreads: 2, resourceLimits: undefined, env: {} });
  await Promise.all([impossible(), impossible()].map((task) => t.throwsAsync(pool.run(task))));
  const late = await surplus.promise;
  await pool.destroy();
  t.is(threads.length, 2);

  const ended = once(late, 'exit');
  await Worker.prototype.terminate.call(late);
  await ended;
  await turn();

  t.is(threads.length, 2);
  await pool.destroy();
});
