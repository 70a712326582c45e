/**
 * One clock for all threads of the process: `CLOCK_MONOTONIC` in milliseconds, with fractions.
 *
 * `performance.now()` is the cheapest clock there is, but each thread counts from its own start. The
 * offset to `process.hrtime()`, which is the same clock for all, is measured once a thread.
 */

// The global of this name is a getter, which optimised code calls each time.
import { performance } from 'node:perf_hooks';

const NS_PER_MS = 1e6;

/** How far this thread's `performance.now()` is behind the shared clock, in milliseconds. */
const offsetMs = measureOffset();

/** Now, in milliseconds of the monotonic clock; comparable between threads and with C handlers. */
export function monotonicMs(): number {
  return performance.now() + offsetMs;
}

/** Takes the tightest of a few brackets: a thread may be descheduled between two reads. */
function measureOffset(): number {
  let tightestMs = Number.POSITIVE_INFINITY;
  let offset = 0;
  for (let attempt = 0; attempt < 5; attempt++) {
    const before = performance.now();
    const shared = Number(process.hrtime.bigint()) / NS_PER_MS;
    const after = performance.now();
    if (after - before < tightestMs) {
      tightestMs = after - before;
      offset = shared - (before + after) / 2;
    }
  }
  return offset;
}
