/** Requests whose echo can be checked without keeping a copy of each: slices of bytes that never change. */

import type { RequestPayload } from '../../src/index.js';
import type { Random } from './random.js';

const KIB = 1024;
const MIB = 1024 * KIB;
/** `maxPayloadBytes` of an endpoint, unless its kind says otherwise. */
export const MAX_PAYLOAD_BYTES = 256 * KIB;
/** The largest `maxPayloadBytes` of any kind. */
export const LARGEST_PAYLOAD_BYTES = 12 * MIB;
const POOL_BYTES = LARGEST_PAYLOAD_BYTES + MIB;
/** The pool repeats after so many bytes. A prime, so that a mistake by a round number of bytes shows. */
const PERIOD_BYTES = 1_048_573;
const MODULUS = 251;
/** What a slot has room for; on either side of it payloads take different ways. */
const ROOM_BYTES = 4 * KIB;

/** Byte i is i % 251: what the fixtures `in_place` and `large_response` reply with. */
export const pattern = Buffer.alloc(
  LARGEST_PAYLOAD_BYTES,
  Uint8Array.from({ length: MODULUS }, (_, index) => index),
);

export interface Payload {
  readonly request: RequestPayload;
  /** What an echo replies with. */
  readonly expected: Buffer;
  /** Called when `execute` has returned: from then on the memory is the caller's again. */
  readonly sent?: () => void;
}

/** What an echo may put before the request. */
const PREFIX_BYTES = 16;

const ORDINARY = { small: 85, room: 10, large: 5 };
const LARGE = { small: 10, room: 5, media: 45, large: 30, largest: 10 };

/**
 * Mostly small, some about as large as a slot's room, some as large as allowed. Where more is allowed than is
 * ordinary, most are large.
 */
export function payloadBytes(random: Random, maxPayloadBytes: number): number {
  const most = maxPayloadBytes - PREFIX_BYTES;
  const kind = random.weighted<'small' | 'room' | 'media' | 'large' | 'largest'>(
    allowsLarge(maxPayloadBytes) ? LARGE : ORDINARY,
  );
  switch (kind) {
    case 'small':
      return random.int(0, 512);
    case 'room':
      return ROOM_BYTES + random.int(-64, 64);
    case 'media':
      return 64 * KIB + random.int(-64, 64);
    case 'large':
      return random.int(ROOM_BYTES, Math.min(most, 1.5 * MIB));
    case 'largest':
      return random.int(2 * MIB, most);
  }
}

function allowsLarge(maxPayloadBytes: number): boolean {
  return maxPayloadBytes > MAX_PAYLOAD_BYTES;
}

const WAYS = { bytes: 40, text: 22, json: 13, shared: 14, ownShared: 5, resizable: 3, growable: 3 };
const WAYS_OF_LARGE = { bytes: 60, shared: 18, ownShared: 10, resizable: 6, growable: 6 };
/** By how much a buffer can grow after the call. */
const GROWTH_BYTES = 64 * KIB;

export class Payloads {
  /** Shared memory, which is passed on without a copy. */
  readonly #pool: Buffer;

  constructor(random: Random) {
    const period = Buffer.from(Uint8Array.from({ length: PERIOD_BYTES }, () => random.int(0, 255)));
    this.#pool = Buffer.from(new SharedArrayBuffer(POOL_BYTES)).fill(period);
  }

  make(random: Random, maxPayloadBytes: number): Payload {
    const length = payloadBytes(random, maxPayloadBytes);
    const start = random.int(0, POOL_BYTES - length);
    const expected = this.#pool.subarray(start, start + length);
    const way = random.weighted<keyof typeof WAYS>(
      allowsLarge(maxPayloadBytes) ? WAYS_OF_LARGE : WAYS,
    );
    switch (way) {
      case 'bytes': {
        const own = new Uint8Array(expected);
        // The bytes are taken at the call, so this must not matter.
        return { request: own, expected, sent: () => own.fill(0) };
      }
      case 'text': {
        const text = expected.subarray(0, 300).toString('hex');
        return { request: text, expected: Buffer.from(text) };
      }
      case 'json': {
        const value = { start, text: expected.subarray(0, 100).toString('base64'), list: [length] };
        return { request: value, expected: Buffer.from(JSON.stringify(value)) };
      }
      case 'shared':
        return { request: expected, expected };
      case 'ownShared': {
        // Of its own, so that memory which nobody uses any more is let go of.
        const own = new Uint8Array(new SharedArrayBuffer(length));
        own.set(expected);
        return { request: own, expected };
      }
      case 'resizable': {
        const buffer = new ArrayBuffer(length, { maxByteLength: length + GROWTH_BYTES });
        const own = new Uint8Array(buffer);
        own.set(expected);
        const bytes = random.pick([0, Math.floor(length / 2), length + GROWTH_BYTES]);
        // Longer or shorter, the request has the length that it had at the call.
        return { request: own, expected, sent: () => buffer.resize(bytes) };
      }
      case 'growable': {
        const maxByteLength = length + GROWTH_BYTES;
        const buffer = new SharedArrayBuffer(length, { maxByteLength });
        const own = new Uint8Array(buffer);
        own.set(expected);
        return { request: own, expected, sent: () => buffer.grow(maxByteLength) };
      }
    }
  }
}
