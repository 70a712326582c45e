/** tinypool: https://github.com/tinylibs/tinypool */

import { Tinypool } from 'tinypool';
import { type Contender, type Setting, TRANSFER_FROM_BYTES } from './contender.js';

const filename = new URL('./tinypool-worker.js', import.meta.url).href;

/** As it comes, but for the number of threads. */
export async function startTinypool({ threads }: Setting): Promise<Contender> {
  const pool = new Tinypool({ filename, minThreads: threads, maxThreads: threads });
  return {
    call: (request, { timeoutMs } = {}) => pool.run(request, withTimeout(timeoutMs)),
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
    call: (request, { timeoutMs } = {}) => {
      const options = withTimeout(timeoutMs);
      if (request.length < TRANSFER_FROM_BYTES)
        return pool.run(request, { name: 'moving', ...options });
      const own = request.slice();
      return pool.run(own, { name: 'moving', transferList: [own.buffer], ...options });
    },
    close: () => pool.destroy(),
  };
}

function withTimeout(timeoutMs: number | undefined): { signal?: AbortSignal } {
  return timeoutMs === undefined ? {} : { signal: AbortSignal.timeout(timeoutMs) };
}
