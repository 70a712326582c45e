/**
 * The cancel flags of a version whose handlers run in processes of their own. Such a process does not see the ring, so that it
 * can neither read nor break what is not its own: of each slot it sees this one word, and only to read.
 */

import { writeSync } from 'node:fs';

const WORD_BYTES = Int32Array.BYTES_PER_ELEMENT;
const RAISED = new Uint8Array(Int32Array.of(1).buffer);
const LOWERED = new Uint8Array(Int32Array.of(0).buffer);

export class CancelFlags {
  /** Of shared memory, which processes inherit. */
  readonly descriptor: number;
  readonly byteLength: number;
  readonly #close: (descriptor: number) => void;

  private constructor(descriptor: number, byteLength: number, close: (descriptor: number) => void) {
    this.descriptor = descriptor;
    this.byteLength = byteLength;
    this.#close = close;
  }

  /** Binds what `create` and `close` call (see native-functions.ts). */
  static async prepare(): Promise<void> {
    const { bindCreateMemory } = await import('../workers/process/posix.js');
    const { bindClose } = await import('../workers/c-functions.js');
    bindCreateMemory();
    bindClose();
  }

  /** Flags for `slots` slots, all lowered. */
  static async create(slots: number): Promise<CancelFlags> {
    const { createMemory } = await import('../workers/process/posix.js');
    const { close } = await import('../workers/c-functions.js');
    const byteLength = slots * WORD_BYTES;
    return new CancelFlags(createMemory('changeover-cancel', byteLength), byteLength, close);
  }

  /** Gives the memory back. Every process must have ended. */
  close(): void {
    this.#close(this.descriptor);
  }

  /** A write to memory: it takes a microsecond and never blocks. */
  set(slot: number, raised: boolean): void {
    writeSync(this.descriptor, raised ? RAISED : LOWERED, 0, WORD_BYTES, slot * WORD_BYTES);
  }
}
