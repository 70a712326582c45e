/** Percentiles of a histogram of nanoseconds. */

import type { Histogram } from 'hdr-histogram-js';

export interface LatencyReport {
  count: number;
  p50Us: number;
  p90Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
}

export function latencyReport(histogram: Histogram): LatencyReport & Record<string, number> {
  const us = (percentile: number) => histogram.getValueAtPercentile(percentile) / 1000;
  return {
    count: histogram.totalCount,
    p50Us: us(50),
    p90Us: us(90),
    p99Us: us(99),
    p999Us: us(99.9),
    maxUs: histogram.maxValue / 1000,
  };
}
