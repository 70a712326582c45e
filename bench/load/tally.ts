/** What became of the requests: counted, and their times by when they were due. */

import { build, type Histogram } from 'hdr-histogram-js';
import { latencyReport } from '../harness/latency-report.js';
import { codeOf, type Outcome } from '../harness/open-loop.js';

/** The second that begins with the swap is looked at by itself. */
const AROUND_SWAP_MS = 1000;
const HIGHEST_NS = 600e9;

const newHistogram = () =>
  build({ highestTrackableValue: HIGHEST_NS, numberOfSignificantValueDigits: 3 });

export class Tally {
  answered = 0;
  /** After the warm-up. */
  measured = 0;
  readonly errors = new Map<string, number>();
  /** A message for each code, the first. */
  readonly messages = new Map<string, string>();
  /** When the swap was asked for, on the clock of the outcomes. */
  swapAtMs = Number.POSITIVE_INFINITY;
  readonly all = newHistogram();
  readonly before = newHistogram();
  readonly around = newHistogram();
  readonly after = newHistogram();
  readonly #warmUpMs: number;
  #lastAnswerMs = 0;

  constructor(warmUpMs: number) {
    this.#warmUpMs = warmUpMs;
  }

  get failed(): number {
    return [...this.errors.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Answered requests a second, from the end of the warm-up to the last answer. */
  get perSecond(): number {
    const ms = this.#lastAnswerMs - this.#warmUpMs;
    return ms > 0 ? (this.measured / ms) * 1000 : 0;
  }

  /** Errors count from the very beginning, times from the end of the warm-up. */
  settled({ intendedMs, latencyMs, error }: Outcome): void {
    if (error !== undefined) {
      const code = codeOf(error);
      this.errors.set(code, (this.errors.get(code) ?? 0) + 1);
      if (!this.messages.has(code)) {
        this.messages.set(code, error instanceof Error ? error.message : String(error));
      }
      return;
    }
    this.answered += 1;
    if (intendedMs < this.#warmUpMs) return;
    this.measured += 1;
    this.#lastAnswerMs = Math.max(this.#lastAnswerMs, intendedMs + latencyMs);
    const ns = Math.min(HIGHEST_NS, Math.max(1, Math.round(latencyMs * 1e6)));
    this.all.recordValue(ns);
    this.#phaseOf(intendedMs).recordValue(ns);
  }

  p99Ms(histogram: Histogram): number | null {
    return histogram.totalCount === 0 ? null : latencyReport(histogram).p99Us / 1000;
  }

  #phaseOf(intendedMs: number): Histogram {
    if (intendedMs < this.swapAtMs) return this.before;
    return intendedMs < this.swapAtMs + AROUND_SWAP_MS ? this.around : this.after;
  }
}
