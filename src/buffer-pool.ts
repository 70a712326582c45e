/**
 * Buffers of responses that their receivers have given back, for the next responses.
 *
 * Fresh memory for a large response costs more than the copy into it: the system clears each page, and
 * V8, which sees much memory come and go, collects garbage every 64 MiB.
 */

/** How many sizes there are between a power of two and the next: up to a fifth of a buffer is not used. */
const SIZES_PER_OCTAVE = 4;

export class BufferPool {
  #limitBytes: number;
  readonly #free = new Map<number, ArrayBuffer[]>();
  #bytes = 0;
  /** Nobody who does not give buffers back gets larger ones than they need. */
  #isUsed = false;

  /** Keeps at most `limitBytes`. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** A buffer of at least `length` bytes, with anything in it. */
  take(length: number): ArrayBuffer {
    if (!this.#isUsed) return allocate(length);
    const size = unitOf(length) * Math.ceil(length / unitOf(length));
    const buffer = this.#free.get(size)?.pop();
    if (buffer === undefined) return allocate(size);
    this.#bytes -= buffer.byteLength;
    return buffer;
  }

  /** Takes a buffer that nobody else has. Too many are left to the collector. */
  put(buffer: ArrayBuffer): void {
    const { byteLength } = buffer;
    if (byteLength === 0 || this.#bytes + byteLength > this.#limitBytes) return;
    this.#isUsed = true;
    this.#bytes += byteLength;
    const size = unitOf(byteLength) * Math.floor(byteLength / unitOf(byteLength));
    const sameSize = this.#free.get(size);
    if (sameSize === undefined) this.#free.set(size, [buffer]);
    else sameSize.push(buffer);
  }

  /** Keeps nothing, now and later. */
  close(): void {
    this.#limitBytes = 0;
    this.empty();
  }

  /** Takes all of them out. */
  empty(): ArrayBuffer[] {
    const buffers = [...this.#free.values()].flat();
    this.#free.clear();
    this.#bytes = 0;
    return buffers;
  }
}

/** Not cleared: all of it that is seen will be written. */
function allocate(length: number): ArrayBuffer {
  return Buffer.allocUnsafeSlow(length).buffer as ArrayBuffer;
}

function unitOf(length: number): number {
  return Math.max(1, 2 ** Math.floor(Math.log2(length)) / SIZES_PER_OCTAVE);
}
