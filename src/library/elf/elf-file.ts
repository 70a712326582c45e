/**
 * The one reader of ELF files: what the dynamic loader goes by (segments, dynamic section, symbols,
 * relocations, versions), and no sections, which a stripped library need not have. Of any class and
 * byte order.
 *
 * Tables are read when they are asked for, and kept. Everything is synchronous: whoever reads large
 * files does so off the main thread. Nothing in the file is trusted: whatever leads out of it, or
 * does not end, is an `ElfError`.
 */

import { ELF32, ELF64, type ElfLayout } from '../format/elf-layout.js';
import { type ElfBytes, ElfError, FileBytes, MemoryBytes } from './bytes.js';
import { DT, PT, SHN, STB, STV, VERSYM_HIDDEN } from './constants.js';
import { gnuHash, gnuHashAt, sysvHash } from './hash.js';

export interface ElfSegment {
  /** Its place in the table of program headers. */
  index: number;
  type: number;
  flags: number;
  /** In the file. */
  offset: number;
  fileBytes: number;
  /** In memory, counted from where the library begins. */
  address: number;
  memoryBytes: number;
  align: number;
}

export interface ElfDynamicEntry {
  tag: number;
  value: number;
}

export interface ElfSymbol {
  index: number;
  name: string;
  binding: 'local' | 'global' | 'weak' | 'unique' | 'other';
  /** `STT` */
  type: number;
  /** `STV` */
  visibility: number;
  /** `SHN.UNDEF` if another library is to define it. */
  section: number;
  value: number;
  sizeBytes: number;
}

export interface ElfRelocation {
  /** Where it writes, in memory. */
  address: number;
  type: number;
  /** The symbol that it refers to; 0 for none. */
  symbol: number;
}

/** The versions of symbols that are wanted of one library. */
export interface ElfVersionNeed {
  /** The library's SONAME. */
  file: string;
  /** Where the file has the place of that name in its table of names: 4 bytes. */
  fileAt: number;
  versions: { name: string; index: number }[];
}

export interface ElfVersionDefinition {
  flags: number;
  index: number;
  name: string;
  /** Where the file has the hash of the name, and the place of the name: 4 bytes each. */
  hashAt: number;
  nameAt: number;
}

/** Offsets that `ElfLayout` does not have. */
const MORE = {
  32: {
    pAlign: 28,
    symbolBytes: 16,
    symValue: 4,
    symSize: 8,
    symInfo: 12,
    symSection: 14,
  },
  64: {
    pAlign: 48,
    symbolBytes: 24,
    symValue: 8,
    symSize: 16,
    symInfo: 4,
    symSection: 6,
  },
} as const;

/** Tags with the addresses of tables, which lie apart. */
const TABLES = [
  DT.HASH,
  DT.STRTAB,
  DT.SYMTAB,
  DT.RELA,
  DT.REL,
  DT.JMPREL,
  DT.VERSYM,
  DT.VERDEF,
  DT.VERNEED,
];

const BINDINGS: Partial<Record<number, ElfSymbol['binding']>> = {
  [STB.LOCAL]: 'local',
  [STB.GLOBAL]: 'global',
  [STB.WEAK]: 'weak',
  [STB.GNU_UNIQUE]: 'unique',
};

/** Of Node's own names there are some 6 MiB. */
const MOST_TABLE_BYTES = 256 * 1024 * 1024;
const ELF_MAGIC = 0x7f454c46;
const MOST_DYNAMIC_ENTRIES = 65_536;
/** Versions are numbered with 15 bits. */
const MOST_VERSION_RECORDS = 65_536;
/** More than the name of a file or a search path has, nearly always. */
const FILE_NAME_BYTES = 1024;
/** Where the filter of a table of hashes begins, in words. */
const FILTER_AT = 4;
const HOST_IS_LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Names by their hashes, so that a file can be searched for many of them at once. */
export type HashedNames = ReadonlyMap<number, string>;

export function hashNames(names: Iterable<string>): HashedNames {
  return new Map([...names].map((name) => [gnuHash(name), name]));
}

/** Whether others can refer to it. */
export function isExported({ binding, visibility, section }: ElfSymbol): boolean {
  if (section === SHN.UNDEF || binding === 'local' || binding === 'other') return false;
  return visibility === STV.DEFAULT || visibility === STV.PROTECTED;
}

/** Whether another library is to define it. */
export function isImported({ binding, section }: ElfSymbol): boolean {
  return section === SHN.UNDEF && binding !== 'local' && binding !== 'other';
}

/** Whether a symbol that binds so is looked for by its name, among all libraries. */
function isShared(binding: number): boolean {
  return binding === STB.GLOBAL || binding === STB.WEAK || binding === STB.GNU_UNIQUE;
}

export class ElfFile {
  readonly bytes: ElfBytes;
  readonly layout: ElfLayout;
  readonly little: boolean;
  /** `e_type`: 2 for an executable at a fixed place, 3 for whatever can be anywhere. */
  readonly type: number;
  readonly machine: number;
  readonly segments: readonly ElfSegment[];
  /** Up to the entry that ends it, which is not included. */
  readonly dynamic: readonly ElfDynamicEntry[];
  /** Where the table of program headers is. */
  readonly programHeadersAt: number;
  /** If a tag is there twice, the last one counts, as for the loader. */
  readonly #values: ReadonlyMap<number, number>;
  readonly #fileNames = new Map<number, string>();
  #strings: Buffer | null = null;
  #symbolTable: DataView | null = null;
  #symbolCount: number | null = null;
  #imports: SymbolsWithHashes | null = null;
  #unique: readonly number[] | null = null;
  #versions: DataView | null | undefined;
  #gnuHash: GnuHashTable | null | undefined;

  /** @throws {ElfError} if the headers are not those of an ELF file. */
  constructor(bytes: ElfBytes) {
    this.bytes = bytes;
    const ident = view(bytes.read(0, ELF32.headerBytes, 'ELF header'));
    const layout = [undefined, ELF32, ELF64][ident.getUint8(4)];
    if (ident.getUint32(0) !== ELF_MAGIC || layout === undefined) {
      throw new ElfError('it is not an ELF file');
    }
    this.layout = layout;
    this.little = ident.getUint8(5) === 1;
    const header = view(bytes.read(0, layout.headerBytes, 'ELF header'));
    this.type = header.getUint16(16, this.little);
    this.machine = header.getUint16(18, this.little);
    this.programHeadersAt = this.word(header, layout.phoff);
    this.segments = this.#readSegments(
      header.getUint16(layout.phnum, this.little),
      header.getUint16(layout.phentsize, this.little),
    );
    this.dynamic = this.#readDynamic();
    this.#values = new Map(this.dynamic.map(({ tag, value }) => [tag, value]));
  }

  /**
   * Opens a file, which stays open until `close()`.
   *
   * @throws {ElfError} if it is not an ELF file, or a system error if it cannot be opened.
   */
  static open(path: string, flags: 'r' | 'r+' = 'r'): ElfFile {
    const bytes = new FileBytes(path, flags);
    try {
      return new ElfFile(bytes);
    } catch (error) {
      bytes.close();
      throw error;
    }
  }

  /** @throws {ElfError} if it is not an ELF file. */
  static from(bytes: Uint8Array): ElfFile {
    return new ElfFile(new MemoryBytes(bytes));
  }

  /**
   * Whether there is an ELF file for the same machine as this one, whole or not: what the loader
   * would take.
   *
   * @throws a system error if it cannot be read.
   */
  isLike(path: string): boolean {
    const bytes = new FileBytes(path, 'r');
    try {
      if (bytes.sizeBytes < ELF32.headerBytes) return false;
      const head = view(bytes.read(0, ELF32.headerBytes, 'ELF header'));
      const isElf = head.getUint32(0) === ELF_MAGIC;
      const bits = head.getUint8(4) === 1 ? 32 : 64;
      const little = head.getUint8(5) === 1;
      const machine = head.getUint16(18, little);
      return (
        isElf && bits === this.layout.bits && little === this.little && machine === this.machine
      );
    } finally {
      bytes.close();
    }
  }

  close(): void {
    this.bytes.close();
  }

  /** A word of the file's class. */
  word(from: DataView, at: number): number {
    const first = from.getUint32(at, this.little);
    if (this.layout.bits === 32) return first;
    // Not as a BigInt, which would be allocated.
    const second = from.getUint32(at + 4, this.little);
    return this.little ? second * 2 ** 32 + first : first * 2 ** 32 + second;
  }

  #readSegments(count: number, entryBytes: number): ElfSegment[] {
    const { programHeaderBytes, pFlags, pOffset, pVaddr, pFilesz, pMemsz, bits } = this.layout;
    const { pAlign } = MORE[bits];
    if (count > 0 && entryBytes !== programHeaderBytes) {
      throw new ElfError(`its program headers have ${entryBytes} bytes`);
    }
    const all = this.bytes.read(this.programHeadersAt, count * entryBytes, 'program headers');
    const table = view(all);
    return Array.from({ length: count }, (_, index) => {
      const at = index * entryBytes;
      return {
        index,
        type: table.getUint32(at, this.little),
        flags: table.getUint32(at + pFlags, this.little),
        offset: this.word(table, at + pOffset),
        fileBytes: this.word(table, at + pFilesz),
        address: this.word(table, at + pVaddr),
        memoryBytes: this.word(table, at + pMemsz),
        align: this.word(table, at + pAlign),
      };
    });
  }

  /** The segment of that type that the loader goes by: the last one. */
  segment(type: number): ElfSegment | undefined {
    return this.segments.findLast((segment) => segment.type === type);
  }

  #readDynamic(): ElfDynamicEntry[] {
    const segment = this.segment(PT.DYNAMIC);
    if (segment === undefined) return [];
    const wordBytes = this.layout.bits / 8;
    const count = Math.floor(segment.fileBytes / (2 * wordBytes));
    if (count > MOST_DYNAMIC_ENTRIES)
      throw new ElfError(`its dynamic section has ${count} entries`);
    const table = view(this.bytes.read(segment.offset, segment.fileBytes, 'dynamic section'));
    const entries: ElfDynamicEntry[] = [];
    for (let index = 0; index < count; index++) {
      const at = index * 2 * wordBytes;
      const tag = this.word(table, at);
      if (tag === DT.NULL) break;
      entries.push({ tag, value: this.word(table, at + wordBytes) });
    }
    return entries;
  }

  // ---- What the dynamic section says -------------------------------------------------------------

  value(tag: number): number | undefined {
    return this.#values.get(tag);
  }

  /** The names of a tag that may be there several times, in that order. */
  names(tag: number): string[] {
    return this.dynamic
      .filter((entry) => entry.tag === tag)
      .map(({ value }) => this.#fileName(value));
  }

  #name(tag: number): string | null {
    const at = this.value(tag);
    return at === undefined ? null : this.#fileName(at);
  }

  get soname(): string | null {
    return this.#name(DT.SONAME);
  }

  /** The libraries it needs, by SONAME or, with a slash in it, by path. */
  get needed(): string[] {
    return this.names(DT.NEEDED);
  }

  /**
   * Where its own dependencies are looked for, and no others. Where there is one, `rpath` is not
   * looked at.
   */
  get runpath(): string | null {
    return this.#name(DT.RUNPATH);
  }

  /** Where its dependencies and theirs are looked for, before anything else. */
  get rpath(): string | null {
    return this.#name(DT.RPATH);
  }

  /** The program interpreter, which executables have. */
  get interpreter(): string | null {
    const segment = this.segment(PT.INTERP);
    if (segment === undefined) return null;
    return cString(this.bytes.read(segment.offset, segment.fileBytes, 'interpreter'), 0, 'utf8');
  }

  // ---- Places ------------------------------------------------------------------------------------

  /** Where the file has what is at an address in memory. */
  offsetOf(address: number, what: string): number {
    const load = this.#loadAt(address);
    if (load === undefined) throw new ElfError(`its ${what} is at ${address}, which is not in it`);
    return load.offset + (address - load.address);
  }

  #loadAt(address: number): ElfSegment | undefined {
    return this.segments.find(
      ({ type, address: start, fileBytes }) =>
        type === PT.LOAD && address >= start && address < start + fileBytes,
    );
  }

  /** What is at an address, in memory. */
  readAt(address: number, length: number, what: string): Buffer {
    if (length > MOST_TABLE_BYTES) throw new ElfError(`its ${what} has ${length} bytes`);
    return this.bytes.read(this.offsetOf(address, what), length, what);
  }

  /**
   * How much there can be of a table at an address: up to the next table, or to the end of its
   * segment.
   */
  #mostBytesAt(address: number, what: string): number {
    const load = this.#loadAt(address);
    if (load === undefined) throw new ElfError(`its ${what} is at ${address}, which is not in it`);
    const tables = TABLES.map((tag) => this.value(tag) ?? 0).filter((at) => at > address);
    return Math.min(load.address + load.fileBytes, ...tables) - address;
  }

  /** The table of names. */
  get strings(): Buffer {
    if (this.#strings === null) {
      const address = this.value(DT.STRTAB);
      const length = this.value(DT.STRSZ) ?? 0;
      this.#strings =
        address === undefined || length === 0
          ? Buffer.alloc(0)
          : this.readAt(address, length, 'table of names');
    }
    return this.#strings;
  }

  /**
   * A symbol's name by its place in the table of names: each character is a byte, as for the
   * hashes.
   */
  #symbolName(at: number): string {
    return cString(this.strings, at, 'latin1');
  }

  /**
   * The name of a file by its place in the table of names. That table can be large, and of many
   * libraries nothing is asked but their own names, so only this place is read.
   */
  #fileName(at: number): string {
    let name = this.#fileNames.get(at);
    if (name === undefined) {
      name = this.#readFileName(at);
      this.#fileNames.set(at, name);
    }
    return name;
  }

  #readFileName(at: number): string {
    const address = this.value(DT.STRTAB);
    const rest = (this.value(DT.STRSZ) ?? 0) - at;
    if (this.#strings === null && address !== undefined && rest > 0) {
      const bytes = this.readAt(address + at, Math.min(rest, FILE_NAME_BYTES), 'table of names');
      if (bytes.includes(0)) return cString(bytes, 0, 'utf8');
    }
    return cString(this.strings, at, 'utf8');
  }

  // ---- Symbols -----------------------------------------------------------------------------------

  /** With the first one, which is always empty. */
  get symbolCount(): number {
    this.#symbolCount ??= this.#countSymbols();
    return this.#symbolCount;
  }

  /**
   * Nothing says how many there are. The older hash table has an entry for each; the newer one ends
   * with the last symbol, unless nothing is defined: then whatever matters is in relocations.
   */
  #countSymbols(): number {
    if (this.value(DT.SYMTAB) === undefined) return 0;
    const hash = this.value(DT.HASH);
    if (hash !== undefined)
      return view(this.readAt(hash, 8, 'hash table')).getUint32(4, this.little);
    const last = this.#gnuHashTable()?.lastSymbol() ?? 0;
    if (last > 0) return last + 1;
    let most = 0;
    for (const { symbol } of this.relocations()) most = Math.max(most, symbol);
    return most + 1;
  }

  get symbolBytes(): number {
    return MORE[this.layout.bits].symbolBytes;
  }

  /**
   * Where in a symbol's entry the byte is that has its binding, in the upper half, and its type.
   */
  get symbolInfoAt(): number {
    return MORE[this.layout.bits].symInfo;
  }

  /** The table of symbols. */
  get symbolTable(): DataView {
    if (this.#symbolTable === null) {
      const address = this.value(DT.SYMTAB) ?? 0;
      const length = this.symbolCount * this.symbolBytes;
      this.#symbolTable = view(
        length === 0 ? Buffer.alloc(0) : this.readAt(address, length, 'table of symbols'),
      );
    }
    return this.#symbolTable;
  }

  /** Reads the tables that symbols are found by. */
  readAhead(): void {
    this.mayDefine(0);
    void this.symbolTable;
    void this.strings;
  }

  symbol(index: number): ElfSymbol {
    if (index >= this.symbolCount) this.#refuseSymbol(index);
    const table = this.symbolTable;
    const { symInfo, symSection, symValue, symSize, symbolBytes } = MORE[this.layout.bits];
    const at = index * symbolBytes;
    const info = table.getUint8(at + symInfo);
    return {
      index,
      name: this.#symbolName(table.getUint32(at, this.little)),
      binding: BINDINGS[info >> 4] ?? 'other',
      type: info & 15,
      visibility: table.getUint8(at + symInfo + 1) & 3,
      section: table.getUint16(at + symSection, this.little),
      value: this.word(table, at + symValue),
      sizeBytes: this.word(table, at + symSize),
    };
  }

  #refuseSymbol(index: number): never {
    throw new ElfError(`it refers to symbol ${index} of ${this.symbolCount}`);
  }

  *symbols(): Generator<ElfSymbol> {
    // The first one is always empty.
    for (let index = 1; index < this.symbolCount; index++) yield this.symbol(index);
  }

  // A library can have a hundred thousand symbols, and is mostly read by code that has not run yet.
  // So what is asked of all of them is answered from the bytes of the table, and with the hashes of
  // names: spelling a name out takes longer than all else that is done with it.

  /** The name of a symbol. */
  nameOf(index: number): string {
    return this.#symbolName(this.symbolTable.getUint32(index * this.symbolBytes, this.little));
  }

  /** The hash of its name, as `gnuHash` makes it. */
  nameHashOf(index: number): number {
    const at = this.symbolTable.getUint32(index * this.symbolBytes, this.little);
    return gnuHashAt(this.strings, at);
  }

  /**
   * The same without its lowest bit, read from the hash table, which has that much of it. Null if the
   * symbol is not in there, because the file does not define it.
   */
  storedHashOf(index: number): number | null {
    return this.#gnuHashTable()?.storedHash(index) ?? null;
  }

  /** Those that bind as `STB_GNU_UNIQUE`. */
  get unique(): readonly number[] {
    if (this.#unique === null) {
      const { symInfo, symbolBytes } = MORE[this.layout.bits];
      const table = bytesOf(this.symbolTable);
      const found: number[] = [];
      for (let at = symbolBytes; at < table.length; at += symbolBytes) {
        if ((table[at + symInfo] as number) >> 4 === STB.GNU_UNIQUE) found.push(at / symbolBytes);
      }
      this.#unique = found;
    }
    return this.#unique;
  }

  /** Those that another library is to define. */
  get imports(): SymbolsWithHashes {
    this.#imports ??= this.#findImports();
    return this.#imports;
  }

  #findImports(): SymbolsWithHashes {
    const { symInfo, symSection, symbolBytes } = MORE[this.layout.bits];
    const table = bytesOf(this.symbolTable);
    const indexes: number[] = [];
    for (let at = symbolBytes; at < table.length; at += symbolBytes) {
      // SHN.UNDEF, whatever the order of bytes.
      if (table[at + symSection] !== 0 || table[at + symSection + 1] !== 0) continue;
      if (isShared((table[at + symInfo] as number) >> 4)) indexes.push(at / symbolBytes);
    }
    return { indexes, hashes: indexes.map((index) => this.nameHashOf(index)) };
  }

  /** Which of these names another library is to define. */
  importsAmong(names: HashedNames): Set<string> {
    const found = new Set<string>();
    const { indexes, hashes } = this.imports;
    for (let place = 0; place < hashes.length; place++) {
      const name = names.get(hashes[place] as number);
      if (name !== undefined && this.nameOf(indexes[place] as number) === name) found.add(name);
    }
    return found;
  }

  /**
   * Whether it defines a symbol that others can refer to, and that the loader, looking for its
   * name, may find in another library.
   */
  isReplaceable(index: number): boolean {
    const { symInfo, symSection, symbolBytes } = MORE[this.layout.bits];
    const table = this.symbolTable;
    const at = index * symbolBytes;
    const visibility = table.getUint8(at + symInfo + 1) & 3;
    const isDefined = table.getUint16(at + symSection, this.little) !== SHN.UNDEF;
    return isShared(table.getUint8(at + symInfo) >> 4) && isDefined && visibility === STV.DEFAULT;
  }

  /**
   * The number of a symbol's version, and `VERSYM_HIDDEN` if it is not the default one; 1 if it has
   * none.
   */
  versionOf(index: number): number {
    if (this.#versions === undefined) {
      const address = this.value(DT.VERSYM);
      this.#versions =
        address === undefined
          ? null
          : view(this.readAt(address, this.symbolCount * 2, 'versions of symbols'));
    }
    return this.#versions === null ? 1 : this.#versions.getUint16(index * 2, this.little);
  }

  /**
   * What others get for a name: the default version's symbol if there are several. Found by hash,
   * without looking at all others. A caller that has the name's hash already passes it.
   */
  find(name: string, hash = gnuHash(name)): ElfSymbol | undefined {
    if (!this.mayDefine(hash)) return undefined;
    let found: ElfSymbol | undefined;
    for (const index of this.#candidates(name, hash)) {
      const symbol = this.symbol(index);
      if (symbol.name !== name || !isExported(symbol)) continue;
      if ((this.versionOf(index) & VERSYM_HIDDEN) === 0) return symbol;
      found ??= symbol;
    }
    return found;
  }

  /**
   * Whether it may define a name with this hash: false is certain. Reads only the hash table; where
   * there is none, the answer is always true.
   */
  mayDefine(hash: number): boolean {
    return this.#gnuHashTable()?.mayHave(hash) ?? true;
  }

  #candidates(name: string, hash: number): Iterable<number> {
    const table = this.#gnuHashTable();
    if (table !== null) return table.candidates(hash);
    const address = this.value(DT.HASH);
    if (address !== undefined) return this.#sysvCandidates(address, name);
    return Array.from({ length: Math.max(0, this.symbolCount - 1) }, (_, index) => index + 1);
  }

  *#sysvCandidates(address: number, name: string): Generator<number> {
    const head = view(this.readAt(address, 8, 'hash table'));
    const buckets = head.getUint32(0, this.little);
    const chains = head.getUint32(4, this.little);
    if (buckets === 0) return;
    const table = view(this.readAt(address + 8, (buckets + chains) * 4, 'hash table'));
    let index = table.getUint32((sysvHash(name) % buckets) * 4, this.little);
    for (let steps = 0; index !== 0 && index < chains && steps < chains; steps++) {
      yield index;
      index = table.getUint32((buckets + index) * 4, this.little);
    }
  }

  #gnuHashTable(): GnuHashTable | null {
    if (this.#gnuHash === undefined) {
      const address = this.value(DT.GNU_HASH);
      this.#gnuHash =
        address === undefined
          ? null
          : new GnuHashTable(
              words(
                this.readAt(address, this.#mostBytesAt(address, 'hash table'), 'hash table'),
                this.little,
              ),
              this.layout.bits,
              this.little,
            );
    }
    return this.#gnuHash;
  }

  // ---- Relocations -------------------------------------------------------------------------------

  /** Those that can refer to symbols: packed relative ones are left out. */
  *relocations(): Generator<ElfRelocation> {
    const pltEntries = this.value(DT.PLTREL);
    yield* this.#relocationsIn(DT.RELA, DT.RELASZ, true);
    yield* this.#relocationsIn(DT.REL, DT.RELSZ, false);
    yield* this.#relocationsIn(DT.JMPREL, DT.PLTRELSZ, pltEntries !== DT.REL);
  }

  /** The symbols that relocations refer to. Cheaper than looking at each relocation. */
  referencedSymbols(): number[] {
    const marks = new Uint8Array(this.symbolCount);
    const isRela = this.value(DT.PLTREL) !== DT.REL;
    this.#markReferenced(marks, DT.RELA, DT.RELASZ, true);
    this.#markReferenced(marks, DT.REL, DT.RELSZ, false);
    this.#markReferenced(marks, DT.JMPREL, DT.PLTRELSZ, isRela);
    const found: number[] = [];
    // The first one stands for none.
    for (let index = 1; index < marks.length; index++) if (marks[index] === 1) found.push(index);
    return found;
  }

  #markReferenced(marks: Uint8Array, tag: number, sizeTag: number, withAddend: boolean): void {
    const address = this.value(tag);
    const length = this.value(sizeTag) ?? 0;
    if (address === undefined || length === 0) return;
    const is32 = this.layout.bits === 32;
    const entryWords = ((withAddend ? 3 : 2) * this.layout.bits) / 32;
    const symbolAt = is32 ? 1 : this.little ? 3 : 2;
    // The linker puts those first that refer to no symbol, and says how many there are.
    const withoutSymbol = this.value(tag === DT.RELA ? DT.RELACOUNT : DT.RELCOUNT) ?? 0;
    const skipped = tag === DT.JMPREL ? 0 : withoutSymbol * entryWords * 4;
    if (skipped >= length) return;
    const bytes = this.readAt(address + skipped, length - skipped, 'relocations');
    const table = words(bytes, this.little);
    for (let at = symbolAt; at < table.length; at += entryWords) {
      const word = table[at] as number;
      const index = is32 ? word >>> 8 : word;
      if (index >= marks.length) this.#refuseSymbol(index);
      marks[index] = 1;
    }
  }

  *#relocationsIn(tag: number, sizeTag: number, withAddend: boolean): Generator<ElfRelocation> {
    const address = this.value(tag);
    const length = this.value(sizeTag) ?? 0;
    if (address === undefined || length === 0) return;
    const wordBytes = this.layout.bits / 8;
    const entryBytes = (withAddend ? 3 : 2) * wordBytes;
    const table = view(this.readAt(address, length, 'relocations'));
    for (let at = 0; at + entryBytes <= length; at += entryBytes) {
      const where = this.word(table, at);
      if (this.layout.bits === 32) {
        const info = table.getUint32(at + 4, this.little);
        yield { address: where, type: info & 0xff, symbol: info >>> 8 };
      } else {
        const [low, high] = this.little ? [8, 12] : [12, 8];
        yield {
          address: where,
          type: table.getUint32(at + low, this.little),
          symbol: table.getUint32(at + high, this.little),
        };
      }
    }
  }

  // ---- Versions ----------------------------------------------------------------------------------

  /** What versions it wants, by library. */
  versionNeeds(): ElfVersionNeed[] {
    const address = this.value(DT.VERNEED);
    if (address === undefined) return [];
    const needs: ElfVersionNeed[] = [];
    const records = new Records(this, address, 16, 'version needs');
    for (const need of records.list(0, 12)) {
      const versions = [...need.list(8, 12)].map((each) => ({
        name: this.#symbolName(each.u32(8)),
        index: each.u16(6),
      }));
      needs.push({ file: this.#fileName(need.u32(4)), fileAt: need.offset + 4, versions });
    }
    return needs;
  }

  /** What versions it defines, and first of all itself. */
  versionDefinitions(): ElfVersionDefinition[] {
    const address = this.value(DT.VERDEF);
    if (address === undefined) return [];
    const definitions: ElfVersionDefinition[] = [];
    const records = new Records(this, address, 20, 'version definitions');
    for (const each of records.list(0, 16)) {
      // The name itself is the first of its names; those that follow are of its parents.
      const name = each.follow(12, 8);
      definitions.push({
        flags: each.u16(2),
        index: each.u16(4),
        name: this.#fileName(name.u32(0)),
        hashAt: each.offset + 8,
        nameAt: name.offset,
      });
    }
    return definitions;
  }
}

/** Symbols by number, and the hashes of their names in the same order. */
export interface SymbolsWithHashes {
  readonly indexes: readonly number[];
  readonly hashes: readonly number[];
}

/**
 * A record of a version table, in which each says how far it is to the next one and to what belongs
 * to it.
 */
class Records {
  readonly #file: ElfFile;
  readonly #what: string;
  readonly offset: number;
  readonly #address: number;
  readonly #view: DataView;

  constructor(file: ElfFile, address: number, bytes: number, what: string) {
    this.#file = file;
    this.#what = what;
    this.#address = address;
    this.offset = file.offsetOf(address, what);
    this.#view = view(file.readAt(address, bytes, what));
  }

  u16(at: number): number {
    return this.#view.getUint16(at, this.#file.little);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, this.#file.little);
  }

  /** The record that the field at `at` leads to. */
  follow(at: number, bytes: number): Records {
    return new Records(this.#file, this.#address + this.u32(at), bytes, this.#what);
  }

  /** From the record that `firstAt` leads to (0: from this one) to the one whose `nextAt` is 0. */
  *list(firstAt: number, nextAt: number): Generator<Records> {
    const { byteLength } = this.#view;
    let record: Records = firstAt === 0 ? this : this.follow(firstAt, byteLength);
    for (let count = 0; count < MOST_VERSION_RECORDS; count++) {
      yield record;
      if (record.u32(nextAt) === 0) return;
      record = record.follow(nextAt, byteLength);
    }
    throw new ElfError(`its ${this.#what} do not end`);
  }
}

/** `DT_GNU_HASH`: https://sourceware.org/legacy-ml/binutils/2006-10/msg00377.html */
class GnuHashTable {
  readonly #words: Uint32Array;
  /** Of a word of the filter. */
  readonly #bits: 32 | 64;
  readonly #little: boolean;
  readonly #buckets: number;
  /** The number of the first symbol that is in it. */
  readonly #first: number;
  readonly #filterWords: number;
  readonly #shift: number;
  readonly #bucketsAt: number;
  readonly #chainsAt: number;

  constructor(words: Uint32Array, bits: 32 | 64, little: boolean) {
    const [buckets, first, filterWords, shift] = words;
    if (buckets === undefined || first === undefined) throw cutOff();
    if (filterWords === undefined || shift === undefined) throw cutOff();
    this.#words = words;
    this.#bits = bits;
    this.#little = little;
    this.#buckets = buckets;
    this.#first = first;
    this.#filterWords = filterWords;
    this.#shift = shift;
    this.#bucketsAt = FILTER_AT + (filterWords * bits) / 32;
    this.#chainsAt = this.#bucketsAt + buckets;
    if (this.#chainsAt > words.length) throw cutOff();
  }

  #word(at: number): number {
    const word = this.#words[at];
    if (word === undefined) throw cutOff();
    return word;
  }

  /** The number of the last symbol in it; 0 if there is none. */
  lastSymbol(): number {
    let last = 0;
    for (let at = this.#bucketsAt; at < this.#chainsAt; at++) {
      const start = this.#words[at] as number;
      if (start > last) last = start;
    }
    if (last < this.#first || last === 0) return 0;
    while ((this.#word(this.#chainsAt + last - this.#first) & 1) === 0) last++;
    return last;
  }

  /** The hash of a symbol's name but for the lowest bit, which says whether it ends a chain. */
  storedHash(index: number): number | null {
    if (index < this.#first) return null;
    return (this.#word(this.#chainsAt + index - this.#first) & ~1) >>> 0;
  }

  /** Whether it may have a name with this hash: a Bloom filter, which the loader goes by too. */
  mayHave(hash: number): boolean {
    if (this.#filterWords === 0) return true;
    const at = Math.floor(hash / this.#bits) % this.#filterWords;
    return (
      this.#isSet(at, hash % this.#bits) && this.#isSet(at, (hash >>> this.#shift) % this.#bits)
    );
  }

  #isSet(word: number, bit: number): boolean {
    if (this.#bits === 32) return ((this.#word(FILTER_AT + word) >>> bit) & 1) === 1;
    const isInSecond = this.#little === bit >= 32;
    const half = this.#word(FILTER_AT + 2 * word + (isInSecond ? 1 : 0));
    return ((half >>> (bit % 32)) & 1) === 1;
  }

  /** Symbols that may have the name with this hash. */
  *candidates(hash: number): Generator<number> {
    if (this.#buckets === 0) return;
    const start = this.#word(this.#bucketsAt + (hash % this.#buckets));
    if (start < this.#first || start === 0) return;
    for (let index = start; ; index++) {
      const entry = this.#word(this.#chainsAt + index - this.#first);
      if ((entry | 1) >>> 0 === (hash | 1) >>> 0) yield index;
      if ((entry & 1) === 1) return;
    }
  }
}

function cutOff(): ElfError {
  return new ElfError('its hash table is cut off');
}

/**
 * A table of 32-bit numbers. A copy, because typed arrays have to be aligned and in the byte order of
 * the host.
 */
function words(bytes: Buffer, little: boolean): Uint32Array {
  const copy = new Uint32Array(bytes.length >>> 2);
  const target = Buffer.from(copy.buffer);
  bytes.copy(target);
  if (little !== HOST_IS_LITTLE) target.swap32();
  return copy;
}

function bytesOf({ buffer, byteOffset, byteLength }: DataView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function view(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function cString(bytes: Buffer, at: number, encoding: 'latin1' | 'utf8'): string {
  if (at >= bytes.length) return '';
  const end = bytes.indexOf(0, at);
  return bytes.toString(encoding, at, end === -1 ? bytes.length : end);
}
