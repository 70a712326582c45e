/**
 * Admits a few loads at a time, in the order in which they asked.
 *
 * Loads start threads and processes, which compete for the cores. A hundred at once all take as long
 * as a hundred, and so none of them is ready within its timeout; a few at a time are each quick.
 */

import { deferred } from './deferred.js';

export class LoadQueue {
  #free: number;
  /** How to admit each one that waits, oldest first. */
  readonly #waiting = new Set<() => void>();

  constructor(maxConcurrentLoads: number) {
    this.#free = maxConcurrentLoads;
  }

  /**
   * Runs `load` once it is its turn. What it does before it is admitted costs it none of its time.
   *
   * @throws the reason of `signal` if that is aborted before; `load` is not called then.
   */
  async admit<T>(load: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#turn(signal);
    try {
      return await load();
    } finally {
      this.#leave();
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const { promise, resolve: admit, reject } = deferred<void>();
    const giveUp = () => {
      this.#waiting.delete(admit);
      reject(signal.reason);
    };
    this.#waiting.add(admit);
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  /** The place goes to the one that has waited longest, or is free. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}
