/** tinypool: https://github.com/tinylibs/tinypool */

import { Tinypool } from 'tinypool';
import { type Contender, callMoving, type Setting, signalOf } from './contender.js';

const filename = new URL('./tinypool-worker.js', import.meta.url).href;

/** As it comes, but for the number of threads. */
export async function startTinypool({ threads }: Setting): Promise<Contender> {
  const pool = new Tinypool({ filename, minThreads: threads, maxThreads: threads });
  return {
    call: (request, options) => pool.run(request, signalOf(options)),
    close: () => pool.destroy(),
  };
}

/** Several tasks a worker, large buffers handed over. */
export async function startConfiguredTinypool(setting: Setting): Promise<Contender> {
  const { threads, tasksPerThread = 64 } = setting;
  const pool = new Tinypool({
    filename,
    minThreads: threads,
    maxThreads: threads,
    concurrentTasksPerWorker: tasksPerThread,
  });
  return {
    call: callMoving(pool),
    close: () => pool.destroy(),
  };
}
