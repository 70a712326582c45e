/** How late the main thread's timers are while something runs. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** How often the histogram's timer fires. What it records is this plus the delay. */
const RESOLUTION_MS = 1;

export class DelayMeter {
  /** Of all measured times, the worst of each figure. */
  p99Ms = 0;
  maxMs = 0;

  async during<T>(work: () => Promise<T>): Promise<T> {
    const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    histogram.enable();
    try {
      return await work();
    } finally {
      histogram.disable();
      this.p99Ms = Math.max(this.p99Ms, delayMs(histogram.percentile(99)));
      this.maxMs = Math.max(this.maxMs, delayMs(histogram.max));
    }
  }
}

function delayMs(recordedNs: number): number {
  return Math.max(0, recordedNs / 1e6 - RESOLUTION_MS);
}
