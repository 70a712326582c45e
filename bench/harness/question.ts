/** What a question of the bench is: what it asks, what is run for it, and how the answer is shown. */

import type { Plot } from './plot.js';

/** What runs in one fresh process. Its values are what makes it different from the question's other trials. */
export type Trial = Readonly<Record<string, string | number>>;

/** What one trial measured. A list is a series over time or over steps, the same in every round. */
export type Measurement = Record<string, number | number[]>;

/** How much is run: all of it, enough for one of many pairs that are compared, or just enough to see that it runs. */
export type Mode = 'full' | 'short' | 'quick';

export interface Question {
  readonly name: string;
  readonly question: string;
  /** The answer that was expected before measuring, and why. */
  readonly predicted: string;
  /** How many rounds a full run has. */
  readonly rounds: number;
  /** All trials of a round, in their order. */
  trials(mode: Mode): Trial[];
  /** Runs one, in the process that was started for it. */
  measure(trial: Trial, mode: Mode): Promise<Measurement>;
  /** By what one commit is compared with another: trials of the engine, few enough for many rounds. */
  readonly compared: readonly Compared[];
  /** The answer, from the medians of all rounds. */
  answer(results: Results): Answer;
}

export interface Compared {
  trial: Trial;
  figures: readonly Figure[];
}

/** A measured number that has a better and a worse direction. */
export interface Figure {
  /** In the trial's measurement. */
  key: string;
  /** What a reader sees, with the unit. */
  label: string;
  better: 'higher' | 'lower';
}

export interface Answer {
  /** What a reader in a hurry should know, in one sentence made from the numbers. */
  headline?: string;
  tables: Table[];
  plots: Plot[];
  levels: Level[];
}

export interface Table {
  title: string;
  /** The first column holds names, the others numbers. */
  columns: string[];
  rows: string[][];
  /** What a reader needs to know to read it right. */
  note?: string;
}

/** A number that is to be reached. */
export interface Level {
  what: string;
  value: number;
  atLeast?: number;
  atMost?: number;
  /** Such as `x` or `ms`. */
  unit: string;
}

/** One trial in one round; if it failed, why. */
export interface Sample {
  trial: Trial;
  round: number;
  measurement?: Measurement;
  error?: string;
}

/** A number over all rounds. */
export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** The samples of a question, to be asked for medians. */
export class Results {
  readonly #samples: readonly Sample[];

  constructor(samples: readonly Sample[]) {
    this.#samples = samples;
  }

  /** The trials that were run and agree with `part`. */
  trials(part: Trial = {}): Trial[] {
    const distinct = new Map<string, Trial>();
    for (const { trial } of this.#matching(part)) distinct.set(JSON.stringify(trial), trial);
    return [...distinct.values()];
  }

  /** The different values that trials have for `key`, in their order. */
  values<T extends string | number>(key: string, part: Trial = {}): T[] {
    const all = this.trials(part).flatMap((trial) => trial[key] ?? []);
    return [...new Set(all)] as T[];
  }

  /** A measured number over the rounds; null if no round has it. */
  spread(part: Trial, key: string): Spread | null {
    const numbers = this.#matching(part).flatMap(({ measurement }) => measurement?.[key] ?? []);
    if (numbers.length === 0) return null;
    const sorted = numbers.toSorted((a, b) => a - b);
    return { median: median(sorted), min: sorted[0] ?? 0, max: sorted.at(-1) ?? 0 };
  }

  /** The median of a measured number; NaN if no round has it. */
  median(part: Trial, key: string): number {
    return this.spread(part, key)?.median ?? Number.NaN;
  }

  /** The median of each element of a measured series. */
  series(part: Trial, key: string): number[] {
    const rounds = this.#matching(part).flatMap(({ measurement }) => {
      const series = measurement?.[key];
      return Array.isArray(series) ? [series] : [];
    });
    const length = Math.min(...rounds.map((series) => series.length));
    if (rounds.length === 0) return [];
    return Array.from({ length }, (_, index) => {
      return median(rounds.map((series) => series[index] ?? Number.NaN));
    });
  }

  #matching(part: Trial): Sample[] {
    return this.#samples.filter(({ trial }) =>
      Object.entries(part).every(([key, value]) => trial[key] === value),
    );
  }
}

/** NaN of nothing. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}
