/**
 * Counts of durations by size, with a relative error below 1 %.
 *
 * Up to 128 microseconds each has a bin of its own; above, every power of two is divided into 64
 * bins, as in an HDR histogram. Node's own histograms are quick to record into, but adding up and
 * reading the few that a version has takes 100 microseconds where this takes two: `stats()` of 200
 * endpoints held the event loop for 50 ms.
 */

const EXACT = 128;
const EXACT_BITS = 7;
const PER_OCTAVE = 64;
const OCTAVE_BITS = 6;
/** From 2^7 up to 2^37 microseconds, which is 38 hours. */
const OCTAVES = 30;
const BINS = EXACT + OCTAVES * PER_OCTAVE;
const LARGEST = 2 ** (EXACT_BITS + OCTAVES) - 1;
/** Larger ones have no 32-bit logarithm. */
const LARGEST_INT32 = 2 ** 31 - 1;

export class Histogram {
  /** Doubles: in 32 bits the count of a busy bin wraps after an hour. */
  readonly #bins = new Float64Array(BINS);
  /** The bins that are not empty lie from here ... */
  #first = BINS;
  /** ... to here. */
  #last = -1;
  count = 0;
  sum = 0;
  /** Infinity while it is empty. */
  min = Number.POSITIVE_INFINITY;
  max = 0;

  /** Counts a whole number of microseconds, of at least 1. */
  record(us: number): void {
    const value = us < LARGEST ? us : LARGEST;
    const bin = binOf(value);
    this.#bins[bin] = (this.#bins[bin] ?? 0) + 1;
    if (bin < this.#first) this.#first = bin;
    if (bin > this.#last) this.#last = bin;
    this.count += 1;
    this.sum += value;
    if (value < this.min) this.min = value;
    if (value > this.max) this.max = value;
  }

  /** Counts all that `other` has counted. */
  add(other: Histogram): void {
    for (let bin = other.#first; bin <= other.#last; bin++) {
      this.#bins[bin] = (this.#bins[bin] ?? 0) + (other.#bins[bin] ?? 0);
    }
    this.count += other.count;
    this.sum += other.sum;
    this.#first = Math.min(this.#first, other.#first);
    this.#last = Math.max(this.#last, other.#last);
    this.min = Math.min(this.min, other.min);
    this.max = Math.max(this.max, other.max);
  }

  /** What both have counted: this one, if the other is empty, or else a new one. */
  with(other: Histogram): Histogram {
    if (other.count === 0) return this;
    if (this.count === 0) return other;
    const both = new Histogram();
    both.add(this);
    both.add(other);
    return both;
  }

  /**
   * Takes away what was also recorded in `part`, so that `rest` is left, which tells the limits of
   * it.
   */
  subtract(part: Histogram, rest: readonly Histogram[]): void {
    for (let bin = part.#first; bin <= part.#last; bin++) {
      this.#bins[bin] = (this.#bins[bin] ?? 0) - (part.#bins[bin] ?? 0);
    }
    this.count -= part.count;
    this.sum -= part.sum;
    this.#first = Math.min(BINS, ...rest.map((each) => each.#first));
    this.#last = Math.max(-1, ...rest.map((each) => each.#last));
    this.min = Math.min(...rest.map(({ min }) => min));
    this.max = Math.max(0, ...rest.map(({ max }) => max));
  }

  /**
   * For each of `shares`, which must rise from 0 to 1, the value that so many are not above, within
   * 1 %; 0 if there is none.
   */
  quantiles(shares: readonly number[]): number[] {
    let bin = this.#first - 1;
    let below = 0;
    return shares.map((share) => {
      if (this.count === 0) return 0;
      const wanted = Math.max(1, Math.ceil(share * this.count));
      while (below < wanted && bin < this.#last) {
        bin += 1;
        below += this.#bins[bin] ?? 0;
      }
      return Math.min(Math.max(middleOf(bin), this.min), this.max);
    });
  }
}

function binOf(value: number): number {
  if (value < EXACT) return value;
  const exponent = value <= LARGEST_INT32 ? 31 - Math.clz32(value) : Math.floor(Math.log2(value));
  const part = Math.floor(value / 2 ** (exponent - OCTAVE_BITS)) - PER_OCTAVE;
  return EXACT + (exponent - EXACT_BITS) * PER_OCTAVE + part;
}

function middleOf(bin: number): number {
  if (bin < EXACT) return bin;
  const octave = Math.floor((bin - EXACT) / PER_OCTAVE);
  const part = (bin - EXACT) % PER_OCTAVE;
  return (PER_OCTAVE + part + 0.5) * 2 ** (octave + EXACT_BITS - OCTAVE_BITS);
}
