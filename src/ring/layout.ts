/**
 * The shared memory between the main thread and the lanes of one version: every field, with its unit,
 * who writes it and who reads it. Both sides compute all positions from here and nowhere else.
 *
 *   control words | lane records | completion bitmap | submission queue | slot headers | slot rooms
 *
 * A slot is one request's place. Its state changes only by compare-exchange, and each state has one
 * owner, who alone may touch the rest of the slot:
 *
 *   FREE ──host──► QUEUED ──lane──► RUNNING ──lane──► DONE ──host──► FREE
 *                    └────host────► WITHDRAWN ──lane──► DONE
 *
 * | state     | owner | leaves it by                                                             |
 * |-----------|-------|--------------------------------------------------------------------------|
 * | FREE      | host  | `submit`: request written, slot number in the queue                      |
 * | QUEUED    | both  | lane `take` (it will run) or host `withdraw` (it never will): one wins    |
 * | WITHDRAWN | lane  | the lane that pops it: skipped, never run                                |
 * | RUNNING   | lane  | `complete`, after `handler_entry` has returned                           |
 * | DONE      | host  | `settle`, after it took the slot's bit from the completion bitmap        |
 *
 * While RUNNING, the host may write one word: CANCEL.
 */

const INT32_BYTES = 4;
const LINE_WORDS = 16; // A cache line of 64 bytes: fields with different writers do not share one.

/** Slot states, in the lowest bits of the word SLOT.STATE. */
export const STATE = { FREE: 0, QUEUED: 1, RUNNING: 2, DONE: 3, WITHDRAWN: 4 } as const;

/** Above them, while RUNNING and DONE: the lane that runs or ran it. In one word, so that it is known from the first moment. */
const STATE_BITS = 3;

/** The word SLOT.STATE of a slot that a lane runs or ran. */
export function stateOn(lane: number, state: typeof STATE.RUNNING | typeof STATE.DONE): number {
  return (lane << STATE_BITS) | state;
}

/** One of `STATE`, from the word SLOT.STATE. */
export function stateIn(word: number): number {
  return word & ((1 << STATE_BITS) - 1);
}

/** The lane in the word SLOT.STATE. */
export function laneIn(word: number): number {
  return word >> STATE_BITS;
}

/** How a request ended on the lane, in the word SLOT.STATUS. */
export const STATUS = {
  /** Response bytes are in the slot's response room. */
  OK: 0,
  /** Response bytes were posted to the host's port before the slot was marked done. */
  OK_POSTED: 6,
  /** Response bytes are in the lane's outbox, at OUTBOX_PLACE. */
  OK_IN_OUTBOX: 7,
  /** `handler_entry` returned HANDLER_CODE; its message is in the response room. */
  HANDLER_FAILED: 1,
  /** Never ran: the host withdrew it, and wrote this. */
  WITHDRAWN: 2,
  /** Never ran: its deadline had passed when a lane came to it. */
  EXPIRED: 3,
  /** The response has more than `maxPayloadBytes`; RESPONSE_LENGTH says how many it would have had, if that is more. */
  RESPONSE_TOO_LARGE: 4,
  /** The handler returned success with a response that cannot be read; the reason is in the room. */
  INVALID_RESPONSE: 5,
} as const;

/** Control words: offsets in 32-bit words from the start. */
export const CONTROL = {
  /** Requests ever submitted, modulo 2^32. Host writes, lanes read. */
  TAIL: 0 * LINE_WORDS,
  /** Requests ever taken, modulo 2^32. Lanes compare-exchange. */
  HEAD: 1 * LINE_WORDS,
  /**
   * The request ledger: bit 0 is set once the version takes no more requests; the bits above count
   * what is in flight. The host alone writes it: it subtracts when it learns that a request has been
   * executed, never will be, or has died with its lane. A lane that subtracted could die right before
   * or right after, and nobody could tell which.
   */
  LEDGER: 2 * LINE_WORDS,
  /** 1 while a doorbell message is on its way to the host. Lanes set, host clears. */
  DOORBELL: 3 * LINE_WORDS,
  /** One of MODE. Host writes, lanes read. */
  MODE: 4 * LINE_WORDS,
  /**
   * What has been done to the mapped library, by whom, and how many hold it open (see `libraryWord`). Lanes change it and wait on it;
   * the host corrects it for lanes that died.
   */
  LIBRARY: 5 * LINE_WORDS,
  /** Messages ever posted to every lane about regions. Host writes, lanes compare. */
  MAIL: 6 * LINE_WORDS,
} as const;
const CONTROL_WORDS = 7 * LINE_WORDS;

/** What the lanes are to do, in CONTROL.MODE. */
export const MODE = {
  SERVE: 0,
  /** Leave the loop, shut the library down, unload it, return. */
  STOP: 1,
  /** The process is ending: do not enter koffi, stand still until terminated. */
  FREEZE: 2,
} as const;

/**
 * The life of the mapped library, in the lowest bits of CONTROL.LIBRARY:
 *
 *   NEW ──► INITIALISING ──► READY ──the last lets go──► CLOSING ──► NEW
 *                └─────────► REFUSED ──the last lets go──► NEW
 *
 * Above them: the lane that initialises it or shuts it down, if one does; above that, how many lanes hold it open. In one word, so that
 * whoever opens it knows whether somebody is just shutting it down.
 */
export const LIBRARY = { NEW: 0, INITIALISING: 1, READY: 2, REFUSED: 3, CLOSING: 4 } as const;

const LIBRARY_BITS = 3;
const ACTOR_BITS = 10;
/** One lane that holds the library, in CONTROL.LIBRARY. */
export const HOLDER_ONE = 1 << (LIBRARY_BITS + ACTOR_BITS);

/** The word CONTROL.LIBRARY: one of LIBRARY, the lane that is at it, and the lanes that hold it. */
export function libraryWord(state: number, actor: number, holders: number): number {
  return state | (actor << LIBRARY_BITS) | (holders * HOLDER_ONE);
}

/** One of LIBRARY. */
export function libraryIn(word: number): number {
  return word & ((1 << LIBRARY_BITS) - 1);
}

/** The lane that initialises the library or shuts it down. */
export function actorIn(word: number): number {
  return (word >> LIBRARY_BITS) & ((1 << ACTOR_BITS) - 1);
}

/** Lanes that hold the library open. */
export function holdersIn(word: number): number {
  return word >> (LIBRARY_BITS + ACTOR_BITS);
}

/** Whether a lane waits for work, in LANE.WAIT. */
export const WAIT = {
  /** It is busy, or has been claimed for work that was just submitted. */
  NO: 0,
  /** It looks for work all the time and need not be woken. */
  WATCHING: 1,
  /** It sleeps and must be notified. */
  ASLEEP: 2,
} as const;

/** The ledger's parts. */
export const LEDGER_CLOSED = 1;
export const LEDGER_ONE = 2;

/** A lane's record: offsets in words from its start. */
export const LANE = {
  /** One of WAIT: whether the lane waits for work. The lane waits on this word; the host claims it. */
  WAIT: 0,
  /** 1 while the thread must not be terminated: it starts, or is inside koffi. Host sets, lane writes. */
  CRITICAL: 2,
  /** 1 when this lane alone is to leave: it was replaced. Host writes. */
  DISMISSED: 3,
  /** 1 while the lane counts among the holders in CONTROL.LIBRARY. Lane writes. */
  HOLDING: 4,
  /** Process id of the lane's process; 0 if there is none. Lane writes, host reads. */
  PROCESS: 5,
  /**
   * Descriptor whose closing ends the lane's process, plus 1; 0 if there is none. The lane writes it;
   * whoever takes it away, lane or host, closes it.
   */
  LIFELINE: 6,
  /**
   * The slot that the lane took last or was about to take, plus 1; 0 if none yet. Lane writes, host reads if the lane dies. Far from WAIT, which the
   * host reads with every request.
   */
  SLOT: LINE_WORDS,
} as const;
const LANE_WORDS = 2 * LINE_WORDS;

/** A slot's header: offsets in 32-bit words from its start. */
export const SLOT = {
  /** One of STATE, and while RUNNING and DONE the lane. */
  STATE: 0,
  /** 1 once nobody waits for the response. Host writes; the handler polls it by address. */
  CANCEL: 1,
  /** Region that holds the request; 0 if it is in the slot's own room. Host writes. */
  REGION: 2,
  /** Where the request starts in its region, in bytes. Host writes. */
  REQUEST_OFFSET: 3,
  /** Bytes of the request, of the request id and of the metadata (UTF-8, without NUL). Host writes. */
  REQUEST_LENGTH: 4,
  REQUEST_ID_LENGTH: 5,
  METADATA_LENGTH: 6,
  /** One of STATUS. Written by whoever decides how the request ended. */
  STATUS: 16,
  /** What `handler_entry` returned. Lane writes. */
  HANDLER_CODE: 17,
  /** With OK_IN_OUTBOX: where in the outbox. Lane writes. */
  OUTBOX_PLACE: 18,
} as const;
const SLOT_WORDS = 2 * LINE_WORDS;

/** A slot header's 64-bit floats: offsets in doubles from its start. */
export const SLOT_DOUBLE = {
  /** Deadline in milliseconds of the monotonic clock; Infinity for none. Host writes. */
  DEADLINE_MS: 4,
  /** When the lane took it and when the call returned, same clock. Lane writes. */
  STARTED_MS: 10,
  FINISHED_MS: 11,
  /** Bytes of the response or message. Lane writes. */
  RESPONSE_LENGTH: 12,
} as const;
const SLOT_DOUBLES = SLOT_WORDS / 2;

/** Bytes of a slot's room for context and request, and as many again for the response. */
export const ROOM_BYTES = 4096;

/** Requests and context strings start at multiples of this many bytes. */
export const ALIGNMENT = 8;

/** The two numbers that all positions follow from. */
export interface RingShape {
  /** Slots: a multiple of 32. */
  slots: number;
  /** Lane records: threads plus replacements. */
  lanes: number;
}

/** Where each part begins, in units of 32-bit words unless the name says otherwise. */
export interface RingLayout extends RingShape {
  laneWords: number;
  bitmapWords: number;
  bitmapLength: number;
  queueWords: number;
  queueMask: number;
  slotWords: number;
  slotDoubles: number;
  roomBytes: number;
  totalBytes: number;
}

export function ringLayout({ slots, lanes }: RingShape): RingLayout {
  const laneWords = CONTROL_WORDS;
  const bitmapWords = laneWords + lanes * LANE_WORDS;
  const bitmapLength = slots / 32;
  const queueWords = roundUp(bitmapWords + bitmapLength, LINE_WORDS);
  // Twice the slots: if a lane dies between taking a slot and running it, the slot is queued again.
  const queueLength = 2 ** Math.ceil(Math.log2(2 * slots));
  const slotWords = queueWords + queueLength;
  const roomBytes = roundUp((slotWords + slots * SLOT_WORDS) * INT32_BYTES, ROOM_BYTES);
  return {
    slots,
    lanes,
    laneWords,
    bitmapWords,
    bitmapLength,
    queueWords,
    queueMask: queueLength - 1,
    slotWords,
    slotDoubles: slotWords / 2,
    roomBytes,
    totalBytes: roomBytes + slots * 2 * ROOM_BYTES,
  };
}

/** The views through which both sides see the memory. */
export interface RingViews {
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly doubles: Float64Array<SharedArrayBuffer>;
  readonly bytes: Uint8Array<SharedArrayBuffer>;
}

export function ringViews(memory: SharedArrayBuffer, { totalBytes }: RingLayout): RingViews {
  return {
    words: new Int32Array(memory, 0, totalBytes / INT32_BYTES),
    doubles: new Float64Array(memory, 0, totalBytes / (2 * INT32_BYTES)),
    bytes: new Uint8Array(memory, 0, totalBytes),
  };
}

/** Index of a lane's first word. */
export function laneAt(layout: RingLayout, lane: number): number {
  return layout.laneWords + lane * LANE_WORDS;
}

/** Index of a slot's first word. */
export function slotAt(layout: RingLayout, slot: number): number {
  return layout.slotWords + slot * SLOT_WORDS;
}

/** Index of a slot's first double. */
export function slotDoubleAt(layout: RingLayout, slot: number): number {
  return layout.slotDoubles + slot * SLOT_DOUBLES;
}

/** Byte offset of a slot's room for context and request. */
export function requestRoomAt(layout: RingLayout, slot: number): number {
  return layout.roomBytes + slot * 2 * ROOM_BYTES;
}

/** Byte offset of a slot's room for the response. */
export function responseRoomAt(layout: RingLayout, slot: number): number {
  return requestRoomAt(layout, slot) + ROOM_BYTES;
}

/**
 * Bytes that the context takes at the start of the request room: both strings with their NULs, so
 * that C can use them as they are; nothing if both are empty.
 */
export function contextBytes(requestIdLength: number, metadataLength: number): number {
  if (requestIdLength === 0 && metadataLength === 0) return 0;
  return (requestIdLength + 1 + metadataLength + 1 + ALIGNMENT - 1) & -ALIGNMENT;
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
