/**
 * A file, read with distrust: every range is checked against the file's size before it is read, and
 * every refusal says what was expected, what came and what to do.
 */

import type { FileHandle } from 'node:fs/promises';
import { type LibraryDefect, LibraryInvalidError } from '../../errors.js';
import { FORMAT_NAMES, formatFor } from './kind.js';

/** Real tables are a few KiB. The largest a 16-bit count can claim is 4 MiB (ELF sections). */
const MAX_TABLE_BYTES = 4 * 1024 * 1024;

const NEXT_STEPS: Partial<Record<LibraryDefect, string>> = {
  'not-a-library': 'Link the handler as a shared library (cc -shared -fPIC) and load that file.',
  'wrong-platform': 'Build the handler for this platform and load that file.',
  'wrong-architecture': 'Build the handler for this architecture and load that file.',
  truncated: 'Put the whole file there again: write it under another name, then rename it.',
};

export class LibraryFile {
  constructor(
    private readonly file: FileHandle,
    private readonly sizeBytes: number,
    private readonly path: string,
    private readonly platform: NodeJS.Platform,
    readonly arch: NodeJS.Architecture,
  ) {}

  /** The bytes of a range, which may not be longer than `MAX_TABLE_BYTES`. */
  async read(offset: bigint, length: number, what: string): Promise<DataView> {
    this.requireInside(offset, BigInt(length), what);
    if (length > MAX_TABLE_BYTES) throw this.malformed(`${what} of ${length} bytes`);
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      // Inside a file whose size is a safe integer, so the position is one too.
      const position = Number(offset) + done;
      const { bytesRead } = await this.file.read(bytes, done, length - done, position);
      if (bytesRead === 0) throw this.refusal('truncated', `a file that ends in its ${what}`);
      done += bytesRead;
    }
    return new DataView(bytes.buffer);
  }

  requireInside(offset: bigint, length: bigint, what: string): void {
    const end = offset + length;
    if (end <= BigInt(this.sizeBytes)) return;
    const got = `a file of ${this.sizeBytes} bytes whose ${what} ends at byte ${end}`;
    throw this.refusal('truncated', got);
  }

  malformed(got: string): LibraryInvalidError {
    return this.refusal('not-a-library', `a malformed file: ${got}`);
  }

  refusal(defect: LibraryDefect, got: string): LibraryInvalidError {
    const format = FORMAT_NAMES[formatFor(this.platform)];
    return new LibraryInvalidError(
      defect,
      `cannot load ${JSON.stringify(this.path)}: expected a whole shared library for ` +
        `${this.platform} ${this.arch} (${format}), got ${got}. ${NEXT_STEPS[defect] ?? ''}`,
      this.path,
    );
  }
}
