/**
 * Whether the tables that the dynamic loader follows (relocations, symbols, their hashes, names and versions) lead nowhere outside of
 * the library. The loader checks none of that: it writes where a relocation says and reads where a symbol says, and whether that is somebody
 * else's memory depends on what the process has there.
 *
 * What the tables say otherwise is not looked at: a wrong name or a wrong function inside the library is wrong in pre-flight too.
 */

import { type ElfMemory, PF_X } from './elf-memory.js';
import type { LibraryFile } from './library-file.js';

/** Tags of the dynamic section. */
const DT = {
  NEEDED: 1n,
  PLTRELSZ: 2n,
  PLTGOT: 3n,
  HASH: 4n,
  STRTAB: 5n,
  SYMTAB: 6n,
  RELA: 7n,
  RELASZ: 8n,
  STRSZ: 10n,
  INIT: 12n,
  FINI: 13n,
  SONAME: 14n,
  RPATH: 15n,
  JMPREL: 23n,
  INIT_ARRAY: 25n,
  FINI_ARRAY: 26n,
  INIT_ARRAYSZ: 27n,
  FINI_ARRAYSZ: 28n,
  RUNPATH: 29n,
  RELRSZ: 35n,
  RELR: 36n,
  GNU_HASH: 0x6ffffef5n,
  VERSYM: 0x6ffffff0n,
  VERDEF: 0x6ffffffcn,
  VERNEED: 0x6ffffffen,
  AUXILIARY: 0x7ffffffdn,
  FILTER: 0x7fffffffn,
} as const;

const NAMES: readonly bigint[] = [
  DT.NEEDED,
  DT.SONAME,
  DT.RPATH,
  DT.RUNPATH,
  DT.AUXILIARY,
  DT.FILTER,
];

/** Versions are numbered with 15 bits. */
const MOST_VERSION_RECORDS = 65_536;

const SYMBOL_BYTES = 24;
const RELA_BYTES = 24;
const WORD_BYTES = 8;
const STT_OBJECT = 1;
const STT_FUNC = 2;
const STT_GNU_IFUNC = 10;
const PLACED: readonly number[] = [STT_OBJECT, STT_FUNC, STT_GNU_IFUNC];
const SHN_UNDEF = 0;
/** From here on a section index is no section: absolute values, for one. */
const SHN_LORESERVE = 0xff00;

export interface DynamicEntry {
  readonly tag: bigint;
  readonly value: bigint;
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** Checks a 64-bit file's. @throws {LibraryInvalidError} */
export async function checkElfTables(
  library: LibraryFile,
  memory: ElfMemory,
  dynamic: readonly DynamicEntry[],
  little: boolean,
): Promise<void> {
  await new Tables(library, memory, dynamic, little).check();
}

class Tables {
  readonly #library: LibraryFile;
  readonly #memory: ElfMemory;
  readonly #dynamic: readonly DynamicEntry[];
  /** If a tag is there twice, the last one counts, as for the loader. */
  readonly #values: ReadonlyMap<bigint, bigint>;
  readonly #little: boolean;
  readonly #stringBytes: number;
  /** What code must lie in. On big-endian POWER, functions are named by descriptors, which are data. */
  readonly #codeFlags: number;
  /** Symbols that something refers to: all with smaller numbers are there. */
  #symbols = 0;
  #versionRecords = 0;

  constructor(
    library: LibraryFile,
    memory: ElfMemory,
    dynamic: readonly DynamicEntry[],
    little: boolean,
  ) {
    this.#library = library;
    this.#memory = memory;
    this.#dynamic = dynamic;
    this.#values = new Map(dynamic.map(({ tag, value }) => [tag, value]));
    this.#little = little;
    this.#codeFlags = library.arch === 'ppc64' && !little ? 0 : PF_X;
    this.#stringBytes = Number(this.#values.get(DT.STRSZ) ?? 0n);
  }

  async check(): Promise<void> {
    await this.#checkStrings();
    this.#checkFunctions();
    await this.#checkRelocations(DT.RELA, DT.RELASZ);
    await this.#checkRelocations(DT.JMPREL, DT.PLTRELSZ);
    await this.#checkPackedRelocations();
    await this.#checkHash();
    await this.#checkGnuHash();
    await this.#checkSymbols();
    await this.#checkVersions();
  }

  async #checkStrings(): Promise<void> {
    const address = this.#values.get(DT.STRTAB);
    if (address === undefined) return;
    const what = 'table of names';
    this.#memory.require(address, BigInt(this.#stringBytes), what);
    if (this.#stringBytes > 0) {
      const last = await this.#memory.read(address + BigInt(this.#stringBytes - 1), 1, what);
      if (last.getUint8(0) !== 0) throw this.#library.malformed('a name without an end');
    }
    for (const { tag, value } of this.#dynamic) {
      if (NAMES.includes(tag)) this.#requireName(Number(value));
    }
  }

  #requireName(at: number): void {
    if (at < this.#stringBytes) return;
    throw this.#library.malformed(`a name at byte ${at} of ${this.#stringBytes} bytes of names`);
  }

  #checkFunctions(): void {
    for (const tag of [DT.INIT, DT.FINI]) {
      const address = this.#values.get(tag);
      if (address !== undefined) this.#requireCode(Number(address));
    }
    const got = this.#values.get(DT.PLTGOT);
    if (got !== undefined) this.#memory.require(got, 0n, 'table of addresses');
    for (const { start, end } of this.#arrays()) {
      this.#memory.require(BigInt(start), BigInt(end - start), 'list of functions');
    }
  }

  /** Where the addresses of constructors and destructors are. */
  #arrays(): Range[] {
    return [
      [DT.INIT_ARRAY, DT.INIT_ARRAYSZ] as const,
      [DT.FINI_ARRAY, DT.FINI_ARRAYSZ] as const,
    ].flatMap(([tag, size]) => {
      const start = this.#values.get(tag);
      if (start === undefined) return [];
      return [{ start: Number(start), end: Number(start + (this.#values.get(size) ?? 0n)) }];
    });
  }

  #requireCode(address: number): void {
    if (this.#memory.has(address, this.#codeFlags)) return;
    throw this.#memory.outside('constructor or destructor', address);
  }

  async #checkRelocations(tag: bigint, size: bigint): Promise<void> {
    const address = this.#values.get(tag);
    const length = this.#values.get(size) ?? 0n;
    if (address === undefined || length === 0n) return;
    const what = 'relocations';
    const arrays = this.#arrays();
    for await (const view of this.#memory.table(address, length, RELA_BYTES, what)) {
      for (let at = 0; at < view.byteLength; at += RELA_BYTES) {
        const type = this.#low(view, at + 8);
        const symbol = this.#high(view, at + 8);
        if (type === 0) continue; // Every machine's type 0 does nothing.
        const place = this.#word(view, at);
        this.#requireWord(place);
        this.#symbols = Math.max(this.#symbols, symbol + 1);
        const inArray = arrays.some(({ start, end }) => place >= start && place < end);
        if (inArray && symbol === 0) this.#requireCode(this.#word(view, at + 16));
      }
    }
  }

  #requireWord(place: number): void {
    if (this.#memory.has(place) && this.#memory.has(place + WORD_BYTES)) return;
    throw this.#memory.outside('relocation', place);
  }

  /** DT_RELR: addresses (even), and bitmaps (odd) of which of the 63 words after the last one are meant. */
  async #checkPackedRelocations(): Promise<void> {
    const address = this.#values.get(DT.RELR);
    const length = this.#values.get(DT.RELRSZ) ?? 0n;
    if (address === undefined || length === 0n) return;
    let next = 0;
    for await (const view of this.#memory.table(
      address,
      length,
      WORD_BYTES,
      'packed relocations',
    )) {
      for (let at = 0; at < view.byteLength; at += WORD_BYTES) {
        const [high, low] = [this.#high(view, at), this.#low(view, at)];
        let place = high * 2 ** 32 + low;
        if ((low & 1) === 0) {
          next = place + WORD_BYTES;
        } else {
          const highest = high === 0 ? 31 - Math.clz32(low) : 63 - Math.clz32(high);
          place = next + Math.max(0, highest - 1) * WORD_BYTES;
          next += 63 * WORD_BYTES;
        }
        this.#requireWord(place);
      }
    }
  }

  /** The old table: `nbucket`, `nchain`, then both. */
  async #checkHash(): Promise<void> {
    const address = this.#values.get(DT.HASH);
    // There its numbers have 64 bits.
    if (address === undefined || this.#library.arch === 's390x') return;
    const what = 'hash table';
    const header = await this.#memory.read(address, 8, what);
    const [buckets, chains] = [this.#half(header, 0), this.#half(header, 4)];
    for await (const view of this.#memory.table(
      address + 8n,
      BigInt(4 * (buckets + chains)),
      4,
      what,
    )) {
      for (let at = 0; at < view.byteLength; at += 4) {
        if (this.#half(view, at) >= chains)
          throw this.#library.malformed('a hash table that leads out of itself');
      }
    }
    this.#symbols = Math.max(this.#symbols, chains);
  }

  /** `nbuckets`, first symbol, words of the Bloom filter, shift; the filter; the buckets; a chain for each, ended by an odd number. */
  async #checkGnuHash(): Promise<void> {
    const address = this.#values.get(DT.GNU_HASH);
    if (address === undefined) return;
    const what = 'GNU hash table';
    const header = await this.#memory.read(address, 16, what);
    const [buckets, first, words] = [
      this.#half(header, 0),
      this.#half(header, 4),
      this.#half(header, 8),
    ];
    const bucketsAt = address + 16n + BigInt(words) * 8n;
    const chainsAt = bucketsAt + BigInt(buckets) * 4n;
    this.#memory.require(address, chainsAt - address, what);
    let last = 0;
    for await (const view of this.#memory.table(bucketsAt, BigInt(buckets) * 4n, 4, what)) {
      for (let at = 0; at < view.byteLength; at += 4) {
        const symbol = this.#half(view, at);
        if (symbol !== 0 && symbol < first)
          throw this.#library.malformed('a GNU hash table that leads out of itself');
        last = Math.max(last, symbol);
      }
    }
    if (last === 0) return;
    this.#symbols = Math.max(
      this.#symbols,
      (await this.#endOfChain(chainsAt, last - first, what)) + first,
    );
  }

  /** The last bucket's chain is the last of all: what is after its end is no part of the table. */
  async #endOfChain(chainsAt: bigint, from: number, what: string): Promise<number> {
    const start = chainsAt + BigInt(from) * 4n;
    const length = BigInt(this.#memory.bytesFrom(start, what));
    let index = from;
    for await (const view of this.#memory.table(start, length, 4, what)) {
      for (let at = 0; at + 4 <= view.byteLength; at += 4) {
        index += 1;
        if ((this.#half(view, at) & 1) === 1) return index;
      }
    }
    throw this.#library.malformed('a GNU hash table without an end');
  }

  async #checkSymbols(): Promise<void> {
    const address = this.#values.get(DT.SYMTAB);
    if (address === undefined) return;
    const length = BigInt(this.#symbols) * BigInt(SYMBOL_BYTES);
    for await (const view of this.#memory.table(address, length, SYMBOL_BYTES, 'symbols')) {
      for (let at = 0; at < view.byteLength; at += SYMBOL_BYTES) {
        this.#requireName(this.#half(view, at));
        const section = view.getUint16(at + 6, this.#little);
        const isPlaced = PLACED.includes(view.getUint8(at + 4) & 15);
        if (!isPlaced || section === SHN_UNDEF || section >= SHN_LORESERVE) continue;
        const place = this.#word(view, at + 8);
        if (!this.#memory.has(place)) throw this.#memory.outside('symbol', place);
      }
    }
  }

  /** Which symbol is of which version is an index into what the library needs and defines. */
  async #checkVersions(): Promise<void> {
    const needed = await this.#versionsNeeded();
    const most = Math.max(1, needed, await this.#versionsDefined());
    const address = this.#values.get(DT.VERSYM);
    if (address === undefined) return;
    for await (const view of this.#memory.table(
      address,
      BigInt(2 * this.#symbols),
      2,
      'versions of symbols',
    )) {
      for (let at = 0; at < view.byteLength; at += 2) {
        // The highest bit says that the symbol is hidden.
        const version = view.getUint16(at, this.#little) & 0x7fff;
        if (version > most)
          throw this.#library.malformed(`a symbol of version ${version} of ${most}`);
      }
    }
  }

  /** DT_VERNEED: for each library a record, with a record for each version. Returns the highest number of one. */
  async #versionsNeeded(): Promise<number> {
    let most = 0;
    await this.#follow(DT.VERNEED, 16, 12, async (library, at) => {
      this.#requireName(this.#half(library, 4));
      await this.#followFrom(at + BigInt(this.#half(library, 8)), 16, 12, async (version) => {
        this.#requireName(this.#half(version, 8));
        most = Math.max(most, version.getUint16(6, this.#little) & 0x7fff);
      });
    });
    return most;
  }

  /** DT_VERDEF: a record for each version, with one for its name. */
  async #versionsDefined(): Promise<number> {
    let most = 0;
    await this.#follow(DT.VERDEF, 20, 16, async (version, at) => {
      most = Math.max(most, version.getUint16(4, this.#little) & 0x7fff);
      const name = await this.#memory.read(at + BigInt(this.#half(version, 12)), 8, 'versions');
      this.#requireName(this.#half(name, 0));
    });
    return most;
  }

  async #follow(
    tag: bigint,
    recordBytes: number,
    nextAt: number,
    look: (record: DataView, at: bigint) => Promise<void>,
  ): Promise<void> {
    const address = this.#values.get(tag);
    if (address !== undefined) await this.#followFrom(address, recordBytes, nextAt, look);
  }

  /** Records that each say how far it is to the next, forwards; the last says 0. */
  async #followFrom(
    address: bigint,
    recordBytes: number,
    nextAt: number,
    look: (record: DataView, at: bigint) => Promise<void>,
  ): Promise<void> {
    for (let at = address; ; ) {
      this.#versionRecords += 1;
      if (this.#versionRecords > MOST_VERSION_RECORDS)
        throw this.#library.malformed('versions without an end');
      const record = await this.#memory.read(at, recordBytes, 'versions');
      await look(record, at);
      const next = this.#half(record, nextAt);
      if (next === 0) return;
      at += BigInt(next);
    }
  }

  #half(view: DataView, at: number): number {
    return view.getUint32(at, this.#little);
  }

  #low(view: DataView, at: number): number {
    return this.#half(view, this.#little ? at : at + 4);
  }

  #high(view: DataView, at: number): number {
    return this.#half(view, this.#little ? at + 4 : at);
  }

  /** Imprecise where it is too large for any place in memory anyway. */
  #word(view: DataView, at: number): number {
    return this.#high(view, at) * 2 ** 32 + this.#low(view, at);
  }
}
