/** What a caller gets for a request that succeeded. */

import * as workerThreads from 'node:worker_threads';

/** Takes the memory of a response that nobody reads any more. */
export type Recycle = (memory: ArrayBuffer) => void;

/**
 * A handler's answer. Its bytes belong to the caller, who may keep them, or give them back once they have been
 * read: a lane then answers two to five times as many large requests.
 *
 * ```ts
 * using response = await registry.execute('thumbnail', {}, image);
 * await writeFile(path, response.bytes); // Given back at the end of the block, or by response.release().
 * ```
 */
export class HandlerResponse {
  /**
   * The response as it came. Small ones are views into a larger buffer shared with other responses, as
   * Node's own Buffers are, and large ones may be views of somewhat more, in which earlier
   * responses of the same version may still be: mind `byteOffset` and `byteLength` before you use `.buffer`,
   * and copy small ones before you transfer them. Empty after `release()`.
   */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The version of the endpoint that answered. */
  readonly version: number;
  /** Milliseconds from the call until a lane began with it. */
  readonly queuedMs: number;
  /** Milliseconds that the native call took. */
  readonly ranMs: number;
  #recycle: Recycle | null;

  constructor(
    bytes: Uint8Array<ArrayBuffer>,
    version: number,
    queuedMs: number,
    ranMs: number,
    recycle: Recycle | null = null,
  ) {
    this.bytes = bytes;
    this.version = version;
    this.queuedMs = queuedMs;
    this.ranMs = ranMs;
    this.#recycle = recycle;
  }

  /**
   * Gives the memory back, which makes the next large responses quicker. `bytes` has length 0 afterwards, and so has every
   * view of the same buffer if it was larger than 4 KiB. A second call does nothing. Without it, the collector does its work.
   */
  release(): void {
    const { buffer } = this.bytes;
    const recycle = this.#recycle;
    this.#recycle = null;
    (this as { bytes: Uint8Array<ArrayBuffer> }).bytes = NO_BYTES;
    if (recycle === null || buffer.byteLength === 0) return;
    const memory = detach(buffer);
    if (memory !== null) recycle(memory);
  }

  /** The same, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }

  /** The response as UTF-8 text; invalid sequences become U+FFFD. Empty after `release()`. */
  text(): string {
    const { buffer, byteOffset, byteLength } = this.bytes;
    return Buffer.from(buffer, byteOffset, byteLength).toString('utf8');
  }

  /**
   * The response parsed as JSON.
   *
   * @throws {SyntaxError} if it is not JSON, or was released.
   */
  json<T = unknown>(): T {
    return JSON.parse(this.text()) as T;
  }
}

const NO_BYTES = new Uint8Array(0);

// Node 20 does not have it.
const { isMarkedAsUntransferable } = workerThreads as {
  isMarkedAsUntransferable?: (buffer: ArrayBuffer) => boolean;
};

/** The same memory in a buffer that nobody else has; null if its holder has forbidden that. */
function detach(buffer: ArrayBuffer): ArrayBuffer | null {
  // Asked first: Node 22 transfers what is marked, and Node 24 throws.
  if (isMarkedAsUntransferable?.(buffer) === true) return null;
  // Node 20 has no such method.
  const { transfer } = buffer as { transfer?: () => ArrayBuffer };
  if (transfer !== undefined) return transfer.call(buffer);
  try {
    const memory = structuredClone(buffer, { transfer: [buffer] });
    // What is marked was copied instead, and its holder still has it.
    return buffer.byteLength === 0 ? memory : null;
  } catch (error) {
    if ((error as Error).name === 'DataCloneError') return null;
    throw error;
  }
}

const SLAB_BYTES = 8192;
const LARGEST_IN_SLAB = SLAB_BYTES / 4;
/**
 * Up to this length a loop is quicker than making the view that `set` needs: 29 against 73 ns for
 * 16 bytes, 84 against 93 ns for 128 bytes.
 */
const LARGEST_IN_WORDS = 128;

let slab = newSlab();
/** Kept beside the slab, because asking a view for its buffer takes 30 ns. */
let slabBuffer = slab.buffer;
let slabWords = new Int32Array(slabBuffer);
let slabUsed = 0;

/** Never transferred: that would take the other responses in it along. */
function newSlab(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SLAB_BYTES);
  workerThreads.markAsUntransferable(bytes.buffer);
  return bytes;
}

/** Two views of the same memory. */
interface SharedViews {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
}

/**
 * A copy of bytes that lie in shared memory; `start` is a multiple of 4. Small copies share slabs:
 * an allocation for each would cost four times as much (430 against 80 ns for 128 bytes).
 */
export function copyOut(
  { bytes, words }: SharedViews,
  start: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  if (length > LARGEST_IN_SLAB) {
    const copy = new Uint8Array(length);
    copy.set(bytes.subarray(start, start + length));
    return copy;
  }
  // A slab that its holder has detached all the same has length 0, and no room even for an empty one.
  if (slabUsed + (length || 1) > slab.length) {
    slab = newSlab();
    slabBuffer = slab.buffer;
    slabWords = new Int32Array(slabBuffer);
    slabUsed = 0;
  }
  const copy = new Uint8Array(slabBuffer, slabUsed, length);
  if (length <= LARGEST_IN_WORDS) {
    copyWords(slabWords, slabUsed >> 2, words, start >> 2, (length + 3) >> 2);
  } else copy.set(bytes.subarray(start, start + length));
  // Kept aligned, so that the caller can lay wider typed arrays over it.
  slabUsed += (length + 7) & ~7;
  return copy;
}

/** Copies whole words. Excess bytes land in the gap before the next response in the slab. */
function copyWords(to: Int32Array, toAt: number, from: Int32Array, fromAt: number, count: number) {
  for (let word = 0; word < count; word++) to[toAt + word] = from[fromAt + word] ?? 0;
}
