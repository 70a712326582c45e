/**
 * Threads for lanes: the only importer of Piscina. It starts and ends worker threads, applies their limits and
 * reports their death; requests do not pass through it.
 */

import type { MessagePort, ResourceLimits } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { LaneTask } from './lane-protocol.js';

const laneFile = new URL('../workers/lane.js', import.meta.url).href;
const bridgeFile = new URL('../workers/bridge.js', import.meta.url).href;

export interface LanePoolOptions {
  /** Threads that start at once. */
  threads: number;
  /** Threads there may ever be at once, replacements included. */
  maxThreads: number;
  resourceLimits: ResourceLimits | undefined;
  env: Readonly<Record<string, string>>;
}

/** The part of Piscina's worker that its load balancer is given and that is used here. */
interface BalancedWorker {
  readonly currentUsage: number;
  readonly terminating: boolean;
  readonly destroyed: boolean;
}

export class LanePool {
  readonly #piscina: Piscina;

  constructor({ threads, maxThreads, resourceLimits, env }: LanePoolOptions) {
    this.#piscina = new Piscina({
      minThreads: threads,
      maxThreads,
      // A lane is one task that never ends by itself: a thread has room for exactly one.
      concurrentTasksPerWorker: 1,
      loadBalancer: (_task, workers) => idleWorker(workers),
      recordTiming: false,
      // Flags of the host (loaders, inspectors) are not meant for threads that only run native code.
      execArgv: [],
      // Nor is its environment, secrets and all.
      env: { ...env },
      ...(resourceLimits === undefined ? {} : { resourceLimits }),
    });
    // A thread's death rejects the task of its lane, which is where it is dealt with. Without a listener
    // the same news about a thread without a lane would be thrown.
    this.#piscina.on('error', () => undefined);
  }

  /** Runs a lane in a thread of its own. Settles when the lane has left, rejects if its thread died. */
  async run(task: LaneTask): Promise<void> {
    // Named here and not for the whole pool: an idle thread loads nothing that it could be terminated in.
    const filename = task.process === null ? laneFile : bridgeFile;
    await this.#piscina.run(task, { filename, transferList: [task.port] });
  }

  /** Ends all threads. No lane may be running. */
  destroy(): Promise<void> {
    return this.#piscina.destroy();
  }
}

function idleWorker<W extends BalancedWorker>(workers: W[]): W | null {
  const idle = workers.find(
    (worker) => worker.currentUsage === 0 && !worker.terminating && !worker.destroyed,
  );
  if (idle === undefined) return null;
  // Piscina keeps the process alive while a task runs, which for a lane would be for ever. What is to keep it
  // alive is an outstanding request (see keep-alive.ts). Piscina takes its hold right after this call.
  queueMicrotask(() => taskPort(idle)?.unref());
  return idle;
}

/**
 * The port that Piscina sends a worker's tasks through. There is no public way to it; if a later Piscina
 * keeps it elsewhere, processes no longer end by themselves, which test/process-exit.test.ts notices.
 */
function taskPort(worker: BalancedWorker): MessagePort | undefined {
  for (const key of Object.getOwnPropertySymbols(worker)) {
    const inner: unknown = (worker as unknown as Record<symbol, unknown>)[key];
    if (typeof inner === 'object' && inner !== null && 'port' in inner) {
      return inner.port as MessagePort;
    }
  }
  return undefined;
}
