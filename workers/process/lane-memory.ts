/**
 * The memory that a lane and its process share: every field, with who writes it and who reads it. One request at a time.
 *
 *   control words | context strings | request | response
 *
 * Whoever's turn it is, by the word STATE, may touch the rest; the other one waits (see channel.ts).
 *
 *              ┌─► REFUSED                      ┌──────── host: CALL ◄───────┐
 *   STARTING ──┤                                ▼                            │
 *              └─► READY ──► (host's turn) ─► CALL ─child─► RUNNING ─child─► ANSWERED
 *                                 └──host──► STOP ─► the process ends
 *
 * The process is not trusted: what the host reads here is checked, and read once.
 */

import { ROOM_BYTES } from '../../src/ring/layout.js';
import type { NativeMemory } from '../native-library.js';
import { mapMemory } from './posix.js';

const LINE_WORDS = 16;

/** Turns, in the word STATE. */
export const TURN = {
  /** Child's: it loads the library. */
  STARTING: 0,
  /** Child's: a request has been put here. */
  CALL: 1,
  /** Child's: shut the library down and end. */
  STOP: 2,
  /** Child's: it has begun with the request. From here on it cannot be given to another. */
  RUNNING: 3,
  /** Host's: the library was refused; the response has the reason, as JSON. */
  REFUSED: 16,
  /** Host's: the library is loaded; the response has what it says of itself, as JSON. */
  READY: 17,
  /** Host's: the request was answered. */
  ANSWERED: 18,
} as const;
/** Turns from this one on are the host's. */
export const FIRST_HOST_TURN = TURN.REFUSED;

/** Control words: offsets in 32-bit words. */
export const WORD = {
  /** One of TURN. */
  STATE: 0,
  /** 1 while the host sleeps until a byte comes on the socket. Host sets; whoever clears it ends the sleep. */
  HOST_ASLEEP: 1 * LINE_WORDS,
  /** The same for the child. */
  CHILD_ASLEEP: 2 * LINE_WORDS,
  /** The request's slot in the ring: where its cancel flag is. Host writes. */
  SLOT: 3 * LINE_WORDS,
  /** Bytes of request id, metadata and request. Host writes. */
  REQUEST_ID_LENGTH: 3 * LINE_WORDS + 1,
  METADATA_LENGTH: 3 * LINE_WORDS + 2,
  REQUEST_LENGTH: 3 * LINE_WORDS + 3,
  /** One of STATUS in the ring's layout. Child writes. */
  STATUS: 4 * LINE_WORDS,
  /** What `handler_entry` returned. Child writes. */
  CODE: 4 * LINE_WORDS + 1,
} as const;

/** Control words that are 64-bit floats: offsets in doubles. */
export const DOUBLE = {
  /** Deadline in milliseconds of the monotonic clock, which both processes share. Host writes. */
  DEADLINE_MS: (3 * LINE_WORDS + 4) / 2,
  /** Bytes of the response, message or JSON. Child writes. */
  RESPONSE_LENGTH: (4 * LINE_WORDS + 2) / 2,
} as const;

/** Of any page size there is. */
const UNIT_BYTES = 65_536;
/** Room for what `handler_info` says, where payloads are small. */
const LEAST_RESPONSE_BYTES = UNIT_BYTES;

const CONTEXT_AT = 4096;
const REQUEST_AT = CONTEXT_AT + ROOM_BYTES;

/** Where each part begins, in bytes. */
export interface LaneMemoryLayout {
  contextAt: number;
  requestAt: number;
  responseAt: number;
  responseBytes: number;
  totalBytes: number;
}

export function laneMemoryLayout(maxPayloadBytes: number): LaneMemoryLayout {
  const responseAt = roundUp(REQUEST_AT + maxPayloadBytes);
  const responseBytes = Math.max(roundUp(maxPayloadBytes), LEAST_RESPONSE_BYTES);
  return {
    contextAt: CONTEXT_AT,
    requestAt: REQUEST_AT,
    responseAt,
    responseBytes,
    totalBytes: responseAt + responseBytes,
  };
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / UNIT_BYTES) * UNIT_BYTES;
}

/** Maps a descriptor's memory, on either side. */
export function mapLaneMemory(
  native: NativeMemory,
  descriptor: number,
  maxPayloadBytes: number,
): LaneMemory {
  const layout = laneMemoryLayout(maxPayloadBytes);
  const { bytes, address } = mapMemory(native, descriptor, layout.totalBytes);
  const { buffer } = bytes;
  return {
    layout,
    words: new Int32Array(buffer, 0, layout.contextAt / Int32Array.BYTES_PER_ELEMENT),
    doubles: new Float64Array(buffer, 0, layout.contextAt / Float64Array.BYTES_PER_ELEMENT),
    bytes,
    address,
  };
}

/** The memory as both sides see it. */
export interface LaneMemory {
  readonly layout: LaneMemoryLayout;
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly bytes: Uint8Array;
  /** Address of the first byte, in this process. */
  readonly address: number;
}
