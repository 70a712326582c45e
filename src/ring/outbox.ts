/**
 * Where a lane leaves responses that are too large for their slots, if they are not so large that they are better handed over: memory
 * that the host and one lane share and use again and again.
 *
 *   one word a place | places
 *
 * A place is FREE or TAKEN. Only the lane takes; only the host frees, once it has copied the response out. In between, the slot
 * that is DONE says which place and how long, so nothing else needs to be told. What is posted instead costs both threads a message
 * and the system fresh memory, which is 40 microseconds for 64 KiB, four times as much as a copy more.
 */

import { copyInto } from '../native-copy.js';
import { reserveShared } from '../shared-memory.js';

/** Enough for what a lane completes until the host has had its turn; with none free, responses are posted. */
const PLACES = 16;
/** Larger than this, a response is posted: the host would be busy copying, into memory that malloc has to ask the system for. */
export const PLACE_BYTES = 120 * 1024;
const FIRST_PLACE_AT = 4096;

const FREE = 0;
const TAKEN = 1;

/** What `take` returns when every place is taken. */
export const NO_PLACE = -1;

/** Memory for an outbox. Only what is used of it becomes resident. */
export function reserveOutbox(): SharedArrayBuffer {
  return reserveShared(FIRST_PLACE_AT + PLACES * PLACE_BYTES);
}

/** The outbox of a lane for which there is no memory, and which is never started. */
export const NO_OUTBOX = new SharedArrayBuffer(FIRST_PLACE_AT);

export class Outbox {
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  readonly #words: Int32Array<SharedArrayBuffer>;

  constructor(memory: SharedArrayBuffer) {
    this.bytes = new Uint8Array(memory, 0, memory.byteLength);
    this.#words = new Int32Array(memory, 0, PLACES);
  }

  /** Lane: takes a place, or returns `NO_PLACE`. */
  take(): number {
    for (let place = 0; place < PLACES; place++) {
      if (Atomics.load(this.#words, place) !== FREE) continue;
      Atomics.store(this.#words, place, TAKEN);
      return place;
    }
    return NO_PLACE;
  }

  /** Offset of a place's first byte. */
  at(place: number): number {
    return FIRST_PLACE_AT + place * PLACE_BYTES;
  }

  /** Host: copies the first `length` bytes in a place into `memory`, which has room for them. */
  read(place: number, length: number, memory: ArrayBuffer): Uint8Array<ArrayBuffer> {
    const response = new Uint8Array(memory, 0, length);
    const start = this.at(place);
    copyInto(response, 0, this.bytes.subarray(start, start + length));
    return response;
  }

  /** Host: gives a place back to the lane. */
  free(place: number): void {
    Atomics.store(this.#words, place, FREE);
  }
}
