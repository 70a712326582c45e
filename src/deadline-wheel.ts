/**
 * Deadlines of any number of requests: adding one, taking it back and finding those that are due
 * cost the same however many there are.
 *
 * A hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987).
 * Level 0 has a slot for each of the next 64 milliseconds, level 1 one for each 64 ms of the next 4
 * seconds, and so on. An element lies in the slot of its deadline at the lowest level that reaches
 * that far. When time enters a slot of a higher level, its elements move down. An element that is
 * taken back, as nearly all are, never moves.
 *
 * Not a heap: a heap would cost a request O(log n) on the way in and again on the way out.
 */

import { strict as assert } from 'node:assert';

const SLOT_BITS = 6;
const SLOTS = 2 ** SLOT_BITS;
const LARGEST_INT32 = 2 ** 31 - 1;
/** Milliseconds that one slot of each level covers. The last level reaches 2.2 years. */
const WIDTHS = [1, SLOTS, SLOTS ** 2, SLOTS ** 3, SLOTS ** 4, SLOTS ** 5] as const;
const LEVELS = WIDTHS.length;
const REACH = SLOTS ** LEVELS;

/** Where an element is that is in no slot. */
const NOWHERE = -1;

/** What an element needs so that it can be in one wheel at a time. Only the wheel writes it. */
export interface WheelLinks<T> {
  wheelPrevious: T | null;
  wheelNext: T | null;
  /** The slot it is in, counted through all levels. */
  wheelSlot: number;
  /** When it is due, in whole milliseconds since the wheel's origin. */
  wheelTick: number;
}

export const OUTSIDE_WHEEL: Readonly<WheelLinks<never>> = {
  wheelPrevious: null,
  wheelNext: null,
  wheelSlot: NOWHERE,
  wheelTick: 0,
};

export class DeadlineWheel<T extends WheelLinks<T>> {
  readonly #originMs: number;
  readonly #heads: (T | null)[] = new Array(SLOTS * LEVELS).fill(null);
  /** Elements at each level, so that empty levels are not searched. */
  readonly #counts: number[] = new Array(LEVELS).fill(0);
  /** Everything up to and including this tick has been given out. */
  #tick = 0;

  constructor(nowMs: number) {
    this.#originMs = nowMs;
  }

  /**
   * Adds an element that is in no wheel. One that is due already comes with the next millisecond.
   */
  add(element: T, atMs: number): void {
    if (element.wheelSlot !== NOWHERE) assert.fail('an element is in the wheel once');
    element.wheelTick = Math.ceil(atMs - this.#originMs);
    this.#place(element, this.#tick + 1);
  }

  /** Takes an element out. Does nothing if it is not in the wheel. */
  remove(element: T): void {
    const slot = element.wheelSlot;
    if (slot === NOWHERE) return;
    if (element.wheelPrevious === null) this.#heads[slot] = element.wheelNext;
    else element.wheelPrevious.wheelNext = element.wheelNext;
    if (element.wheelNext !== null) element.wheelNext.wheelPrevious = element.wheelPrevious;
    element.wheelPrevious = null;
    element.wheelNext = null;
    element.wheelSlot = NOWHERE;
    const level = slot >> SLOT_BITS;
    this.#counts[level] = (this.#counts[level] ?? 0) - 1;
  }

  /**
   * Takes out everything that is due at `nowMs` and gives it to `onDue`, which may add and remove
   * elements. Returns when to call this again: at or before the next deadline; Infinity if there
   * is none.
   */
  advance(nowMs: number, onDue: (element: T) => void): number {
    const target = Math.floor(nowMs - this.#originMs);
    for (let next = this.#nextTick(); next <= target; next = this.#nextTick()) {
      this.#tick = next;
      for (let level = LEVELS - 1; level > 0; level--) {
        if (next % (WIDTHS[level] ?? 1) === 0) this.#moveDown(slotAt(level, next));
      }
      this.#giveOut(slotAt(0, next), onDue);
    }
    this.#tick = Math.max(this.#tick, target);
    return this.#originMs + this.#nextTick();
  }

  #moveDown(slot: number): void {
    for (let element = this.#heads[slot]; element; element = this.#heads[slot]) {
      this.remove(element);
      this.#place(element, this.#tick);
    }
  }

  /** What `onDue` adds is due later, so it never lies in the slot that is being emptied. */
  #giveOut(slot: number, onDue: (element: T) => void): void {
    for (let element = this.#heads[slot]; element; element = this.#heads[slot]) {
      this.remove(element);
      onDue(element);
    }
  }

  /**
   * Puts it where its deadline belongs, `least` at the earliest: while elements move down, the
   * millisecond that begins is still to be given out.
   */
  #place(element: T, least: number): void {
    const tick = Math.max(element.wheelTick, least);
    const ahead = tick - this.#tick;
    let level = 0;
    while (level < LEVELS - 1 && ahead >= (WIDTHS[level + 1] ?? REACH)) level += 1;
    const slot = slotAt(level, ahead < REACH ? tick : this.#tick + REACH - 1);
    const head = this.#heads[slot] ?? null;
    element.wheelNext = head;
    if (head !== null) head.wheelPrevious = element;
    this.#heads[slot] = element;
    element.wheelSlot = slot;
    this.#counts[level] = (this.#counts[level] ?? 0) + 1;
  }

  /** The next tick at which something is due or moves down. */
  #nextTick(): number {
    let next = Number.POSITIVE_INFINITY;
    for (let level = 0; level < LEVELS; level++) {
      if (this.#counts[level] === 0) continue;
      const width = WIDTHS[level] ?? 1;
      const current = Math.floor(this.#tick / width);
      // The slot of the present has been emptied, so that what lies in it comes a whole turn later.
      for (let ahead = 1; ahead <= SLOTS; ahead++) {
        const tick = (current + ahead) * width;
        if (tick >= next) break;
        if (this.#heads[slotAt(level, tick)] !== null) {
          next = tick;
          break;
        }
      }
    }
    return next;
  }
}

/** In whole numbers of 32 bits as long as they suffice, which is 24 days: this is done for every request. */
const slotAt = (level: number, tick: number): number =>
  tick <= LARGEST_INT32
    ? (level << SLOT_BITS) | ((tick >> (level * SLOT_BITS)) & (SLOTS - 1))
    : level * SLOTS + (Math.floor(tick / (WIDTHS[level] ?? 1)) % SLOTS);
