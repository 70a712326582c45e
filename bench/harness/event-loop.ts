/** How the main thread fares while something runs. */

import { monitorEventLoopDelay, performance } from 'node:perf_hooks';

/** Milliseconds between the ticks of Node's monitor; it counts from tick to tick. */
const RESOLUTION_MS = 1;

export interface EventLoopReport {
  /** How much later than due a timer fired; NaN if the thread was blocked all the time, so that none did. */
  loopDelayP50Ms: number;
  loopDelayP99Ms: number;
  loopDelayMaxMs: number;
  /** Share of the time that the event loop was not idle: 0 to 1. */
  loopBusy: number;
}

/** Watches from now until the function that it returns is called. */
export function watchEventLoop(): () => EventLoopReport {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  histogram.enable();
  const before = performance.eventLoopUtilization();
  return () => {
    histogram.disable();
    const late = (ns: number) =>
      histogram.count === 0 ? Number.NaN : Math.max(0, ns / 1e6 - RESOLUTION_MS);
    return {
      loopDelayP50Ms: late(histogram.percentile(50)),
      loopDelayP99Ms: late(histogram.percentile(99)),
      loopDelayMaxMs: late(histogram.max),
      loopBusy: performance.eventLoopUtilization(before).utilization,
    };
  };
}
