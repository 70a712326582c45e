/**
 * How a lane and its process wait for each other. Whose turn it is stands in shared memory; a socket wakes whoever sleeps, and
 * ends when the other side does.
 *
 * Waking a sleeping process costs 20 to 100 microseconds, so both look for their turn for a moment before they sleep, if that
 * paid the last time. Measured on two cores, alone: 50 microseconds a round trip through the socket only, 1 when both look. What counts as
 * a short wait has to have room for waking the other side: else both, once asleep, sleep every time.
 *
 * No turn is missed: one side passes the turn and then looks whether the other sleeps; that one says that it sleeps and then
 * looks for its turn. Both are sequentially consistent, so one sees the other.
 */

import { readSync, writeSync } from 'node:fs';
import { FIRST_HOST_TURN, TURN, WORD } from './lane-memory.js';

const WATCH_MS = 0.2;

/** The other side of the socket is gone. */
export class PeerGone extends Error {}

const wakeUp = new Uint8Array(1);

export class Channel {
  readonly #words: Int32Array;
  readonly #socket: number;
  readonly #isMine: (turn: number) => boolean;
  readonly #ownSleep: number;
  readonly #otherSleep: number;
  readonly #received = new Uint8Array(64);
  readonly #hasEnded: () => boolean;
  #watches = false;

  /**
   * `hasEnded` tells whether the other process has ended. It is asked whenever reading the socket fails
   * with EAGAIN: a process that the other one forked may hold its end of the socket open.
   */
  constructor(
    side: 'host' | 'child',
    words: Int32Array,
    socket: number,
    hasEnded: () => boolean = () => false,
  ) {
    this.#words = words;
    this.#hasEnded = hasEnded;
    this.#socket = socket;
    const isHost = side === 'host';
    this.#isMine = isHost
      ? (turn) => turn >= FIRST_HOST_TURN
      : (turn) => turn === TURN.CALL || turn === TURN.STOP;
    this.#ownSleep = isHost ? WORD.HOST_ASLEEP : WORD.CHILD_ASLEEP;
    this.#otherSleep = isHost ? WORD.CHILD_ASLEEP : WORD.HOST_ASLEEP;
  }

  /** One of TURN. */
  get turn(): number {
    return Atomics.load(this.#words, WORD.STATE);
  }

  /** Notes how far this side is, while it keeps the turn. */
  note(turn: number): void {
    Atomics.store(this.#words, WORD.STATE, turn);
  }

  /** Passes the turn to the other side. If that is gone, the next `take` will say so. */
  pass(turn: number): void {
    Atomics.store(this.#words, WORD.STATE, turn);
    if (Atomics.compareExchange(this.#words, this.#otherSleep, 1, 0) !== 1) return;
    try {
      writeSync(this.#socket, wakeUp);
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  /**
   * Blocks this thread until it is this side's turn, and returns which.
   *
   * @throws {PeerGone} if the other side has closed its end of the socket, as its death does, or has
   * ended otherwise.
   */
  take(): number {
    const sinceMs = performance.now();
    if (this.#watches) {
      do {
        const turn = this.turn;
        if (this.#isMine(turn)) return turn;
      } while (performance.now() - sinceMs <= WATCH_MS);
    }
    for (;;) {
      Atomics.store(this.#words, this.#ownSleep, 1);
      // If the other side has ended the sleep before it began, its byte is on the way and is read here.
      const awake =
        this.#isMine(this.turn) && Atomics.compareExchange(this.#words, this.#ownSleep, 1, 0) === 1;
      const ended = !awake && !this.#sleep() && this.#hasEnded();
      // Looked at last, so that what it did before it ended counts.
      const turn = this.turn;
      if (!this.#isMine(turn)) {
        if (ended) throw new PeerGone('the other process has ended');
        continue;
      }
      this.#watches = performance.now() - sinceMs <= WATCH_MS;
      return turn;
    }
  }

  /** Returns whether it was woken; false if nothing has come for a while. */
  #sleep(): boolean {
    let length: number;
    try {
      length = readSync(this.#socket, this.#received);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return false;
      if (isGone(error)) throw new PeerGone('the other process has reset the socket');
      throw error;
    }
    if (length === 0) throw new PeerGone('the other process has closed the socket');
    return true;
  }
}

function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EPIPE' || code === 'ECONNRESET';
}
