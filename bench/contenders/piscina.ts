/** Piscina: https://github.com/piscinajs/piscina */

import { FixedQueue, Piscina } from 'piscina';
import { type Contender, type Setting, TRANSFER_FROM_BYTES } from './contender.js';

/** As it comes, but for the number of threads. */
export async function startPiscina({ threads, maxQueue }: Setting): Promise<Contender> {
  const pool = new Piscina({
    filename: new URL('./piscina-worker.js', import.meta.url).href,
    minThreads: threads,
    maxThreads: threads,
    ...(maxQueue === undefined ? {} : { maxQueue }),
  });
  return {
    call: (request, { timeoutMs } = {}) => pool.run(request, withTimeout(timeoutMs)),
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
    call: (request, { timeoutMs } = {}) => {
      const options = withTimeout(timeoutMs);
      if (request.length < TRANSFER_FROM_BYTES)
        return pool.run(request, { name: 'moving', ...options });
      const own = request.slice();
      return pool.run(own, { name: 'moving', transferList: [own.buffer], ...options });
    },
    close: () => pool.close(),
  };
}

/** A task that is aborted while it runs has its worker terminated; here no timeout is ever reached. */
function withTimeout(timeoutMs: number | undefined): { signal?: AbortSignal } {
  return timeoutMs === undefined ? {} : { signal: AbortSignal.timeout(timeoutMs) };
}
