/**
 * Counts of durations by size, with a relative error below 1 %.
 *
 * Up to 128 microseconds each has a bin of its own; above, every power of two is divided into 64
 * bins, as in an HDR histogram. Node's own histograms are quick to record into, but adding up and
 * reading the few that a version has takes 100 microseconds where this takes two: `stats()` of 200
 * endpoints held the event loop for 50 ms.
 *
 * Only the octaves between the smallest and the largest duration have memory, 512 bytes each: a
 * version has up to eighteen histograms, and all bins of each would be 16 KiB.
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

/** Microseconds that a bin of each octave covers. */
const BIN_WIDTHS = Array.from(
  { length: OCTAVES },
  (_, index) => 2 ** (index + EXACT_BITS - OCTAVE_BITS),
);

const NO_BINS = new Float64Array(0);

export class Histogram {
  /** From bin `#start` on. Doubles: in 32 bits the count of a busy bin wraps after an hour. */
  #bins = NO_BINS;
  #start = 0;
  /** How many are in each octave that has memory, so that quantiles pass over whole ones. */
  #octaves = NO_BINS;
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
    this.#makeRoom(bin);
    this.#add(bin, 1);
    if (bin < this.#first) this.#first = bin;
    if (bin > this.#last) this.#last = bin;
    this.count += 1;
    this.sum += value;
    if (value < this.min) this.min = value;
    if (value > this.max) this.max = value;
  }

  /** Counts all that `other` has counted. */
  add(other: Histogram): void {
    if (other.count === 0) return;
    this.#makeRoom(other.#first);
    this.#makeRoom(other.#last);
    // Plain loops over both: stats() does this for every version.
    const [bins, added, shift] = [this.#bins, other.#bins, other.#start - this.#start];
    const end = other.#last - other.#start;
    for (let at = other.#first - other.#start; at <= end; at++) {
      bins[at + shift] = (bins[at + shift] ?? 0) + (added[at] ?? 0);
    }
    for (let octave = other.#first >> OCTAVE_BITS; octave <= other.#last >> OCTAVE_BITS; octave++) {
      const at = octave - (this.#start >> OCTAVE_BITS);
      const count = other.#octaves[octave - (other.#start >> OCTAVE_BITS)] ?? 0;
      this.#octaves[at] = (this.#octaves[at] ?? 0) + count;
    }
    this.count += other.count;
    this.sum += other.sum;
    this.#first = Math.min(this.#first, other.#first);
    this.#last = Math.max(this.#last, other.#last);
    this.min = Math.min(this.min, other.min);
    this.max = Math.max(this.max, other.max);
  }

  /** Counts `count` more in a bin that has memory; less, if it is negative. */
  #add(bin: number, count: number): void {
    const at = bin - this.#start;
    const octave = at >> OCTAVE_BITS;
    this.#bins[at] = (this.#bins[at] ?? 0) + count;
    this.#octaves[octave] = (this.#octaves[octave] ?? 0) + count;
  }

  /** Sees to it that a bin has memory. */
  #makeRoom(bin: number): void {
    if (bin >= this.#start && bin < this.#start + this.#bins.length) return;
    const octave = bin - (bin % PER_OCTAVE);
    const isEmpty = this.#bins.length === 0;
    const start = isEmpty ? octave : Math.min(this.#start, octave);
    const oldEnd = this.#start + this.#bins.length;
    const end = isEmpty ? octave + PER_OCTAVE : Math.max(oldEnd, octave + PER_OCTAVE);
    const bins = new Float64Array(end - start);
    const octaves = new Float64Array(bins.length / PER_OCTAVE);
    if (!isEmpty) {
      bins.set(this.#bins, this.#start - start);
      octaves.set(this.#octaves, (this.#start - start) / PER_OCTAVE);
    }
    this.#bins = bins;
    this.#octaves = octaves;
    this.#start = start;
  }

  #countIn(bin: number): number {
    return this.#bins[bin - this.#start] ?? 0;
  }

  /** Bytes of its bins. */
  get byteLength(): number {
    return this.#bins.byteLength;
  }

  /**
   * Takes away what was also recorded in `part`, so that `rest` is left, which tells the limits of
   * it.
   */
  subtract(part: Histogram, rest: readonly Histogram[]): void {
    for (let bin = part.#first; bin <= part.#last; bin++) this.#add(bin, -part.#countIn(bin));
    this.count -= part.count;
    this.sum -= part.sum;
    this.#first = Math.min(BINS, ...rest.map((each) => each.#first));
    this.#last = Math.max(-1, ...rest.map((each) => each.#last));
    this.min = Math.min(...rest.map(({ min }) => min));
    this.max = Math.max(0, ...rest.map(({ max }) => max));
  }

  /**
   * For each of `shares`, which must rise from 0 to 1, the value that so many are not above of what
   * this one and `other` have counted, within 1 %; 0 if there is none.
   */
  quantiles(shares: readonly number[], other: Histogram = NOTHING): number[] {
    const total = this.count + other.count;
    if (total === 0) return shares.map(() => 0);
    const last = Math.max(this.#last, other.#last);
    const min = Math.min(this.min, other.min);
    const max = Math.max(this.max, other.max);
    // Plain loops over local arrays: stats() does this four times for every version.
    const [bins, start, octaves, startOctave] = this.#parts();
    const [otherBins, otherStart, otherOctaves, otherStartOctave] = other.#parts();
    let octave = Math.min(this.#first, other.#first) >> OCTAVE_BITS;
    let beforeOctave = 0;
    let bin = octave * PER_OCTAVE - 1;
    let upToBin = 0;
    const values: number[] = [];
    for (const share of shares) {
      const wanted = Math.max(1, Math.ceil(share * total));
      // All of them, as it is for the last shares of the few requests that most endpoints have.
      if (wanted >= total) bin = last;
      while (bin < last) {
        const here =
          (octaves[octave - startOctave] ?? 0) + (otherOctaves[octave - otherStartOctave] ?? 0);
        if (beforeOctave + here >= wanted) break;
        beforeOctave += here;
        octave += 1;
        bin = octave * PER_OCTAVE - 1;
        upToBin = beforeOctave;
      }
      while (upToBin < wanted && bin < last) {
        bin += 1;
        upToBin += (bins[bin - start] ?? 0) + (otherBins[bin - otherStart] ?? 0);
      }
      values.push(Math.min(Math.max(middleOf(bin), min), max));
    }
    return values;
  }

  #parts() {
    return [this.#bins, this.#start, this.#octaves, this.#start >> OCTAVE_BITS] as const;
  }
}

const NOTHING = new Histogram();

function binOf(value: number): number {
  if (value < EXACT) return value;
  if (value > LARGEST_INT32) {
    const exponent = Math.floor(Math.log2(value));
    return binIn(exponent, Math.floor(value / 2 ** (exponent - OCTAVE_BITS)));
  }
  // Nearly always. A power of a variable exponent would take longer than the rest of this file.
  const exponent = 31 - Math.clz32(value);
  return binIn(exponent, value >> (exponent - OCTAVE_BITS));
}

/** `leading` are the first seven bits of the value. */
function binIn(exponent: number, leading: number): number {
  return EXACT + (exponent - EXACT_BITS) * PER_OCTAVE + leading - PER_OCTAVE;
}

function middleOf(bin: number): number {
  if (bin < EXACT) return bin;
  const octave = Math.floor((bin - EXACT) / PER_OCTAVE);
  const part = (bin - EXACT) % PER_OCTAVE;
  return (PER_OCTAVE + part + 0.5) * (BIN_WIDTHS[octave] ?? 0);
}
