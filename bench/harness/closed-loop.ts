/** Load by so many callers, each of whom asks again as soon as it has its answer: how much can be done at most. */

import { build } from 'hdr-histogram-js';
import type { CallOptions, Contender } from '../contenders/contender.js';
import { watchEventLoop } from './event-loop.js';
import { latencyReport } from './latency-report.js';
import { checkResponse } from './requests.js';

export interface ClosedLoop {
  request: Uint8Array;
  outstanding: number;
  durationMs: number;
  /** How long to load before measuring. Default: half the duration. */
  warmUpMs?: number;
  options?: CallOptions;
}

/** Requests a second. Every response is checked. */
export async function throughput(contender: Contender, load: ClosedLoop) {
  const { durationMs, warmUpMs = durationMs / 2 } = load;
  await closedLoop(contender, load, warmUpMs);
  const watched = watchEventLoop();
  const startedMs = performance.now();
  const done = await closedLoop(contender, load, durationMs);
  const perSecond = (done / (performance.now() - startedMs)) * 1000;
  return { perSecond, ...watched() };
}

async function closedLoop(
  contender: Contender,
  { request, outstanding, options }: ClosedLoop,
  durationMs: number,
): Promise<number> {
  const endMs = performance.now() + durationMs;
  let done = 0;
  let ended = false;
  const caller = async () => {
    while (!ended) {
      const response = await contender.call(request, options);
      checkResponse(request, response);
      contender.release?.(response);
      done += 1;
      // A look at the clock costs as much as a fast call.
      if ((done & 15) === 0 || outstanding === 1) ended = performance.now() >= endMs;
    }
  };
  // What takes long is not looked at sixteen times.
  const timer = setTimeout(() => {
    ended = true;
  }, durationMs);
  await Promise.all(Array.from({ length: outstanding }, caller));
  clearTimeout(timer);
  return done;
}

/** How long one request takes when there is no other. */
export async function alone(contender: Contender, load: Omit<ClosedLoop, 'outstanding'>) {
  const { request, durationMs, warmUpMs = durationMs / 2, options } = load;
  await closedLoop(contender, { ...load, outstanding: 1 }, warmUpMs);
  const histogram = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  const endMs = performance.now() + durationMs;
  while (performance.now() < endMs) {
    const startedNs = process.hrtime.bigint();
    const response = await contender.call(request, options);
    histogram.recordValue(Number(process.hrtime.bigint() - startedNs));
    checkResponse(request, response);
  }
  return latencyReport(histogram);
}
