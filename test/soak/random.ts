/** Choices from a seed. Each part of the soak has a stream of its own, so that none depends on how another's time went. */

import { randomFrom } from '../../bench/harness/random.js';

export class Random {
  readonly #next: () => number;

  /** `name` tells the streams of one seed apart. */
  constructor(seed: number, name: string) {
    this.#next = randomFrom(seed ^ hash(name));
  }

  /** A whole number from `least` to `most`. */
  int(least: number, most: number): number {
    return least + Math.floor(this.#next() * (most - least + 1));
  }

  /** True in `share` of all cases. */
  chance(share: number): boolean {
    return this.#next() < share;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.int(0, from.length - 1)] as T;
  }

  /** One of the names, each as often as its weight says. */
  weighted<K extends string>(weights: Readonly<Partial<Record<K, number>>>): K {
    const entries = Object.entries(weights) as [K, number][];
    let left = this.#next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) {
      left -= weight;
      if (left < 0) return name;
    }
    return (entries.at(-1) as [K, number])[0];
  }

  /** A pause whose length is about `meanMs`, now and then several times that. */
  pauseMs(meanMs: number): number {
    return -Math.log(1 - this.#next()) * meanMs;
  }
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}
