/**
 * Latency percentiles since the start and over a sliding window.
 *
 * The window is made of buckets of ten seconds. A duration is recorded in the newest bucket alone, since
 * that happens with every request. A bucket that is full is added to the window and to the total, and is taken
 * away from the window once it is too old; so that little has to be added up when somebody asks.
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
  /** Without the current bucket, as the window. */
  readonly #total = new Histogram();
  readonly #window = new Histogram();
  /** Full buckets that are in the window, oldest first. */
  #buckets: Bucket[] = [];
  #current: Bucket = { startMs: Number.NEGATIVE_INFINITY, histogram: new Histogram() };

  /** Records a duration that ended at `nowMs` of the monotonic clock. */
  record(durationMs: number, nowMs: number): void {
    if (nowMs - this.#current.startMs >= BUCKET_MS) this.#advance(nowMs);
    // What took less than a microsecond counts as one.
    this.#current.histogram.record(Math.max(1, Math.round(durationMs / MS_PER_UNIT)));
  }

  stats(nowMs: number): LatencyStats {
    if (nowMs - this.#current.startMs >= BUCKET_MS) this.#advance(nowMs);
    this.#retireBefore(nowMs - WINDOW_MS);
    const { histogram } = this.#current;
    const window = summarise(this.#window, histogram);
    // Everything is in the total. As long as nothing has left the window, both are the same.
    const isAll = this.#window.count === this.#total.count;
    return { window, total: isAll ? { ...window } : summarise(this.#total, histogram) };
  }

  /** Bytes of its histograms. */
  get byteLength(): number {
    const buckets = [...this.#buckets, this.#current].map(({ histogram }) => histogram);
    const all = [this.#total, this.#window, ...buckets];
    return all.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  #advance(nowMs: number): void {
    const full = this.#current;
    if (full.histogram.count > 0) {
      this.#window.add(full.histogram);
      this.#total.add(full.histogram);
      this.#buckets.push(full);
    }
    this.#retireBefore(nowMs - WINDOW_MS);
    const histogram = full.histogram.count > 0 ? new Histogram() : full.histogram;
    this.#current = { startMs: nowMs, histogram };
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
  }
}

const SHARES = [0.5, 0.9, 0.99, 0.999] as const;

/** Of what both have counted. */
function summarise(older: Histogram, newest: Histogram): LatencySummary {
  const count = older.count + newest.count;
  const sum = older.sum + newest.sum;
  const min = Math.min(older.min, newest.min);
  const max = Math.max(older.max, newest.max);
  const [p50 = 0, p90 = 0, p99 = 0, p999 = 0] = older.quantiles(SHARES, newest);
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
