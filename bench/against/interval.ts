/**
 * A confidence interval of a median that assumes nothing about how the values are distributed.
 *
 * Each value is above the true median with probability 1/2, so the number of values above it is
 * binomial, and the interval from the j-th smallest to the j-th largest value misses the median
 * with probability 2 · P(Bin(n, 1/2) < j). The largest j for which that is at most 5 % gives the
 * narrowest such interval: J.-Y. Le Boudec, "Performance Evaluation of Computer and Communication
 * Systems" (2010), section 2.2 and its table for n from 6 on. A bootstrap would be narrower by a
 * hair, but only approximately right for few values, and two runs over the same values would
 * differ.
 */

import { median } from '../harness/question.js';

export const CONFIDENCE = 0.95;
/**
 * With fewer values than this, not even the lowest and the highest enclose the median with 95 %
 * confidence.
 */
export const FEWEST_VALUES = 6;

export interface MedianInterval {
  median: number;
  low: number;
  high: number;
  /** The probability that such an interval encloses the true median: at least `CONFIDENCE`. */
  coverage: number;
}

/** The interval; null if there are fewer than `FEWEST_VALUES` values. */
export function medianInterval(values: readonly number[]): MedianInterval | null {
  if (values.length < FEWEST_VALUES) return null;
  const sorted = values.toSorted((a, b) => a - b);
  const { rank, coverage } = ranksAround(values.length);
  return {
    median: median(sorted),
    low: sorted[rank - 1] ?? Number.NaN,
    high: sorted[sorted.length - rank] ?? Number.NaN,
    coverage,
  };
}

/** The interval goes from the `rank`-th smallest to the `rank`-th largest of `count` values. */
function ranksAround(count: number): { rank: number; coverage: number } {
  let rank = 0;
  let below = 0;
  // P(Bin(count, 1/2) = 0), by logarithms: 2 ** -count is 0 for more than 1,074 values.
  let logTerm = -count * Math.LN2;
  for (;;) {
    const next = below + Math.exp(logTerm);
    if (2 * next > 1 - CONFIDENCE) return { rank, coverage: 1 - 2 * below };
    below = next;
    rank += 1;
    logTerm += Math.log((count - rank + 1) / rank);
  }
}

/** How far the interval reaches from the median, as a share of it. */
export function relativeWidth({ median: middle, low, high }: MedianInterval): number {
  return Math.max(high / middle - 1, 1 - low / middle);
}
