/** Piscina: https://github.com/piscinajs/piscina */

import { FixedQueue, Piscina } from 'piscina';
import { type Contender, callMoving, type Setting, signalOf } from './contender.js';

/** As it comes, but for the number of threads. */
export async function startPiscina({ threads, maxQueue }: Setting): Promise<Contender> {
  const pool = new Piscina({
    filename: new URL('./piscina-worker.js', import.meta.url).href,
    minThreads: threads,
    maxThreads: threads,
    ...(maxQueue === undefined ? {} : { maxQueue }),
  });
  return {
    call: (request, options) => pool.run(request, signalOf(options)),
    close: () => pool.close(),
  };
}

/** Several tasks a worker, the array queue, no timing, large buffers handed over. */
export async function startConfiguredPiscina(setting: Setting): Promise<Contender> {
  const { threads, tasksPerThread = 64, maxQueue } = setting;
  const pool = new Piscina({
    filename: new URL('./piscina-worker.js', import.meta.url).href,
    minThreads: threads,
    maxThreads: threads,
    concurrentTasksPerWorker: tasksPerThread,
    taskQueue: new FixedQueue(),
    recordTiming: false,
    ...(maxQueue === undefined ? {} : { maxQueue }),
  });
  return {
    call: callMoving(pool),
    close: () => pool.close(),
  };
}
