/**
 * The bytes of an ELF file: of a file that stays open, or in memory. Every range is checked before
 * it is read.
 */

import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';

/** What an ELF file says contradicts itself, or is of a kind that is not read here. */
export class ElfError extends Error {
  override name = 'ElfError';
}

export interface ElfBytes {
  readonly sizeBytes: number;
  /**
   * A range of the file. It may share memory with the file's other ranges, so it is not to be
   * written to.
   *
   * @throws {ElfError} if it is not all inside of the file.
   */
  read(offset: number, length: number, what: string): Buffer;
  /** Writes over what is there, or behind the end; a gap in between is filled with zeros. */
  write(offset: number, bytes: Uint8Array): void;
  close(): void;
}

function requireInside(offset: number, length: number, sizeBytes: number, what: string): void {
  if (Number.isSafeInteger(offset) && Number.isSafeInteger(length)) {
    if (offset >= 0 && length >= 0 && offset + length <= sizeBytes) return;
  }
  throw new ElfError(`its ${what} (${length} bytes at ${offset}) is not in its ${sizeBytes} bytes`);
}

/** Enough for the headers of nearly all files. */
const HEAD_BYTES = 4096;

/** An open file. Of what is read, only the beginning is kept: it is asked for piece by piece. */
export class FileBytes implements ElfBytes {
  readonly #descriptor: number;
  #sizeBytes: number;
  #head: Buffer | null = null;

  /** @throws a system error if it cannot be opened. */
  constructor(path: string, flags: 'r' | 'r+' = 'r') {
    this.#descriptor = openSync(path, flags);
    this.#sizeBytes = fstatSync(this.#descriptor).size;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  read(offset: number, length: number, what: string): Buffer {
    requireInside(offset, length, this.#sizeBytes, what);
    if (offset + length <= HEAD_BYTES) {
      this.#head ??= this.#readAll(0, Math.min(HEAD_BYTES, this.#sizeBytes), what);
      return this.#head.subarray(offset, offset + length);
    }
    return this.#readAll(offset, length, what);
  }

  #readAll(offset: number, length: number, what: string): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const count = readSync(this.#descriptor, bytes, done, length - done, offset + done);
      if (count === 0) throw new ElfError(`the file ends in its ${what}`);
      done += count;
    }
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#head = null;
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(this.#descriptor, bytes, done, bytes.length - done, offset + done);
    }
    this.#sizeBytes = Math.max(this.#sizeBytes, offset + bytes.length);
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

/** A file in memory. */
export class MemoryBytes implements ElfBytes {
  #bytes: Buffer;

  /** The bytes are used, and written to, where they are, until they have to grow. */
  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get sizeBytes(): number {
    return this.#bytes.length;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  read(offset: number, length: number, what: string): Buffer {
    requireInside(offset, length, this.#bytes.length, what);
    return this.#bytes.subarray(offset, offset + length);
  }

  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (end > this.#bytes.length) {
      this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(end - this.#bytes.length)]);
    }
    this.#bytes.set(bytes, offset);
  }

  close(): void {}
}
