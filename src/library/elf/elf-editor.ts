/**
 * Changes what a library says to the dynamic loader: names of libraries, where they are looked for,
 * how its symbols bind. For the private copy alone, which nobody has mapped yet.
 *
 * Names are never written over: a name may be the end of another one's, so that two share their
 * bytes. The table of names is copied behind everything else, with what is new at its end, and what
 * referred to the old name refers to the new one. The copy is mapped by a segment of its own, whose
 * header takes the place of one that nobody needs at run time, or the table of headers moves there
 * too.
 *
 *   | the file as it was | padding | names, new ones last | dynamic section, if it has grown | headers, if they had to move |
 *
 * Headers of stacks, of unwinding and of properties are never given up: the loader, or code that
 * throws, goes by them.
 */

import { ElfError } from './bytes.js';
import { DT, PF, PT, STB, VER_FLG_BASE } from './constants.js';
import type { ElfDynamicEntry, ElfFile, ElfSegment } from './elf-file.js';
import { sysvHash } from './hash.js';

/** Node runs on no machine with larger pages, and on none with smaller ones. */
const MOST_PAGE_BYTES = 65_536;
const LEAST_PAGE_BYTES = 4096;
const WORD_BYTES = 8;
const DYNAMIC_ENTRY_BYTES = 2 * WORD_BYTES;
const MOST_HEADERS = 0xffff;

/** Where the new segment lies. */
interface Place {
  offset: number;
  address: number;
  align: number;
}

export class ElfEditor {
  readonly #file: ElfFile;
  /** Changes of bytes that stay where they are. */
  readonly #writes: { offset: number; bytes: Uint8Array }[] = [];
  #dynamic: ElfDynamicEntry[];
  #dynamicChanged = false;
  /** New names, and where each is in the new table of names. */
  readonly #names = new Map<string, number>();
  readonly #newNames: Buffer[] = [];
  #nameBytes: number;

  /**
   * @throws {ElfError} if files of this kind cannot be changed: only 64-bit little-endian ones can.
   */
  constructor(file: ElfFile) {
    if (file.layout.bits !== 64 || !file.little) {
      throw new ElfError('only 64-bit little-endian files can be changed');
    }
    if (file.value(DT.STRTAB) === undefined) throw new ElfError('it has no table of names');
    this.#file = file;
    this.#dynamic = file.dynamic.map((entry) => ({ ...entry }));
    this.#nameBytes = file.strings.length;
  }

  /**
   * Makes unique symbols (`STB_GNU_UNIQUE`) ordinary ones, but for those that `keep` says. The
   * loader binds a unique one once per process, whichever library defines it, and never unloads
   * that library.
   *
   * @returns how many were changed.
   */
  makeUniqueOrdinary(keep: ReadonlySet<string> = new Set()): number {
    const file = this.#file;
    const unique =
      keep.size === 0 ? file.unique : file.unique.filter((index) => !keep.has(file.nameOf(index)));
    const first = unique[0];
    const last = unique.at(-1);
    if (first === undefined || last === undefined) return 0;
    const { symbolBytes, symbolInfoAt, symbolTable: table } = file;
    const from = first * symbolBytes;
    // Written at once, with all that is in between.
    const bytes = new Uint8Array((last - first + 1) * symbolBytes);
    bytes.set(new Uint8Array(table.buffer, table.byteOffset + from, bytes.length));
    for (const index of unique) {
      const at = index * symbolBytes - from + symbolInfoAt;
      bytes[at] = (STB.GLOBAL << 4) | ((bytes[at] as number) & 15);
    }
    const offset = file.offsetOf(file.value(DT.SYMTAB) ?? 0, 'table of symbols') + from;
    this.#writes.push({ offset, bytes });
    return unique.length;
  }

  /** Has the loader look into the library called `name` before all others that are needed. */
  addNeededFirst(name: string): void {
    this.#dynamic.unshift({ tag: DT.NEEDED, value: this.#nameAt(name) });
    this.#dynamicChanged = true;
  }

  /**
   * Asks for other libraries than before, by old name; also for the versions that are wanted of
   * them.
   */
  renameNeeded(names: ReadonlyMap<string, string>): void {
    const { needed } = this.#file;
    let index = 0;
    for (const entry of this.#dynamic) {
      // Those that were added have their name already.
      if (entry.tag !== DT.NEEDED || entry.value >= this.#file.strings.length) continue;
      const name = names.get(needed[index] ?? '');
      index += 1;
      if (name === undefined) continue;
      entry.value = this.#nameAt(name);
      this.#dynamicChanged = true;
    }
    for (const { file, fileAt } of this.#file.versionNeeds()) {
      const name = names.get(file);
      if (name !== undefined) this.#writeUint32(fileAt, this.#nameAt(name));
    }
  }

  /** Gives the library another name, which the loader knows it by once it is loaded. */
  setSoname(name: string): void {
    this.#set(DT.SONAME, name);
    const base = this.#file.versionDefinitions().find(({ flags }) => (flags & VER_FLG_BASE) !== 0);
    if (base === undefined) return;
    this.#writeUint32(base.hashAt, sysvHash(Buffer.from(name).toString('latin1')));
    this.#writeUint32(base.nameAt, this.#nameAt(name));
  }

  /**
   * Has the loader look for the library's own dependencies in these places, and no longer in others
   * (RPATH).
   */
  setRunpath(path: string): void {
    this.#dynamic = this.#dynamic.filter(({ tag }) => tag !== DT.RPATH);
    this.#set(DT.RUNPATH, path);
  }

  #set(tag: number, name: string): void {
    const value = this.#nameAt(name);
    const entry = this.#dynamic.findLast((each) => each.tag === tag);
    if (entry === undefined) this.#dynamic.push({ tag, value });
    else entry.value = value;
    this.#dynamicChanged = true;
  }

  #nameAt(name: string): number {
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    const at = this.#nameBytes;
    const bytes = Buffer.from(`${name}\0`);
    this.#newNames.push(bytes);
    this.#names.set(name, at);
    this.#nameBytes += bytes.length;
    return at;
  }

  #writeUint32(offset: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    this.#writes.push({ offset, bytes });
  }

  get isChanged(): boolean {
    return this.#writes.length > 0 || this.#dynamicChanged;
  }

  /**
   * Writes the changes. The file that they were made on is then not what it was: open it anew to
   * read it.
   *
   * @throws {ElfError} if there is no place for them. Nothing is written then.
   */
  save(): void {
    const writes = [...this.#writes];
    if (this.#dynamicChanged) writes.push(...this.#layOut());
    for (const { offset, bytes } of writes) this.#file.bytes.write(offset, bytes);
  }

  /** What has to be written for names and the dynamic section. */
  #layOut(): { offset: number; bytes: Uint8Array }[] {
    const file = this.#file;
    const place = this.#place();
    const parts: Buffer[] = [];
    let length = 0;
    /** Adds to the new segment; returns how far from its start. */
    const append = (bytes: Buffer): number => {
      const padding = -length & (WORD_BYTES - 1);
      parts.push(Buffer.alloc(padding), bytes);
      length += padding + bytes.length;
      return length - bytes.length;
    };
    append(Buffer.concat([file.strings, ...this.#newNames]));
    const writes: { offset: number; bytes: Uint8Array }[] = [];
    let headers = file.segments.map((segment) => ({ ...segment }));
    const old = file.segment(PT.DYNAMIC);
    if (old === undefined) throw new ElfError('it has no dynamic section');
    const dynamic = this.#dynamicSection(place.address, old);
    let flags: number = PF.R;
    if (dynamic.length <= old.fileBytes) writes.push({ offset: old.offset, bytes: dynamic });
    else {
      // The loader writes to it.
      flags |= PF.W;
      const at = append(dynamic);
      headers = headers.map((header) =>
        header.type === PT.DYNAMIC
          ? {
              ...header,
              offset: place.offset + at,
              address: place.address + at,
              fileBytes: dynamic.length,
              memoryBytes: dynamic.length,
            }
          : header,
      );
    }
    const added = { ...place, index: 0, type: PT.LOAD, flags, fileBytes: 0, memoryBytes: 0 };
    const spare = spareHeader(headers);
    if (spare !== undefined) headers.splice(headers.indexOf(spare), 1);
    const lastLoad = headers.findLastIndex(({ type }) => type === PT.LOAD);
    // In the order of their addresses, as the loader wants them.
    headers.splice(lastLoad + 1, 0, added);
    if (headers.length > MOST_HEADERS) throw new ElfError('it has no room for one segment more');
    let headersAt = file.programHeadersAt;
    if (spare === undefined) {
      const bytes = headers.length * file.layout.programHeaderBytes;
      const at = append(Buffer.alloc(bytes));
      headersAt = place.offset + at;
      for (const header of headers.filter(({ type }) => type === PT.PHDR)) {
        header.offset = headersAt;
        header.address = place.address + at;
        header.fileBytes = bytes;
        header.memoryBytes = bytes;
      }
      const count = Buffer.alloc(2);
      count.writeUInt16LE(headers.length);
      writes.push(
        { offset: file.layout.phoff, bytes: words(headersAt) },
        { offset: file.layout.phnum, bytes: count },
      );
    }
    added.fileBytes = length;
    added.memoryBytes = length;
    // The segment comes first, then what refers to it, headers last of all.
    return [
      { offset: place.offset, bytes: Buffer.concat(parts) },
      ...writes,
      { offset: headersAt, bytes: this.#headerTable(headers) },
    ];
  }

  /** Behind everything else, in the file and in memory. */
  #place(): Place {
    const loads = this.#file.segments.filter(({ type }) => type === PT.LOAD);
    const most = Math.max(LEAST_PAGE_BYTES, ...loads.map(({ align }) => align));
    const align = Math.min(most, MOST_PAGE_BYTES);
    // Else the new segment would not begin with a page, and lie over the end of the one before.
    if ((align & (align - 1)) !== 0) throw new ElfError(`a segment is aligned to ${align} bytes`);
    const end = Math.max(...loads.map(({ address, memoryBytes }) => address + memoryBytes));
    return {
      offset: roundUp(this.#file.bytes.sizeBytes, align),
      address: roundUp(end, align),
      align,
    };
  }

  /**
   * The section as it will be, of at least the length that it had: what was behind its end is
   * zeros.
   */
  #dynamicSection(stringsAddress: number, old: ElfSegment): Buffer {
    const entries = this.#dynamic.map(({ tag, value }) => {
      if (tag === DT.STRTAB) return { tag, value: stringsAddress };
      if (tag === DT.STRSZ) return { tag, value: this.#nameBytes };
      return { tag, value };
    });
    const needed = (entries.length + 1) * DYNAMIC_ENTRY_BYTES;
    const section = Buffer.alloc(Math.max(needed, old.fileBytes));
    for (const [index, { tag, value }] of entries.entries()) {
      words(tag, value).copy(section, index * DYNAMIC_ENTRY_BYTES);
    }
    return section;
  }

  #headerTable(headers: readonly ElfSegment[]): Buffer {
    const { programHeaderBytes, pFlags, pOffset, pVaddr, pFilesz, pMemsz } = this.#file.layout;
    const table = Buffer.alloc(headers.length * programHeaderBytes);
    for (const [index, header] of headers.entries()) {
      const at = index * programHeaderBytes;
      table.writeUInt32LE(header.type, at);
      table.writeUInt32LE(header.flags, at + pFlags);
      words(header.offset).copy(table, at + pOffset);
      // Its address in memory, and the physical one, which nobody looks at.
      words(header.address, header.address).copy(table, at + pVaddr);
      words(header.fileBytes).copy(table, at + pFilesz);
      words(header.memoryBytes, header.align).copy(table, at + pMemsz);
    }
    return table;
  }
}

/**
 * The header of notes that can be given up: what is in them is only looked at by people and
 * debuggers, who find them by sections too. Rather one that says what another header says as well,
 * so that the build's id stays.
 */
function spareHeader(headers: readonly ElfSegment[]): ElfSegment | undefined {
  const property = headers.find(({ type }) => type === PT.GNU_PROPERTY);
  const notes = headers.filter(({ type }) => type === PT.NOTE);
  return notes.find(({ offset }) => offset === property?.offset) ?? notes[0];
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * WORD_BYTES);
  for (const [index, value] of values.entries()) {
    bytes.writeBigUInt64LE(BigInt(value), index * WORD_BYTES);
  }
  return bytes;
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
