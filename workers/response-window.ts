/**
 * The memory that a handler is offered for its response, and what can be told about the response that it says it has given.
 *
 * The window has room for the largest response there may be. Pages of it that no response ever reached cost nothing.
 */

import { ROOM_BYTES } from '../src/ring/layout.js';
import { reserveShared } from '../src/shared-memory.js';
import type { CallFrame } from './call-frame.js';
import type { NativeMemory } from './native-library.js';

const decoder = new TextDecoder();

/** Bytes of a window for responses of at most `maxPayloadBytes`: messages of handler_fail need room too. */
export function windowBytes(maxPayloadBytes: number): number {
  return Math.max(maxPayloadBytes, ROOM_BYTES);
}

/** Memory for a window. */
export function reserveWindow(maxPayloadBytes: number): Uint8Array {
  const length = windowBytes(maxPayloadBytes);
  return new Uint8Array(reserveShared(length), 0, length);
}

export class ResponseWindow {
  readonly #memory: NativeMemory;
  readonly #frame: CallFrame;
  readonly #bytes: Uint8Array;
  readonly #address: number;

  /** `bytes` are the memory that is offered; they are kept, so that their address stays valid. */
  constructor(memory: NativeMemory, frame: CallFrame, bytes: Uint8Array) {
    this.#memory = memory;
    this.#frame = frame;
    this.#bytes = bytes;
    this.#address = memory.addressOf(bytes);
  }

  /** Offers the window for a response. */
  offer(): void {
    this.#frame.setResponse(this.#address, this.#bytes.length);
  }

  /**
   * What is wrong with the memory that the handler says holds its response; null if nothing can be told. What is longer than any
   * response may be is not looked at: it will not be read.
   */
  defect(length: number): string | null {
    const address = this.#frame.responseAddress;
    if (address === 0) return length === 0 ? null : `a null pointer with ${length} bytes`;
    if (this.isOwn()) {
      if (length > this.#bytes.length || this.#memory.isMapped(address, length)) return null;
      return `${length} bytes at an address where there is no memory`;
    }
    const room = this.#bytes.length - (address - this.#address);
    return length > room ? `${length} bytes in ${room} bytes of the host's memory` : null;
  }

  /** Whether the response is in memory of the handler's own, which it wants back. */
  isOwn(): boolean {
    const address = this.#frame.responseAddress;
    const offset = address - this.#address;
    return address !== 0 && (offset < 0 || offset >= this.#bytes.length);
  }

  /** The response's first `length` bytes, in a buffer of their own. It must have no defect. */
  read(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    if (length > 0) {
      this.#memory.copy(this.#memory.addressOf(bytes), this.#frame.responseAddress, length);
    }
    return bytes;
  }

  /** The message that the handler left with an error code, at most as long as a slot's room. */
  readMessage(): string {
    const length = Math.min(this.#frame.responseLength, ROOM_BYTES);
    return this.defect(length) === null ? decoder.decode(this.read(length)) : '';
  }
}
