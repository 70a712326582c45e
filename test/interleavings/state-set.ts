/**
 * States, and the states that have been met, as 64-bit hashes: a set of the states themselves would take more memory than there is time to
 * fill. That two of a million states have the same hash, so that one of them is not entered, has a chance of 1 in 30 million.
 */

/** The largest number that a state can hold. */
export const MOST_IDS = 0xffff;

/**
 * A row of small numbers, all 0 to begin with. It keeps its hash as it changes (Zobrist's: what stands at each place is hashed by itself,
 * and these hashes are combined), because a step changes two or three of a hundred numbers.
 */
export class State {
  readonly #numbers: Uint16Array;
  low = 0;
  high = 0;

  constructor(length: number) {
    this.#numbers = new Uint16Array(length);
  }

  get(index: number): number {
    return this.#numbers[index] as number;
  }

  set(index: number, value: number): void {
    const before = this.#numbers[index] as number;
    if (before === value) return;
    this.#numbers[index] = value;
    this.low ^= lowHash(index, before) ^ lowHash(index, value);
    this.high ^= highHash(index, before) ^ highHash(index, value);
  }

  copy(other: State): void {
    this.#numbers.set(other.#numbers);
    this.low = other.low;
    this.high = other.high;
  }
}

function lowHash(index: number, value: number): number {
  return mixed((index << 16) ^ value ^ 0x5bd1e995);
}

function highHash(index: number, value: number): number {
  return mixed(Math.imul((index << 16) ^ value, 0x9e3779b1) ^ 0x27d4eb2f);
}

/** Every bit of the result depends on every bit given (MurmurHash3's finalizer). */
function mixed(bits: number): number {
  let hash = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

const START_SIZE = 1 << 14;

export class StateSet {
  /** Pairs of low and high halves, next to each other because each pair is most likely far from the one before. */
  #hashes = new Int32Array(2 * START_SIZE);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(state: State): boolean {
    const [low, high] = halves(state);
    const at = this.#place(low, high);
    return (this.#hashes[at] as number) !== 0 || (this.#hashes[at + 1] as number) !== 0;
  }

  /** Adds a state; false if it was there. */
  add(state: State): boolean {
    const [low, high] = halves(state);
    const at = this.#place(low, high);
    if (this.#hashes[at] !== 0 || this.#hashes[at + 1] !== 0) return false;
    this.#hashes[at] = low;
    this.#hashes[at + 1] = high;
    this.#size += 1;
    if (this.#size * 4 > this.#hashes.length) this.#grow();
    return true;
  }

  /** Where the halves are, or the empty place where they belong. */
  #place(low: number, high: number): number {
    const mask = this.#hashes.length - 1;
    let at = (low << 1) & mask;
    for (;;) {
      const [l, h] = [this.#hashes[at] as number, this.#hashes[at + 1] as number];
      if ((l === 0 && h === 0) || (l === low && h === high)) return at;
      at = (at + 2) & mask;
    }
  }

  #grow(): void {
    const hashes = this.#hashes;
    this.#hashes = new Int32Array(hashes.length * 2);
    for (let index = 0; index < hashes.length; index += 2) {
      const [low, high] = [hashes[index] as number, hashes[index + 1] as number];
      if (low === 0 && high === 0) continue;
      const at = this.#place(low, high);
      this.#hashes[at] = low;
      this.#hashes[at + 1] = high;
    }
  }
}

/** 0 and 0 stand for an empty place. */
function halves({ low, high }: State): readonly [number, number] {
  return low === 0 && high === 0 ? [1, 0] : [low, high];
}
