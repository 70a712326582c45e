/**
 * The lane's side of the ring: take a request, report it done, sleep, and say when this thread must
 * not be terminated. Knows nothing of native code; runs in a worker thread.
 */

import { WatchPolicy } from '../watch-policy.js';
import {
  actorIn,
  CONTROL,
  HOLDER_ONE,
  holdersIn,
  LANE,
  LIBRARY,
  laneAt,
  libraryIn,
  libraryWord,
  MODE,
  type RingLayout,
  type RingShape,
  ringLayout,
  ringViews,
  SLOT,
  SLOT_DOUBLE,
  STATE,
  slotAt,
  slotDoubleAt,
  stateOn,
  WAIT,
} from './layout.js';

/** What `take` returns when there is nothing to run. */
export const NOTHING = -1;

/**
 * How long a lane looks for work before it sleeps, if its last wait was as short. Waking a sleeping thread costs 5 to 50
 * microseconds, which counts towards that wait; a lane whose requests come further apart than this never watches.
 */
const WATCH_MS = 0.1;
/** A watch cannot take this long unless this thread was not running. */
const INTERRUPTED_MS = 3 * WATCH_MS;

export class RingConsumer {
  /** Whether the last wait was short enough that watching would have seen its end. */
  #watches = false;
  readonly #policy = new WatchPolicy();
  readonly layout: RingLayout;
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly bytes: Uint8Array;
  readonly #lane: number;
  readonly #record: number;
  /** What this lane writes to SLOT.STATE. */
  readonly #running: number;
  readonly #done: number;
  readonly #ringDoorbell: () => void;

  /** `ringDoorbell` makes the host call `RingProducer.collect` soon. */
  constructor(memory: SharedArrayBuffer, shape: RingShape, lane: number, ringDoorbell: () => void) {
    this.layout = ringLayout(shape);
    ({
      words: this.words,
      doubles: this.doubles,
      bytes: this.bytes,
    } = ringViews(memory, this.layout));
    this.#lane = lane;
    this.#record = laneAt(this.layout, lane);
    this.#running = stateOn(lane, STATE.RUNNING);
    this.#done = stateOn(lane, STATE.DONE);
    this.#ringDoorbell = ringDoorbell;
  }

  /** The next slot, now RUNNING and this lane's own, or `NOTHING`. */
  take(): number {
    const { words, layout } = this;
    for (;;) {
      const head = Atomics.load(words, CONTROL.HEAD);
      if (head === Atomics.load(words, CONTROL.TAIL)) return NOTHING;
      // The entry is read before the head is moved: once it is moved, other lanes may go all the way
      // round and the host may write over it. If the exchange succeeds, what was read was current.
      const slot = Atomics.load(words, layout.queueWords + (head & layout.queueMask));
      // Noted before it is taken, so that a lane that dies in between does not take it along. Never taken back: whether
      // the lane really has it, the slot's state tells.
      Atomics.store(words, this.#record + LANE.SLOT, slot + 1);
      if (Atomics.compareExchange(words, CONTROL.HEAD, head, (head + 1) | 0) !== head) continue;
      const at = slotAt(layout, slot);
      const before = Atomics.compareExchange(words, at + SLOT.STATE, STATE.QUEUED, this.#running);
      if (before === STATE.QUEUED) return slot;
      // A slot that was queued again for a lane that died can be met twice: then it is not ours.
      if (before === STATE.WITHDRAWN) this.#skip(slot, at);
    }
  }

  /**
   * Takes back `take`, for a slot whose call never began because the process for it is gone. The lane must die then: the host
   * queues what a dead lane had not begun for another.
   */
  putBack(slot: number): void {
    const state = slotAt(this.layout, slot) + SLOT.STATE;
    Atomics.compareExchange(this.words, state, this.#running, STATE.QUEUED);
  }

  /** Hands a slot back to the host. Status, response and times must have been written before. */
  complete(slot: number): void {
    // If the lane dies between the two, the host finds the slot when it buries the lane.
    Atomics.store(this.words, slotAt(this.layout, slot) + SLOT.STATE, this.#done);
    this.#publish(slot);
  }

  /** Hands back a slot that the host has withdrawn, and whose ledger entry it has lowered. */
  #skip(slot: number, at: number): void {
    // Compared, because after a lane's death two lanes may meet the same slot.
    const before = Atomics.compareExchange(
      this.words,
      at + SLOT.STATE,
      STATE.WITHDRAWN,
      this.#done,
    );
    if (before === STATE.WITHDRAWN) this.#publish(slot);
  }

  #publish(slot: number): void {
    const { words } = this;
    Atomics.or(words, this.layout.bitmapWords + (slot >> 5), 1 << (slot & 31));
    if (Atomics.exchange(words, CONTROL.DOORBELL, 1) === 0) this.#ringDoorbell();
  }

  /** The slot's deadline, in milliseconds of the monotonic clock. */
  deadlineMs(slot: number): number {
    return this.doubles[slotDoubleAt(this.layout, slot) + SLOT_DOUBLE.DEADLINE_MS] ?? 0;
  }

  /** Whether the lane is to leave its loop. */
  get leaving(): boolean {
    return (
      Atomics.load(this.words, CONTROL.MODE) !== MODE.SERVE ||
      Atomics.load(this.words, this.#record + LANE.DISMISSED) !== 0
    );
  }

  /** Messages posted so far to this lane's port; compare with those read. */
  get mail(): number {
    return Atomics.load(this.words, CONTROL.MAIL);
  }

  /**
   * Waits for work: watches for a moment if that paid the last time, then sleeps until the host wakes this lane.
   * Returns at once if there is work, if the lane is to leave or if more mail came than `mailRead`; for nothing after `longestMs`.
   *
   * No submission is missed: the lane says that it waits and then looks for work, the host adds work and then looks for
   * lanes that wait. Both are sequentially consistent, so one sees the other.
   */
  park(mailRead: number, longestMs = Number.POSITIVE_INFINITY): void {
    const { words } = this;
    const wait = this.#record + LANE.WAIT;
    const sinceMs = performance.now();
    if (this.#watches && this.#policy.allows(sinceMs)) {
      Atomics.store(words, wait, WAIT.WATCHING);
      let watchedMs = 0;
      while (watchedMs <= WATCH_MS && this.#nothingNew(mailRead)) {
        watchedMs = performance.now() - sinceMs;
      }
      if (watchedMs <= WATCH_MS) this.#policy.succeeded();
      else if (watchedMs > INTERRUPTED_MS) this.#policy.failed(sinceMs + watchedMs);
    }
    // Also if it was claimed while it watched: then it sees the work now, unless another lane has taken it.
    Atomics.store(words, wait, WAIT.ASLEEP);
    if (this.#nothingNew(mailRead)) Atomics.wait(words, wait, WAIT.ASLEEP, longestMs);
    Atomics.store(words, wait, WAIT.NO);
    this.#watches = performance.now() - sinceMs <= WATCH_MS;
  }

  #nothingNew(mailRead: number): boolean {
    return (
      Atomics.load(this.words, CONTROL.HEAD) === Atomics.load(this.words, CONTROL.TAIL) &&
      !this.leaving &&
      this.mail === mailRead
    );
  }

  /**
   * Marks this thread as one that must not be terminated: it is about to enter koffi. If the process
   * is ending it does not return, which leaves the thread in the one place where terminating is safe.
   */
  enterCritical(): void {
    Atomics.store(this.words, this.#record + LANE.CRITICAL, 1);
    this.#freezeIfEnding();
  }

  /** Whoever waits for this has set FREEZE before, so it is notified from there. */
  leaveCritical(): void {
    Atomics.store(this.words, this.#record + LANE.CRITICAL, 0);
    this.#freezeIfEnding();
  }

  #freezeIfEnding(): void {
    if (Atomics.load(this.words, CONTROL.MODE) !== MODE.FREEZE) return;
    Atomics.store(this.words, this.#record + LANE.CRITICAL, 0);
    Atomics.notify(this.words, this.#record + LANE.CRITICAL);
    for (;;) Atomics.wait(this.words, CONTROL.MODE, MODE.FREEZE);
  }

  /** Says which process this lane has; 0 for none. */
  noteProcess(pid: number): void {
    Atomics.store(this.words, this.#record + LANE.PROCESS, pid);
  }

  /** Leaves the descriptor whose closing ends this lane's process, for whoever has to end it. */
  noteLifeline(descriptor: number): void {
    Atomics.store(this.words, this.#record + LANE.LIFELINE, descriptor + 1);
  }

  /** That descriptor, to be closed; `NOTHING` if the host has taken it, or there is none. */
  takeLifeline(): number {
    return Atomics.exchange(this.words, this.#record + LANE.LIFELINE, 0) - 1;
  }

  /** Counts this lane among those that hold the library open. */
  hold(): void {
    Atomics.store(this.words, this.#record + LANE.HOLDING, 1);
    Atomics.add(this.words, CONTROL.LIBRARY, HOLDER_ONE);
  }

  /**
   * Stops counting it. True if it was the last one and the library was initialised: then this lane is to shut it down, and to say so with
   * `closed`. A lane that loads the library meanwhile waits for that, and then finds it new.
   */
  letGo(): boolean {
    Atomics.store(this.words, this.#record + LANE.HOLDING, 0);
    const word = this.#changeLibrary((before) => {
      if (holdersIn(before) > 1) return before - HOLDER_ONE;
      const closes = libraryIn(before) === LIBRARY.READY;
      return closes ? libraryWord(LIBRARY.CLOSING, this.#lane, 0) : LIBRARY.NEW;
    });
    return libraryIn(word) === LIBRARY.CLOSING && actorIn(word) === this.#lane;
  }

  /** This lane has shut the library down. */
  closed(): void {
    this.#settleLibrary(LIBRARY.NEW);
  }

  /**
   * Runs `initialise` on exactly one lane of the version, whichever comes first; the others wait for
   * its outcome. Returns whether the library is ready.
   */
  initialiseOnce(initialise: () => boolean): boolean {
    const { words } = this;
    for (;;) {
      const before = Atomics.load(words, CONTROL.LIBRARY);
      switch (libraryIn(before)) {
        case LIBRARY.READY:
          return true;
        case LIBRARY.REFUSED:
          return false;
        case LIBRARY.NEW: {
          const mine = libraryWord(LIBRARY.INITIALISING, this.#lane, holdersIn(before));
          if (Atomics.compareExchange(words, CONTROL.LIBRARY, before, mine) !== before) break;
          this.#settleLibrary(initialise() ? LIBRARY.READY : LIBRARY.REFUSED);
          break;
        }
        default:
          // Somebody is at it. If another lane has begun to hold it since, this returns at once.
          Atomics.wait(words, CONTROL.LIBRARY, before);
      }
    }
  }

  /** Ends what this lane does to the library, and wakes those who wait for that. */
  #settleLibrary(state: number): void {
    this.#changeLibrary((before) => libraryWord(state, 0, holdersIn(before)));
    Atomics.notify(this.words, CONTROL.LIBRARY);
  }

  /** Puts the outcome of `change` in the place of what it was given, and returns it. */
  #changeLibrary(change: (before: number) => number): number {
    const { words } = this;
    for (;;) {
      const before = Atomics.load(words, CONTROL.LIBRARY);
      const after = change(before);
      if (Atomics.compareExchange(words, CONTROL.LIBRARY, before, after) === before) return after;
    }
  }
}
