/** Requests whose echo can be checked without keeping a copy of each: slices of bytes that never change. */

import type { RequestPayload } from '../../src/index.js';
import type { Random } from './random.js';

const KIB = 1024;
/** `maxPayloadBytes` of every endpoint. */
export const MAX_PAYLOAD_BYTES = 256 * KIB;
const POOL_BYTES = 1024 * KIB;
const MODULUS = 251;
/** What a slot has room for; on either side of it payloads take different ways. */
const ROOM_BYTES = 4 * KIB;

/** Byte i is i % 251: what the fixtures `in_place` and `large_response` reply with. */
export const pattern = Buffer.from(
  Uint8Array.from({ length: MAX_PAYLOAD_BYTES }, (_, index) => index % MODULUS),
);

export interface Payload {
  readonly request: RequestPayload;
  /** What an echo replies with. */
  readonly expected: Buffer;
  /** Called when `execute` has returned: from then on the memory is the caller's again. */
  readonly sent?: () => void;
}

/** Mostly small, some about as large as a slot's room, some as large as allowed. */
export function payloadBytes(random: Random): number {
  const kind = random.weighted({ small: 85, room: 10, large: 5 });
  if (kind === 'small') return random.int(0, 512);
  if (kind === 'room') return ROOM_BYTES + random.int(-64, 64);
  return random.int(ROOM_BYTES, MAX_PAYLOAD_BYTES - 16);
}

export class Payloads {
  /** Shared memory, which is passed on without a copy. */
  readonly #pool: Buffer;

  constructor(random: Random) {
    this.#pool = Buffer.from(new SharedArrayBuffer(POOL_BYTES));
    for (let at = 0; at < POOL_BYTES; at += 4)
      this.#pool.writeUInt32LE(random.int(0, 0xffffffff), at);
  }

  make(random: Random): Payload {
    const length = payloadBytes(random);
    const start = random.int(0, POOL_BYTES - length);
    const expected = this.#pool.subarray(start, start + length);
    switch (random.weighted({ bytes: 40, text: 25, json: 15, shared: 15, ownShared: 5 })) {
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
    }
  }
}
