/** poolifier: https://github.com/poolifier/poolifier */

import { fileURLToPath } from 'node:url';
import { FixedThreadPool, WorkerChoiceStrategies } from 'poolifier';
import { type Contender, type Setting, signalOf, TRANSFER_FROM_BYTES } from './contender.js';

const script = fileURLToPath(new URL('./poolifier-worker.js', import.meta.url));

/** As it comes, but for the number of threads. */
export async function startPoolifier({ threads }: Setting): Promise<Contender> {
  const pool = new FixedThreadPool<Uint8Array, Uint8Array>(threads, script);
  return {
    call: (request, options) => pool.execute(request, undefined, signalOf(options).signal),
    close: () => pool.destroy(),
  };
}

/** Its own queue with several tasks a worker, the least used worker first, large requests handed over. */
export async function startConfiguredPoolifier(setting: Setting): Promise<Contender> {
  const { threads, tasksPerThread = 64 } = setting;
  const pool = new FixedThreadPool<Uint8Array, Uint8Array>(threads, script, {
    enableEvents: false,
    enableTasksQueue: true,
    tasksQueueOptions: { concurrency: tasksPerThread },
    workerChoiceStrategy: WorkerChoiceStrategies.LEAST_USED,
  });
  return {
    call: (request, options) => {
      const { signal } = signalOf(options);
      if (request.length < TRANSFER_FROM_BYTES) return pool.execute(request, undefined, signal);
      const own = request.slice();
      return pool.execute(own, undefined, signal, [own.buffer]);
    },
    close: () => pool.destroy(),
  };
}
