/** Closed loop: so many callers, each of whom asks again as soon as it has its answer, or its error. */

import type { Contender } from '../contenders/contender.js';
import { type EventLoopReport, watchEventLoop } from '../harness/event-loop.js';
import type { Outcome } from '../harness/open-loop.js';

export interface Callers {
  callers: number;
  request: Uint8Array;
  durationMs: number;
  /** The main thread is watched from here on. */
  warmUpMs: number;
  /** Asked when the duration is over: whether the load goes on all the same. */
  goesOn(): boolean;
  settled(outcome: Outcome): void;
}

export async function closedLoop(contender: Contender, load: Callers): Promise<EventLoopReport> {
  const { request, durationMs, warmUpMs, goesOn, settled } = load;
  const startMs = performance.now();
  let watched = watchEventLoop();
  const warm = setTimeout(() => {
    watched();
    watched = watchEventLoop();
  }, warmUpMs);
  let index = 0;
  const caller = async () => {
    for (;;) {
      const sentMs = performance.now() - startMs;
      if (sentMs >= durationMs && !goesOn()) return;
      const own = index++;
      let error: unknown;
      try {
        await contender.call(request);
      } catch (reason) {
        error = reason;
        // Errors can come at once, without a turn of the event loop: nothing else would run any more.
        await new Promise(setImmediate);
      }
      const latencyMs = performance.now() - startMs - sentMs;
      settled({ index: own, intendedMs: sentMs, latencyMs, sinceSentMs: latencyMs, error });
    }
  };
  await Promise.all(Array.from({ length: load.callers }, caller));
  clearTimeout(warm);
  return watched();
}
