/**
 * What an ELF file says of itself to the dynamic loader: what it needs, exports and asks for. For a file that has been
 * checked to be whole (src/library/format/). Formats: elf(5) and the System V gABI.
 */

import type { FileHandle } from 'node:fs/promises';
import { ELF32, ELF64, type ElfLayout, word } from '../library/format/elf-layout.js';

export interface ElfSymbol {
  name: string;
  binding: 'global' | 'weak' | 'unique';
}

export interface ElfFacts {
  bits: 32 | 64;
  machine: number;
  /** The libraries it needs, by SONAME. */
  needed: string[];
  soname: string | null;
  /** Where it wants them to be looked for (RPATH, RUNPATH). */
  searchPaths: string[];
  /** The program interpreter, which executables have. */
  interpreter: string | null;
  /** Symbols that others can see; null if the file has no table of sections any more. */
  exported: ElfSymbol[] | null;
  /** Symbols that others are to provide. */
  imported: string[] | null;
  threadLocals: boolean;
  /** Initial-exec thread-locals, which need room that there is little of. */
  staticTls: boolean;
  /** Text relocations: code that the loader has to write to. */
  textRelocations: boolean;
  noDelete: boolean;
  /** Whether its own symbols win over those that were loaded before. */
  symbolic: boolean;
  /** Whether the loader makes its tables read-only when it has filled them in. */
  relro: boolean;
  executableStack: boolean;
}

const PT = { LOAD: 1, DYNAMIC: 2, INTERP: 3, TLS: 7, GNU_STACK: 0x6474e551, GNU_RELRO: 0x6474e552 };
const PF_X = 1;
const SHT_DYNSYM = 11;

const DT = {
  NULL: 0n,
  NEEDED: 1n,
  STRTAB: 5n,
  STRSZ: 10n,
  SONAME: 14n,
  RPATH: 15n,
  SYMBOLIC: 16n,
  TEXTREL: 22n,
  RUNPATH: 29n,
  FLAGS: 30n,
  FLAGS_1: 0x6ffffffbn,
};
const DF = { SYMBOLIC: 2n, TEXTREL: 4n, STATIC_TLS: 16n };
const DF_1_NODELETE = 8n;

const BINDINGS: Partial<Record<number, ElfSymbol['binding']>> = {
  1: 'global',
  2: 'weak',
  10: 'unique',
};
const SHN_UNDEF = 0;
/** Internal and hidden symbols are not visible to others; default and protected ones are. */
const isVisible = (other: number): boolean => (other & 3) === 0 || (other & 3) === 3;

/** Node's own table of names has some 6 MiB. */
const MAX_TABLE_BYTES = 64 * 1024 * 1024;

export async function readElfFacts(file: FileHandle): Promise<ElfFacts> {
  const elf = await ElfFile.open(file);
  const segments = await elf.segments();
  const dynamic = await elf.dynamic(segments);
  const all = (tag: bigint) => dynamic.filter((entry) => entry.tag === tag);
  const has = (tag: bigint) => all(tag).length > 0;
  const flags = all(DT.FLAGS)[0]?.value ?? 0n;
  const strings = await elf.strings(segments, all(DT.STRTAB)[0]?.value, all(DT.STRSZ)[0]?.value);
  const texts = (tag: bigint) => all(tag).map(({ value }) => textAt(strings, Number(value)));
  const symbols = await elf.symbols();
  const interpreter = segments.find(({ type }) => type === PT.INTERP);
  const stack = segments.find(({ type }) => type === PT.GNU_STACK);
  return {
    bits: elf.layout.bits,
    machine: elf.header.getUint16(18, elf.little),
    needed: texts(DT.NEEDED),
    soname: texts(DT.SONAME)[0] ?? null,
    searchPaths: [...texts(DT.RPATH), ...texts(DT.RUNPATH)].flatMap((paths) => paths.split(':')),
    interpreter:
      interpreter === undefined
        ? null
        : textAt(await elf.read(interpreter.offset, interpreter.bytes), 0),
    exported: symbols?.exported ?? null,
    imported: symbols?.imported ?? null,
    threadLocals: segments.some(({ type }) => type === PT.TLS),
    staticTls: (flags & DF.STATIC_TLS) !== 0n,
    textRelocations: has(DT.TEXTREL) || (flags & DF.TEXTREL) !== 0n,
    noDelete: ((all(DT.FLAGS_1)[0]?.value ?? 0n) & DF_1_NODELETE) !== 0n,
    symbolic: has(DT.SYMBOLIC) || (flags & DF.SYMBOLIC) !== 0n,
    relro: segments.some(({ type }) => type === PT.GNU_RELRO),
    // Without this header the loader takes the processor's default, which for old ABIs is executable.
    executableStack: stack === undefined || (stack.flags & PF_X) !== 0,
  };
}

interface Segment {
  type: number;
  flags: number;
  offset: number;
  address: number;
  bytes: number;
}

/** Offsets in program headers, section headers and symbols that elf-layout.ts has no need of. */
const MORE = {
  32: { pFlags: 24, pVaddr: 8, shType: 4, shOffset: 16, shLink: 24, symBytes: 16, symInfo: 12 },
  64: { pFlags: 4, pVaddr: 16, shType: 4, shOffset: 24, shLink: 40, symBytes: 24, symInfo: 4 },
} as const;

class ElfFile {
  private constructor(
    private readonly file: FileHandle,
    readonly layout: ElfLayout,
    readonly little: boolean,
    readonly header: DataView,
  ) {}

  static async open(file: FileHandle): Promise<ElfFile> {
    const header = await readAt(file, 0, ELF64.headerBytes);
    const layout = header.getUint8(4) === 1 ? ELF32 : ELF64;
    return new ElfFile(file, layout, header.getUint8(5) === 1, header);
  }

  read(offset: number, length: number): Promise<DataView> {
    return readAt(this.file, offset, length);
  }

  #word(view: DataView, at: number): number {
    return Number(word(view, at, this.layout, this.little));
  }

  #half(at: number): number {
    return this.header.getUint16(at, this.little);
  }

  async segments(): Promise<Segment[]> {
    const { phoff, phnum, programHeaderBytes: size, pOffset, pFilesz, bits } = this.layout;
    const count = this.#half(phnum);
    const table = await this.read(this.#word(this.header, phoff), count * size);
    return Array.from({ length: count }, (_, index) => ({
      type: table.getUint32(index * size, this.little),
      flags: table.getUint32(index * size + MORE[bits].pFlags, this.little),
      offset: this.#word(table, index * size + pOffset),
      address: this.#word(table, index * size + MORE[bits].pVaddr),
      bytes: this.#word(table, index * size + pFilesz),
    }));
  }

  async dynamic(segments: Segment[]): Promise<{ tag: bigint; value: bigint }[]> {
    const segment = segments.find(({ type }) => type === PT.DYNAMIC);
    if (segment === undefined) return [];
    const table = await this.read(segment.offset, segment.bytes);
    const wordBytes = this.layout.bits / 8;
    const entries: { tag: bigint; value: bigint }[] = [];
    for (let at = 0; at + 2 * wordBytes <= segment.bytes; at += 2 * wordBytes) {
      const tag = word(table, at, this.layout, this.little);
      if (tag === DT.NULL) break;
      entries.push({ tag, value: word(table, at + wordBytes, this.layout, this.little) });
    }
    return entries;
  }

  /** The strings of the dynamic section, which it names by their address in memory. */
  async strings(
    segments: Segment[],
    address: bigint | undefined,
    length: bigint | undefined,
  ): Promise<DataView> {
    const at = Number(address ?? 0n);
    const segment = segments.find(
      (each) => each.type === PT.LOAD && at >= each.address && at < each.address + each.bytes,
    );
    if (segment === undefined || length === undefined) return new DataView(new ArrayBuffer(0));
    return this.read(at - segment.address + segment.offset, Number(length));
  }

  async symbols(): Promise<{ exported: ElfSymbol[]; imported: string[] } | null> {
    const { shoff, shnum, sectionHeaderBytes: size, shSize, bits } = this.layout;
    const { shType, shOffset, shLink, symBytes, symInfo } = MORE[bits];
    const count = this.#half(shnum);
    if (count === 0) return null;
    const sections = await this.read(this.#word(this.header, shoff), count * size);
    const section = (index: number) => ({
      offset: this.#word(sections, index * size + shOffset),
      bytes: this.#word(sections, index * size + shSize),
    });
    const indices = Array.from({ length: count }, (_, index) => index);
    const dynsym = indices.find(
      (index) => sections.getUint32(index * size + shType, this.little) === SHT_DYNSYM,
    );
    if (dynsym === undefined) return null;
    const names = section(sections.getUint32(dynsym * size + shLink, this.little));
    const strings = await this.read(names.offset, names.bytes);
    const { offset, bytes } = section(dynsym);
    const table = await this.read(offset, bytes);
    const exported: ElfSymbol[] = [];
    const imported: string[] = [];
    // The first symbol is always empty.
    for (let at = symBytes; at + symBytes <= bytes; at += symBytes) {
      const name = textAt(strings, table.getUint32(at, this.little));
      const binding = BINDINGS[table.getUint8(at + symInfo) >> 4];
      const isDefined = table.getUint16(at + symInfo + 2, this.little) !== SHN_UNDEF;
      if (name === '' || binding === undefined) continue;
      if (!isDefined) imported.push(name);
      else if (isVisible(table.getUint8(at + symInfo + 1))) exported.push({ name, binding });
    }
    return { exported, imported };
  }
}

async function readAt(file: FileHandle, offset: number, length: number): Promise<DataView> {
  if (length > MAX_TABLE_BYTES) throw new Error(`a table of ${length} bytes`);
  const bytes = Buffer.alloc(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw new Error(`the file ends in a table at byte ${offset}`);
    done += bytesRead;
  }
  return new DataView(bytes.buffer, bytes.byteOffset, length);
}

function textAt(strings: DataView, at: number): string {
  const bytes = Buffer.from(strings.buffer, strings.byteOffset, strings.byteLength);
  const end = bytes.indexOf(0, at);
  return at >= bytes.length ? '' : bytes.toString('utf8', at, end === -1 ? undefined : end);
}
