/** workerpool: https://github.com/josdejong/workerpool */

import { fileURLToPath } from 'node:url';
import workerpool from 'workerpool';
import { type Contender, type Setting, TRANSFER_FROM_BYTES } from './contender.js';

const script = fileURLToPath(new URL('./workerpool-worker.js', import.meta.url));

/** As it comes, but for the number of threads. */
export async function startWorkerpool({ threads, maxQueue }: Setting): Promise<Contender> {
  const pool = workerpool.pool(script, {
    maxWorkers: threads,
    ...(maxQueue === undefined ? {} : { maxQueueSize: maxQueue }),
  });
  return {
    call: async (request, { timeoutMs } = {}) => {
      const task = pool.exec('work', [request]);
      return timeoutMs === undefined ? task : task.timeout(timeoutMs);
    },
    close: async () => pool.terminate(),
  };
}

/** Threads said to be threads and started at once, large buffers handed over. */
export async function startConfiguredWorkerpool(setting: Setting): Promise<Contender> {
  const { threads, maxQueue } = setting;
  const pool = workerpool.pool(script, {
    minWorkers: threads,
    maxWorkers: threads,
    workerType: 'thread',
    ...(maxQueue === undefined ? {} : { maxQueueSize: maxQueue }),
  });
  return {
    call: async (request, { timeoutMs } = {}) => {
      const own = request.length < TRANSFER_FROM_BYTES ? null : request.slice();
      const task =
        own === null
          ? pool.exec('work', [request])
          : pool.exec('moving', [own], { transfer: [own.buffer] });
      return timeoutMs === undefined ? task : task.timeout(timeoutMs);
    },
    close: async () => pool.terminate(),
  };
}
