/**
 * The states that have been met, as 64-bit hashes: a set of the states themselves would take more memory than there is time to fill.
 * That two of a million states have the same hash, so that one of them is not entered, has a chance of 1 in 30 million.
 */

const START_SIZE = 1 << 14;

export class StateSet {
  #low = new Int32Array(START_SIZE);
  #high = new Int32Array(START_SIZE);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(state: Uint16Array): boolean {
    const at = this.#find(state);
    return (this.#low[at] as number) !== 0 || (this.#high[at] as number) !== 0;
  }

  /** Adds a state; false if it was there. */
  add(state: Uint16Array): boolean {
    if (this.has(state)) return false;
    const at = this.#find(state);
    this.#low[at] = lowHash;
    this.#high[at] = highHash;
    this.#size += 1;
    if (this.#size * 2 > this.#low.length) this.#grow();
    return true;
  }

  #find(state: Uint16Array): number {
    hash(state);
    return this.#place(lowHash, highHash);
  }

  #place(low: number, high: number): number {
    const mask = this.#low.length - 1;
    let at = low & mask;
    for (;;) {
      const [l, h] = [this.#low[at] as number, this.#high[at] as number];
      if ((l === 0 && h === 0) || (l === low && h === high)) return at;
      at = (at + 1) & mask;
    }
  }

  #grow(): void {
    const [low, high] = [this.#low, this.#high];
    this.#low = new Int32Array(low.length * 2);
    this.#high = new Int32Array(low.length * 2);
    for (let index = 0; index < low.length; index++) {
      const [l, h] = [low[index] as number, high[index] as number];
      if (l === 0 && h === 0) continue;
      const at = this.#place(l, h);
      this.#low[at] = l;
      this.#high[at] = h;
    }
  }
}

// Two results without an object for each.
let lowHash = 0;
let highHash = 0;

function hash(state: Uint16Array): void {
  let low = 0x811c9dc5 | 0;
  let high = 0x1b873593 | 0;
  for (let index = 0; index < state.length; index++) {
    const value = state[index] as number;
    low = Math.imul(low ^ value, 0x01000193);
    low ^= low >>> 15;
    high = Math.imul(high ^ value, 0x85ebca6b) + index;
    high ^= high >>> 13;
  }
  lowHash = Math.imul(low ^ (low >>> 16), 0xc2b2ae35);
  lowHash ^= lowHash >>> 13;
  highHash = Math.imul(high ^ (high >>> 16), 0x27d4eb2f);
  // 0 and 0 stand for an empty place.
  if (lowHash === 0 && highHash === 0) lowHash = 1;
}
