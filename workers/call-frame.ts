/**
 * The three structs of include/handler.h, laid out by hand in memory of this lane.
 *
 * A lane runs one request at a time, so one frame a lane is enough: it stays in the processor's cache, and
 * only the fields that differ between requests are written. 64-bit fields are written as two 32-bit
 * halves, since BigInts would be allocated; addresses stay below 2^53.
 */

import type { NativeMemory } from './native-library.js';

const CONTEXT_AT = 0;
const CONTEXT_BYTES = 56;
const REQUEST_AT = 64;
const REQUEST_BYTES = 24;
const RESPONSE_AT = 128;
const RESPONSE_BYTES = 40;
/** A NUL for empty strings, and an address for an empty request. */
const EMPTY_AT = 192;
const FRAME_BYTES = 256;

/** 32-bit word indices of the fields in the frame. */
const FIELD = {
  CONTEXT_SIZE: CONTEXT_AT / 4,
  CONTEXT_ABI: CONTEXT_AT / 4 + 1,
  REQUEST_ID: CONTEXT_AT / 4 + 2,
  REQUEST_ID_LENGTH: CONTEXT_AT / 4 + 4,
  METADATA: CONTEXT_AT / 4 + 6,
  METADATA_LENGTH: CONTEXT_AT / 4 + 8,
  DEADLINE_NS: CONTEXT_AT / 4 + 10,
  CANCEL_FLAG: CONTEXT_AT / 4 + 12,
  REQUEST_SIZE: REQUEST_AT / 4,
  REQUEST_DATA: REQUEST_AT / 4 + 2,
  REQUEST_LENGTH: REQUEST_AT / 4 + 4,
  RESPONSE_SIZE: RESPONSE_AT / 4,
  RESPONSE_DATA: RESPONSE_AT / 4 + 2,
  RESPONSE_CAPACITY: RESPONSE_AT / 4 + 4,
  RESPONSE_LENGTH: RESPONSE_AT / 4 + 6,
  RESPONSE_OWNER: RESPONSE_AT / 4 + 8,
} as const;

const TWO_32 = 2 ** 32;

export class CallFrame {
  /** Addresses of the three structs. */
  readonly context: number;
  readonly request: number;
  readonly response: number;
  readonly #words: Uint32Array;
  readonly #empty: number;

  constructor(memory: NativeMemory, abiVersion: number) {
    const bytes = new Uint8Array(new ArrayBuffer(FRAME_BYTES));
    const base = memory.addressOf(bytes);
    this.#words = new Uint32Array(bytes.buffer);
    this.context = base + CONTEXT_AT;
    this.request = base + REQUEST_AT;
    this.response = base + RESPONSE_AT;
    this.#empty = base + EMPTY_AT;
    this.#words[FIELD.CONTEXT_SIZE] = CONTEXT_BYTES;
    this.#words[FIELD.CONTEXT_ABI] = abiVersion;
    this.#words[FIELD.REQUEST_SIZE] = REQUEST_BYTES;
    this.#words[FIELD.RESPONSE_SIZE] = RESPONSE_BYTES;
  }

  /** Sets the context. `strings` is the address of both strings with their NULs, as in the slot. */
  setContext(
    strings: number,
    requestIdLength: number,
    metadataLength: number,
    deadlineMs: number,
    cancelFlag: number,
  ): void {
    const none = requestIdLength === 0 && metadataLength === 0;
    this.#set64(FIELD.REQUEST_ID, none ? this.#empty : strings);
    this.#set64(FIELD.REQUEST_ID_LENGTH, requestIdLength);
    this.#set64(FIELD.METADATA, none ? this.#empty : strings + requestIdLength + 1);
    this.#set64(FIELD.METADATA_LENGTH, metadataLength);
    this.#set64(FIELD.DEADLINE_NS, deadlineMs === Number.POSITIVE_INFINITY ? 0 : deadlineMs * 1e6);
    this.#set64(FIELD.CANCEL_FLAG, cancelFlag);
  }

  /** A context without request, for `handler_init`: nothing to say, and never cancelled. */
  setEmptyContext(): void {
    this.setContext(this.#empty, 0, 0, Number.POSITIVE_INFINITY, this.#empty);
  }

  setRequest(address: number, length: number): void {
    this.#set64(FIELD.REQUEST_DATA, address);
    this.#set64(FIELD.REQUEST_LENGTH, length);
  }

  /** Offers `capacity` bytes at `address` for the response. */
  setResponse(address: number, capacity: number): void {
    this.#set64(FIELD.RESPONSE_DATA, address);
    this.#set64(FIELD.RESPONSE_CAPACITY, capacity);
    this.#set64(FIELD.RESPONSE_LENGTH, 0);
    this.#set64(FIELD.RESPONSE_OWNER, 0);
  }

  /** Where the handler says its response is. */
  get responseAddress(): number {
    return this.#get64(FIELD.RESPONSE_DATA);
  }

  /** How long it says it is, in bytes. Anything up to 2^64: the handler may say what it likes. */
  get responseLength(): number {
    return this.#get64(FIELD.RESPONSE_LENGTH);
  }

  #set64(field: number, value: number): void {
    this.#words[field] = value;
    this.#words[field + 1] = value / TWO_32;
  }

  #get64(field: number): number {
    return (this.#words[field] ?? 0) + (this.#words[field + 1] ?? 0) * TWO_32;
  }
}
