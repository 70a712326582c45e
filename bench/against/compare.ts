/**
 * Compares two builds of the engine by pairs of trials that run one right after the other, so that
 * a machine that becomes slower does so for both. The order alternates (A B, B A, A B, ...), so
 * that neither always has the machine that the other one has warmed up.
 *
 * Each trial is a fresh process: where the memory of a process happens to lie, and when its code
 * happens to be compiled, makes more of a difference than a round, and must differ from pair to
 * pair for the interval to know of it.
 */

import type { Compared, Figure, Measurement, Trial } from '../harness/question.js';
import { type MedianInterval, medianInterval, relativeWidth } from './interval.js';

export type SideName = 'new' | 'old';

/** How far the interval may reach from the median on either side, as a share of it. */
export const WITHIN = 0.02;
/**
 * An interval of fewer pairs may be narrow by chance. It is looked at after every second pair,
 * which widens the error of 5 % a little.
 */
export const FEWEST_PAIRS = 10;

export interface Comparison {
  compared: readonly Compared[];
  /** Runs the trial in this build. Rejects if it fails. */
  measure(side: SideName, trial: Trial): Promise<Measurement>;
  fewestPairs: number;
  mostPairs: number;
  mostMs: number;
  /** Called after each pair. */
  progress(state: { pairs: number; results: readonly FigureResult[] }): void;
  /** The clock, in milliseconds. */
  now(): number;
}

/** What came of one figure. */
export interface FigureResult {
  figure: Figure;
  /** One value from each pair, in the order of the pairs. */
  new: number[];
  old: number[];
  /** Above 1: the new build is better, whichever direction is the better one for this figure. */
  ratios: number[];
  /** Null: too few pairs. */
  interval: MedianInterval | null;
  /** Whether the interval lies within `WITHIN` of its median. */
  isWithin: boolean;
  /** Why there are no further pairs: the trial failed. */
  error?: string;
}

/**
 * Pairs until the intervals of all figures are narrow enough, or the most pairs or the most time is
 * reached.
 */
export async function compare(comparison: Comparison): Promise<FigureResult[]> {
  const { compared, fewestPairs, mostPairs, mostMs, progress, now } = comparison;
  const startedMs = now();
  const entries = compared.map(({ trial, figures }) => ({ trial, results: figures.map(nothing) }));
  const results = entries.flatMap((entry) => entry.results);
  let open = entries;
  for (let pair = 1; open.length > 0 && pair <= mostPairs; pair++) {
    if (now() - startedMs >= mostMs) break;
    for (const entry of open) await addPair(comparison, entry, pair);
    progress({ pairs: pair, results });
    // Only after both orders: a half that always ran second would count once more than the other.
    const mayClose = pair >= fewestPairs && pair % 2 === 0;
    open = open.filter(
      (entry) =>
        !entry.results.some(({ error }) => error !== undefined) &&
        !(mayClose && entry.results.every(({ isWithin }) => isWithin)),
    );
  }
  return results;
}

function nothing(figure: Figure): FigureResult {
  return { figure, new: [], old: [], ratios: [], interval: null, isWithin: false };
}

async function addPair(
  { measure }: Comparison,
  { trial, results }: { trial: Trial; results: FigureResult[] },
  pair: number,
): Promise<void> {
  const order: readonly SideName[] = pair % 2 === 1 ? ['new', 'old'] : ['old', 'new'];
  const measured: Partial<Record<SideName, Measurement>> = {};
  try {
    for (const side of order) measured[side] = await measure(side, trial);
    for (const result of results) addRatio(result, measured);
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error;
    for (const result of results) result.error = (error as Error).message;
  }
}

function addRatio(result: FigureResult, measured: Partial<Record<SideName, Measurement>>): void {
  const positive = (side: SideName) => {
    const value = measured[side]?.[result.figure.key];
    // A ratio needs two numbers above 0.
    if (typeof value === 'number' && value > 0 && Number.isFinite(value)) return value;
    throw new Error(`${side}: ${result.figure.key} must be a number above 0, got ${value}`);
  };
  const [fresh, old] = [positive('new'), positive('old')];
  result.new.push(fresh);
  result.old.push(old);
  result.ratios.push(result.figure.better === 'higher' ? fresh / old : old / fresh);
  result.interval = medianInterval(result.ratios);
  result.isWithin = result.interval !== null && relativeWidth(result.interval) <= WITHIN;
}
