/**
 * Latency percentiles since the start and over a sliding window.
 *
 * The window is made of buckets of ten seconds. A duration is recorded in the newest, in the window and in the
 * total, so that nothing has to be added up when somebody asks. A bucket that has become too old is taken
 * away from the window.
 */

import { Histogram } from './histogram.js';

const BUCKET_MS = 10_000;
const WINDOW_BUCKETS = 6;
/** What a latency summary's `window` covers. */
export const WINDOW_MS = BUCKET_MS * WINDOW_BUCKETS;

const MS_PER_UNIT = 0.001;

/** Percentiles of a set of durations, in milliseconds; all 0 if the set is empty. */
export interface LatencySummary {
  count: number;
  minMs: number;
  meanMs: number;
  p50Ms: number;
  p90Ms: number;
  p99Ms: number;
  p999Ms: number;
  maxMs: number;
}

/** The last minute, and everything since the version was loaded. */
export interface LatencyStats {
  window: LatencySummary;
  total: LatencySummary;
}

interface Bucket {
  startMs: number;
  histogram: Histogram;
}

export class LatencyRecorder {
  readonly #total = new Histogram();
  readonly #window = new Histogram();
  /** Oldest first. */
  #buckets: Bucket[] = [];
  #current: Bucket | null = null;

  /** Records a duration that ended at `nowMs` of the monotonic clock. */
  record(durationMs: number, nowMs: number): void {
    if (this.#current === null || nowMs - this.#current.startMs >= BUCKET_MS) this.#advance(nowMs);
    // What took less than a microsecond counts as one.
    const us = Math.max(1, Math.round(durationMs / MS_PER_UNIT));
    this.#current?.histogram.record(us);
    this.#window.record(us);
    this.#total.record(us);
  }

  stats(nowMs: number): LatencyStats {
    this.#retireBefore(nowMs - WINDOW_MS);
    return { window: summarise(this.#window), total: summarise(this.#total) };
  }

  #advance(nowMs: number): void {
    this.#retireBefore(nowMs - WINDOW_MS);
    this.#current = { startMs: nowMs, histogram: new Histogram() };
    this.#buckets.push(this.#current);
  }

  #retireBefore(limitMs: number): void {
    for (let oldest = this.#buckets[0]; oldest; oldest = this.#buckets[0]) {
      if (oldest.startMs >= limitMs) break;
      this.#buckets.shift();
      this.#window.subtract(
        oldest.histogram,
        this.#buckets.map(({ histogram }) => histogram),
      );
    }
    if (this.#current !== null && this.#current.startMs < limitMs) this.#current = null;
  }
}

const SHARES = [0.5, 0.9, 0.99, 0.999] as const;

function summarise(histogram: Histogram): LatencySummary {
  const { count, sum, min, max } = histogram;
  const [p50 = 0, p90 = 0, p99 = 0, p999 = 0] = histogram.quantiles(SHARES);
  return {
    count,
    minMs: (count === 0 ? 0 : min) * MS_PER_UNIT,
    meanMs: (count === 0 ? 0 : sum / count) * MS_PER_UNIT,
    p50Ms: p50 * MS_PER_UNIT,
    p90Ms: p90 * MS_PER_UNIT,
    p99Ms: p99 * MS_PER_UNIT,
    p999Ms: p999 * MS_PER_UNIT,
    maxMs: max * MS_PER_UNIT,
  };
}
