/** Where an axis begins and ends, and what is written on it. */

import type { Axis } from '../harness/plot.js';

export interface Range {
  min: number;
  max: number;
  ticks: number[];
}

/** A span of fewer decades has 1, 2 and 5 written, not the powers of ten alone. */
const FEW_DECADES = 2;
/** Values on a logarithmic axis that are written themselves if there are no more. */
const FEW_VALUES = 9;
/** Ticks that an axis has at most, about. */
const LINEAR_STEPS = { x: 8, y: 4 } as const;

/** For the values that were measured: they themselves where they are few. */
export function xRange(axis: Axis, values: readonly number[]): Range {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  const [min = 0, max = 1] = [distinct[0], distinct.at(-1)];
  if (axis.scale === 'log') {
    const few = distinct.length <= FEW_VALUES;
    return { min, max, ticks: few ? distinct : logTicks(min, max, axis) };
  }
  if (distinct.length <= FEW_VALUES) return { min, max, ticks: distinct };
  // What begins next to 0 begins at 0.
  const start = min > 0 && min < (max - min) / 10 ? 0 : min;
  const { ticks } = linear(start, max, LINEAR_STEPS.x, axis);
  return { min: start, max, ticks: ticks.filter((tick) => tick >= start && tick <= max) };
}

/** Linear from 0; logarithmic from the tick below the least value to the one above the largest. */
export function yRange(axis: Axis, values: readonly number[]): Range {
  const max = Math.max(...values);
  if (axis.scale !== 'log') {
    return max > 0 ? linear(0, max, LINEAR_STEPS.y, axis) : { min: 0, max: 1, ticks: [0, 1] };
  }
  const positive = values.filter((value) => value > 0);
  const low = Math.min(...positive);
  const high = Math.max(...positive);
  const ticks = logTicks(low / 5, high * 5, axis);
  const first = Math.max(
    0,
    ticks.findLastIndex((tick) => tick <= low * 1.0001),
  );
  const last = ticks.findIndex((tick) => tick >= high * 0.9999);
  const used = ticks.slice(first, last === -1 ? undefined : last + 1);
  return { min: used[0] ?? low, max: used.at(-1) ?? high, ticks: used };
}

function logTicks(low: number, high: number, { unit }: Axis): number[] {
  if (unit === 'bytes') return binaryTicks(low, high);
  const from = Math.floor(Math.log10(low));
  const to = Math.ceil(Math.log10(high));
  const steps = Math.log10(high / low) <= FEW_DECADES + Math.log10(25) ? [1, 2, 5] : [1];
  const ticks: number[] = [];
  for (let power = from; power <= to; power++) {
    for (const step of steps) ticks.push(Number((step * 10 ** power).toPrecision(1)));
  }
  return ticks;
}

/** Every 4, 16, 64 ... times as many bytes, so that the numbers are round. */
function binaryTicks(low: number, high: number): number[] {
  const from = Math.floor(Math.log2(low));
  const to = Math.ceil(Math.log2(high));
  const step = Math.max(1, Math.round((to - from) / 12)) * 2;
  const count = Math.ceil((to - from) / step) + 1;
  const first = Math.floor(from / step) * step;
  return Array.from({ length: count + 1 }, (_, index) => 2 ** (first + index * step));
}

function linear(low: number, high: number, steps: number, { unit }: Axis): Range {
  const step = roundStep((high - low) / steps, unit === 'bytes' ? 1024 : 1000);
  const min = Math.floor(low / step) * step;
  const max = Math.ceil((high / step) * 0.9999) * step;
  const ticks: number[] = [];
  for (let index = 0; min + index * step <= max * 1.0001; index++) {
    ticks.push(Number((min + index * step).toPrecision(12)));
  }
  return { min, max, ticks };
}

/** The next of 1, 2, 5, 10 ... in units of the largest power of `base` below. */
function roundStep(least: number, base: number): number {
  const unit = base ** Math.floor(Math.log(least) / Math.log(base));
  const power = 10 ** Math.floor(Math.log10(least / unit));
  const step = [1, 2, 5, 10].find((factor) => factor * power * unit >= least * 0.9999) ?? 10;
  return step * power * unit;
}
