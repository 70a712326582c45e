/**
 * What an ELF file makes of memory: its segments, and whether they stay in the one range that the loader reserves for the library.
 *
 * The loader takes that for granted: it maps a segment over whatever is where the header says, and makes that read-only if told to. So a
 * damaged file can pass a trial in another process, where nothing was in its way, and be the end of this one.
 */

import type { LibraryFile } from './library-file.js';

export interface Segment {
  type: number;
  flags: number;
  /** In the file. */
  offset: bigint;
  fileBytes: bigint;
  /** In memory, counted from where the library begins. */
  address: bigint;
  memoryBytes: bigint;
}

export const PT_LOAD = 1;
export const PT_DYNAMIC = 2;
const PT_NOTE = 4;
const PT_PHDR = 6;
const PT_TLS = 7;
const PT_GNU_EH_FRAME = 0x6474e550;
const PT_GNU_RELRO = 0x6474e552;
const PT_GNU_PROPERTY = 0x6474e553;
/** What the loader, or code that unwinds a stack, goes to in memory. */
const READ_IN_MEMORY: readonly number[] = [
  PT_DYNAMIC,
  PT_NOTE,
  PT_PHDR,
  PT_TLS,
  PT_GNU_EH_FRAME,
  PT_GNU_PROPERTY,
];
export const PF_X = 1;

/** The largest page there is on any machine that Node runs on; linkers round up to it. */
const MOST_PAGE_BYTES = 65_536n;
/** Few enough bytes that a chunk is looked through in well under a millisecond. */
const CHUNK_BYTES = 64 * 1024;

/** A library's memory as the loader will have it before it relocates anything. */
export class ElfMemory {
  readonly #library: LibraryFile;
  readonly #loads: readonly Segment[];

  /** @throws {LibraryInvalidError} if segments overlap, or lie where they must not. */
  constructor(library: LibraryFile, segments: readonly Segment[]) {
    this.#library = library;
    this.#loads = segments.filter(({ type }) => type === PT_LOAD);
    this.#checkLoads();
    for (const segment of segments) {
      if (segment.type === PT_GNU_RELRO) this.#checkRelro(segment);
      // Of thread-locals only the part that is in the file is looked at.
      else if (READ_IN_MEMORY.includes(segment.type)) {
        this.require(segment.address, segment.fileBytes, `segment of type ${segment.type}`);
      }
    }
  }

  /** Ascending, as the gABI has it: the loader reserves what is between the first and the last. */
  #checkLoads(): void {
    let end = 0n;
    for (const { address, fileBytes, memoryBytes } of this.#loads) {
      if (memoryBytes < fileBytes)
        throw this.#library.malformed('a segment with less memory than bytes');
      if (address < end) throw this.#library.malformed('segments that overlap in memory');
      end = address + memoryBytes;
    }
    if (end > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw this.#library.malformed(`segments that end at byte ${end} of memory`);
    }
  }

  /** It may end with the last page of its segment. */
  #checkRelro({ address, memoryBytes }: Segment): void {
    const index = this.#loads.findIndex(
      (load) => address >= load.address && address < load.address + load.memoryBytes,
    );
    const load = this.#loads[index];
    const next = this.#loads[index + 1];
    if (load === undefined) throw this.#outside('what is to be read-only', address, memoryBytes);
    const pageEnd = roundUp(load.address + load.memoryBytes, MOST_PAGE_BYTES);
    const most = next === undefined || pageEnd < next.address ? pageEnd : next.address;
    if (address + memoryBytes > most) {
      throw this.#outside('what is to be read-only', address, memoryBytes);
    }
  }

  /** The segment that has all of a range in memory. */
  require(address: bigint, length: bigint, what: string): Segment {
    const load = this.#loads.find(
      (each) => address >= each.address && address + length <= each.address + each.memoryBytes,
    );
    if (load === undefined) throw this.#outside(what, address, length);
    return load;
  }

  /** Whether there is something at an address, or right before it; code, if `flags` say so. */
  has(address: number, flags = 0): boolean {
    return this.#loads.some((load) => {
      const start = Number(load.address);
      return (
        address >= start &&
        address <= start + Number(load.memoryBytes) &&
        (load.flags & flags) === flags
      );
    });
  }

  /** Bytes that the file has for an address. */
  read(address: bigint, length: number, what: string): Promise<DataView> {
    return this.#library.read(this.#inFile(address, BigInt(length), what), length, what);
  }

  /** A table of entries, a part at a time: while one is looked at, nothing else can be done. */
  async *table(
    address: bigint,
    length: bigint,
    entryBytes: number,
    what: string,
  ): AsyncGenerator<DataView> {
    const offset = this.#inFile(address, length, what);
    const whole = Number(length) - (Number(length) % entryBytes);
    const chunkBytes = CHUNK_BYTES - (CHUNK_BYTES % entryBytes);
    for (let done = 0; done < whole; done += chunkBytes) {
      yield await this.#library.read(
        offset + BigInt(done),
        Math.min(chunkBytes, whole - done),
        what,
      );
    }
  }

  #inFile(address: bigint, length: bigint, what: string): bigint {
    const load = this.require(address, length, what);
    const at = address - load.address;
    if (at + length > load.fileBytes) throw this.#outside(what, address, length);
    return load.offset + at;
  }

  /** How many bytes the file has from an address to the end of its segment. */
  bytesFrom(address: bigint, what: string): number {
    const load = this.require(address, 0n, what);
    const left = load.address + load.fileBytes - address;
    return left < 0n ? 0 : Number(left);
  }

  outside(what: string, at: number): Error {
    return this.#outside(what, BigInt(at), 0n);
  }

  #outside(what: string, address: bigint, length: bigint): Error {
    const where = `${length} bytes at ${address}`;
    return this.#library.malformed(`its ${what} (${where}) is not in the library's own memory`);
  }
}

function roundUp(value: bigint, unit: bigint): bigint {
  return ((value + unit - 1n) / unit) * unit;
}
