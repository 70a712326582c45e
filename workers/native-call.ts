/**
 * One call of `handler_entry` at a time on a library in this thread, and what is to be made of its response.
 *
 * The handler writes its response into the caller's window, which has room for the largest response there may be, or points
 * to memory of its own.
 */

import { ROOM_BYTES, STATUS } from '../src/ring/layout.js';
import type { Call } from './call.js';
import type { CallFrame } from './call-frame.js';
import type { NativeLibrary, NativeMemory } from './native-library.js';
import type { ResponseWindow } from './response-window.js';

/** HANDLER_RESPONSE_TOO_LARGE in include/handler.h. */
const RESPONSE_TOO_LARGE_CODE = -2147483001;

export class NativeCall implements Call {
  status: number = STATUS.OK;
  code = 0;
  length = 0;
  defect = '';
  readonly #memory: NativeMemory;
  readonly #library: NativeLibrary;
  readonly #frame: CallFrame;
  readonly #window: ResponseWindow;
  readonly #maxPayloadBytes: number;
  /** Whether the response is memory that can be read, and given back. */
  #isThere = true;

  constructor(
    memory: NativeMemory,
    library: NativeLibrary,
    frame: CallFrame,
    window: ResponseWindow,
    maxPayloadBytes: number,
  ) {
    this.#memory = memory;
    this.#library = library;
    this.#frame = frame;
    this.#window = window;
    this.#maxPayloadBytes = maxPayloadBytes;
  }

  /** Runs `handler_init`, if there is one. Returns its code. */
  initialise(): number {
    this.#frame.setEmptyContext();
    this.#window.offer();
    return this.#library.initialise(this.#frame.context, this.#frame.response);
  }

  run(
    _slot: number,
    strings: number,
    requestIdLength: number,
    metadataLength: number,
    deadlineMs: number,
    cancelFlag: number,
    request: number,
    requestLength: number,
  ): void {
    const frame = this.#frame;
    frame.setContext(strings, requestIdLength, metadataLength, deadlineMs, cancelFlag);
    frame.setRequest(request, requestLength);
    this.#window.offer();
    this.#judge(this.#library.call(frame.context, frame.request, frame.response));
  }

  #judge(code: number): void {
    const length = this.#frame.responseLength;
    this.code = code;
    this.#isThere = true;
    this.length = length;
    if (code === RESPONSE_TOO_LARGE_CODE) {
      this.status = STATUS.RESPONSE_TOO_LARGE;
    } else if (code !== 0) {
      this.status = STATUS.HANDLER_FAILED;
      this.length = Math.min(length, ROOM_BYTES);
      this.#isThere = this.#window.defect(this.length) === null;
      if (!this.#isThere) this.length = 0;
    } else {
      const defect = this.#window.defect(length);
      this.#isThere = defect === null;
      if (defect !== null) {
        this.status = STATUS.INVALID_RESPONSE;
        this.defect = defect;
      } else if (length > this.#maxPayloadBytes) {
        this.status = STATUS.RESPONSE_TOO_LARGE;
      } else {
        this.status = STATUS.OK;
      }
    }
  }

  copyResponse(to: number): void {
    if (this.length > 0) this.#memory.copy(to, this.#frame.responseAddress, this.length);
  }

  release(): void {
    // What is not there cannot be given back either.
    if (this.#isThere && this.#window.isOwn()) this.#library.release?.(this.#frame.response);
  }

  /** The message that the handler left with an error code. */
  readMessage(): string {
    return this.#window.readMessage();
  }
}
