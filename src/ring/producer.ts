/**
 * The main thread's side of the ring: hand out slots, submit and withdraw requests, collect what is
 * done, and keep the request ledger. Knows nothing of promises, payload formats or native code.
 */

import { strict as assert } from 'node:assert';
import { reserveShared } from '../shared-memory.js';
import {
  actorIn,
  CONTROL,
  HOLDER_ONE,
  holdersIn,
  LANE,
  LEDGER_CLOSED,
  LEDGER_ONE,
  LIBRARY,
  laneAt,
  laneIn,
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
  STATUS,
  slotAt,
  slotDoubleAt,
  stateIn,
  WAIT,
} from './layout.js';

/** Where else it is to be seen that a slot's request is cancelled. */
export interface CancelMirror {
  set(slot: number, raised: boolean): void;
}

/** What `takeSlot` returns when every slot is taken. */
export const NO_SLOT = -1;
const NO_LANE = -1;

export class RingProducer {
  readonly memory: SharedArrayBuffer;
  readonly layout: RingLayout;
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly bytes: Uint8Array;
  /** Free slots as a stack: the one used last is used next, while it is still in the caches. */
  readonly #free: Int32Array;
  readonly #limit: number;
  readonly #cancelMirror: CancelMirror | null;
  #freeCount: number;

  /** `limit` is how many slots may be taken at once, if fewer than there are. */
  constructor(shape: RingShape, limit = shape.slots, cancelMirror: CancelMirror | null = null) {
    assert(shape.slots > 0 && shape.slots % 32 === 0, 'slots come in multiples of 32');
    this.layout = ringLayout(shape);
    this.memory = reserveShared(this.layout.totalBytes);
    ({
      words: this.words,
      doubles: this.doubles,
      bytes: this.bytes,
    } = ringViews(this.memory, this.layout));
    this.#limit = limit;
    this.#cancelMirror = cancelMirror;
    this.#freeCount = limit;
    this.#free = Int32Array.from({ length: limit }, (_, index) => limit - 1 - index);
  }

  // ---- The request ledger ----------------------------------------------------------------------
  // Written with Atomics, so that any thread that has the memory can read it. Only this thread writes
  // it, so its own reads can be plain.

  /** Counts one more request in flight; false, and nothing counted, once the ledger is closed. */
  acquire(): boolean {
    if ((this.#ledger & LEDGER_CLOSED) !== 0) return false;
    Atomics.add(this.words, CONTROL.LEDGER, LEDGER_ONE);
    return true;
  }

  /** Counts one less: for a request that no lane will ever run, and for a caller's own guard. */
  release(): void {
    const before = Atomics.sub(this.words, CONTROL.LEDGER, LEDGER_ONE);
    if (before < LEDGER_ONE) assert.fail('a request was released twice');
  }

  /** Refuses new requests from now on. */
  closeLedger(): void {
    Atomics.or(this.words, CONTROL.LEDGER, LEDGER_CLOSED);
  }

  /** Requests in flight: accepted, and not yet returned from by whoever executes them. */
  get inFlight(): number {
    return this.#ledger >> 1;
  }

  get #ledger(): number {
    return this.words[CONTROL.LEDGER] ?? 0;
  }

  // ---- Slots -----------------------------------------------------------------------------------

  get hasFreeSlot(): boolean {
    return this.#freeCount > 0;
  }

  /** Slots that are not free. */
  get taken(): number {
    return this.#limit - this.#freeCount;
  }

  /** A free slot, now the caller's to fill and `submit`, or `NO_SLOT`. */
  takeSlot(): number {
    if (this.#freeCount === 0) return NO_SLOT;
    this.#freeCount -= 1;
    return this.#free[this.#freeCount] ?? NO_SLOT;
  }

  /** Gives back a slot that was taken and not submitted, that is DONE and has been read, or that was buried. */
  freeSlot(slot: number): void {
    if (this.#cancelMirror !== null && this.words[slotAt(this.layout, slot) + SLOT.CANCEL] !== 0) {
      this.#cancelMirror.set(slot, false);
    }
    Atomics.store(this.words, slotAt(this.layout, slot) + SLOT.STATE, STATE.FREE);
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
  }

  /** Queues a slot for the lanes and wakes one if all that could take it sleep. */
  submit(slot: number, deadlineMs: number): void {
    const { words } = this;
    const at = slotAt(this.layout, slot);
    this.doubles[slotDoubleAt(this.layout, slot) + SLOT_DOUBLE.DEADLINE_MS] = deadlineMs;
    // Lanes see both once they see that the slot is queued.
    words[at + SLOT.CANCEL] = 0;
    Atomics.store(words, at + SLOT.STATE, STATE.QUEUED);
    this.#enqueue(slot);
  }

  #enqueue(slot: number): void {
    const { words, layout } = this;
    // Only this thread writes it.
    const tail = words[CONTROL.TAIL] ?? 0;
    Atomics.store(words, layout.queueWords + (tail & layout.queueMask), slot);
    Atomics.store(words, CONTROL.TAIL, (tail + 1) | 0);
    this.#wakeOne();
  }

  #isQueued(slot: number): boolean {
    const { words, layout } = this;
    const tail = Atomics.load(words, CONTROL.TAIL);
    for (let at = Atomics.load(words, CONTROL.HEAD); at !== tail; at = (at + 1) | 0) {
      if (Atomics.load(words, layout.queueWords + (at & layout.queueMask)) === slot) return true;
    }
    return false;
  }

  /**
   * Takes a queued request back: it is no longer in flight, and will come out of `collect` once a lane has
   * passed over it. False, and nothing done, if a lane has it already.
   */
  withdraw(slot: number): boolean {
    const state = slotAt(this.layout, slot) + SLOT.STATE;
    const before = Atomics.compareExchange(this.words, state, STATE.QUEUED, STATE.WITHDRAWN);
    if (before !== STATE.QUEUED) return false;
    // No lane writes this word now, and it is read on this thread, when the slot has been passed over.
    this.words[slotAt(this.layout, slot) + SLOT.STATUS] = STATUS.WITHDRAWN;
    this.release();
    return true;
  }

  /** Raises the cancel flag that the running handler may poll. */
  cancel(slot: number): void {
    Atomics.store(this.words, slotAt(this.layout, slot) + SLOT.CANCEL, 1);
    this.#cancelMirror?.set(slot, true);
  }

  /** One of `STATE`. */
  stateOf(slot: number): number {
    return stateIn(Atomics.load(this.words, slotAt(this.layout, slot) + SLOT.STATE));
  }

  /** The lane that runs a RUNNING or ran a DONE slot. */
  laneOf(slot: number): number {
    return laneIn(Atomics.load(this.words, slotAt(this.layout, slot) + SLOT.STATE));
  }

  /**
   * Calls `settle` with each slot that is done, once. It is no longer in flight then. The caller reads
   * it and gives it back with `freeSlot`.
   */
  collect(settle: (slot: number) => void): void {
    // Cleared before the bitmap is read: a slot done after this rings again, one done before is seen.
    Atomics.store(this.words, CONTROL.DOORBELL, 0);
    this.collectEarly(settle);
  }

  /**
   * The same in between, while `doorbellRang`: the doorbell is not made to ring again, which costs a lane as much as ten requests,
   * since a `collect` is to come anyway.
   */
  collectEarly(settle: (slot: number) => void): void {
    const { words, layout } = this;
    for (let word = 0; word < layout.bitmapLength; word++) {
      const index = layout.bitmapWords + word;
      if (Atomics.load(words, index) === 0) continue;
      let bits = Atomics.exchange(words, index, 0);
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits);
        bits &= bits - 1;
        const slot = word * 32 + bit;
        // What was withdrawn has left the ledger already.
        if (words[slotAt(layout, slot) + SLOT.STATUS] !== STATUS.WITHDRAWN) this.release();
        settle(slot);
      }
    }
  }

  /** Whether something has been done and a `collect` is to come. */
  get doorbellRang(): boolean {
    return Atomics.load(this.words, CONTROL.DOORBELL) === 1;
  }

  /** Whether a slot waits to be collected. */
  isDone(slot: number): boolean {
    const word = this.layout.bitmapWords + (slot >> 5);
    return (Atomics.load(this.words, word) & (1 << (slot & 31))) !== 0;
  }

  /** Keeps the doorbell silent until the next `collect`, which the caller must see to. */
  hush(): void {
    Atomics.store(this.words, CONTROL.DOORBELL, 1);
  }

  // ---- Lanes -----------------------------------------------------------------------------------

  /** Sees to it that a waiting lane takes what was just submitted: rather one that is awake. */
  #wakeOne(): void {
    let asleep = NO_LANE;
    for (let lane = 0; lane < this.layout.lanes; lane++) {
      const at = laneAt(this.layout, lane);
      const wait = Atomics.load(this.words, at + LANE.WAIT);
      if (wait === WAIT.NO) continue;
      if (Atomics.load(this.words, at + LANE.DISMISSED) !== 0) continue;
      if (wait === WAIT.WATCHING && this.#claim(lane, WAIT.WATCHING)) return;
      if (wait === WAIT.ASLEEP && asleep === NO_LANE) asleep = lane;
    }
    if (asleep !== NO_LANE) this.#wake(asleep);
  }

  /** What a lane was claimed for that now leaves is another's. */
  #wakeForQueued(): void {
    const { words } = this;
    if (Atomics.load(words, CONTROL.HEAD) !== Atomics.load(words, CONTROL.TAIL)) this.#wakeOne();
  }

  #wake(lane: number): void {
    if (!this.#claim(lane, WAIT.ASLEEP)) return;
    Atomics.notify(this.words, laneAt(this.layout, lane) + LANE.WAIT);
  }

  /** Ends a lane's wait, so that the next submission looks for another. */
  #claim(lane: number, wait: number): boolean {
    const at = laneAt(this.layout, lane) + LANE.WAIT;
    return Atomics.compareExchange(this.words, at, wait, WAIT.NO) === wait;
  }

  #wakeAll(): void {
    for (let lane = 0; lane < this.layout.lanes; lane++) this.#wake(lane);
  }

  /** Tells the lanes that something was posted to their ports. */
  announceMail(): void {
    Atomics.add(this.words, CONTROL.MAIL, 1);
    this.#wakeAll();
  }

  /** Mail announced so far: what a lane that starts now need not wait for. */
  get mail(): number {
    return Atomics.load(this.words, CONTROL.MAIL);
  }

  /** Asks every lane to leave its loop, unload the library and return. */
  stop(): void {
    Atomics.compareExchange(this.words, CONTROL.MODE, MODE.SERVE, MODE.STOP);
    this.#wakeAll();
  }

  /** Asks one lane to leave once it has nothing running. */
  dismiss(lane: number): void {
    Atomics.store(this.words, laneAt(this.layout, lane) + LANE.DISMISSED, 1);
    this.#wake(lane);
    this.#wakeForQueued();
  }

  /**
   * Says that a lane's thread is about to be given the lane's module. From then on it must not be
   * terminated: Node aborts also if a thread ends while its module is being loaded. The lane itself
   * says when that is over.
   */
  guardLane(lane: number): void {
    Atomics.store(this.words, laneAt(this.layout, lane) + LANE.CRITICAL, 1);
  }

  /** Makes a lane's record ready for another thread. */
  prepareLane(lane: number): void {
    const at = laneAt(this.layout, lane);
    for (const field of Object.values(LANE)) Atomics.store(this.words, at + field, 0);
  }

  /**
   * Cleans up after a lane whose thread has ended without leaving its loop, wherever it was. Returns
   * the slot whose call died with it, for the caller to settle and free; `NO_SLOT` if none was running.
   * The caller must `collect` before and after: before, so that what the lane has completed is not
   * taken for what it was completing; after, because that is found here.
   */
  bury(lane: number): number {
    const at = laneAt(this.layout, lane);
    const slot = Atomics.load(this.words, at + LANE.SLOT) - 1;
    this.#buryHolder(lane, Atomics.load(this.words, at + LANE.HOLDING));
    this.prepareLane(lane);
    this.#wakeForQueued();
    if (slot === NO_SLOT) return NO_SLOT;
    const word = Atomics.load(this.words, slotAt(this.layout, slot) + SLOT.STATE);
    switch (stateIn(word)) {
      case STATE.QUEUED:
      case STATE.WITHDRAWN:
        // Taken from the queue and not begun: queued again. If another lane is just taking it, it is
        // now queued twice; whoever meets it the second time passes it over.
        if (!this.#isQueued(slot)) this.#enqueue(slot);
        return NO_SLOT;
      case STATE.RUNNING:
        if (laneIn(word) !== lane) return NO_SLOT; // Only noted: another lane was faster.
        this.release();
        return slot;
      case STATE.DONE:
        // It died before it could say that the slot is done. A bit that is set twice is one bit.
        if (laneIn(word) === lane) this.#markDone(slot);
        return NO_SLOT;
      default:
        return NO_SLOT;
    }
  }

  #markDone(slot: number): void {
    Atomics.or(this.words, this.layout.bitmapWords + (slot >> 5), 1 << (slot & 31));
  }

  /** What a dead lane did to the library, and its hold (1 or 0) on it, end with it. */
  #buryHolder(lane: number, held: number): void {
    const { words } = this;
    for (;;) {
      const before = Atomics.load(words, CONTROL.LIBRARY);
      const after = libraryWithout(lane, held, before);
      if (Atomics.compareExchange(words, CONTROL.LIBRARY, before, after) === before) break;
    }
    Atomics.notify(words, CONTROL.LIBRARY);
  }

  /** Process id of a lane's process; 0 if there is none. */
  processOf(lane: number): number {
    return Atomics.load(this.words, laneAt(this.layout, lane) + LANE.PROCESS);
  }

  /** The descriptor whose closing ends a lane's process, to be closed; null if there is none. */
  takeLifeline(lane: number): number | null {
    const at = laneAt(this.layout, lane) + LANE.LIFELINE;
    const noted = Atomics.exchange(this.words, at, 0);
    return noted === 0 ? null : noted - 1;
  }

  /** For the end of the process: keeps lanes from entering koffi. */
  freeze(): void {
    Atomics.store(this.words, CONTROL.MODE, MODE.FREEZE);
  }

  /** Blocks this thread until no lane is inside koffi, at most `timeoutMs`. */
  awaitFrozen(timeoutMs: number): void {
    const endMs = performance.now() + timeoutMs;
    for (let lane = 0; lane < this.layout.lanes; lane++) {
      const critical = laneAt(this.layout, lane) + LANE.CRITICAL;
      const leftMs = Math.max(0, endMs - performance.now());
      Atomics.wait(this.words, critical, 1, leftMs);
    }
  }
}

/** The word CONTROL.LIBRARY after the death of a lane. */
function libraryWithout(lane: number, held: number, before: number): number {
  const state = libraryIn(before);
  const isBusy = state === LIBRARY.INITIALISING || state === LIBRARY.CLOSING;
  // Another lane is at it, and will say what came of it.
  if (isBusy && actorIn(before) !== lane) return before - held * HOLDER_ONE;
  const holders = holdersIn(before) - held;
  // koffi unloads what a thread held when the thread ends: without holders the library is gone.
  if (holders === 0 || state === LIBRARY.CLOSING) return libraryWord(LIBRARY.NEW, 0, holders);
  // A lane that died inside handler_init would leave the others waiting for it.
  return libraryWord(state === LIBRARY.INITIALISING ? LIBRARY.REFUSED : state, 0, holders);
}
