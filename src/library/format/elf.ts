/** Whether an ELF file is a whole shared library for a machine: elf(5) and the System V gABI. */

import { ELF_TARGETS, ELF32, ELF64, type ElfLayout, word } from './elf-layout.js';
import { ElfMemory, PT_DYNAMIC, PT_LOAD, type Segment } from './elf-memory.js';
import { checkElfTables, type DynamicEntry } from './elf-tables.js';
import type { LibraryFile } from './library-file.js';

const ET_DYN = 3;
const ELF_TYPE_NAMES: Partial<Record<number, string>> = {
  1: 'an object file (.o), not yet linked',
  2: 'an executable',
  4: 'a core dump',
};

const DT_NULL = 0n;
const DT_STRTAB = 5n;
const DT_SYMTAB = 6n;
const DT_FLAGS_1 = 0x6ffffffbn;
const DF_1_PIE = 0x08000000n;

/** 4,096 entries of a 64-bit file; a library has some thirty, and one for each dependency. */
const MAX_DYNAMIC_BYTES = 64 * 1024;

export async function checkElf(library: LibraryFile): Promise<void> {
  const ident = await library.read(0n, 20, 'ELF header');
  const layout = [undefined, ELF32, ELF64][ident.getUint8(4)];
  const byteOrder = ident.getUint8(5);
  if (layout === undefined || (byteOrder !== 1 && byteOrder !== 2)) {
    throw library.malformed('ELF with an unknown class or byte order');
  }
  const little = byteOrder === 1;
  requireElfTarget(library, layout, little, ident.getUint16(18, little));
  const type = ident.getUint16(16, little);
  if (type !== ET_DYN) {
    const got = ELF_TYPE_NAMES[type] ?? `ELF of the unknown type ${type}`;
    throw library.refusal('not-a-library', got);
  }

  const header = await library.read(0n, layout.headerBytes, 'ELF header');
  await checkElfSections(library, layout, header, little);
  const segments = await checkElfSegments(library, layout, header, little);
  const dynamic = await checkElfDynamic(library, layout, segments, little);
  const memory = new ElfMemory(library, segments);
  // Of the 32-bit machines, which Node hardly runs on any more, the tables are laid out otherwise and not looked into.
  if (layout.bits === 64) await checkElfTables(library, memory, dynamic, little);
}

function requireElfTarget(
  library: LibraryFile,
  layout: ElfLayout,
  little: boolean,
  machine: number,
): void {
  const target = ELF_TARGETS[library.arch];
  if (target === undefined) return;
  const isSame =
    target.machine === machine &&
    target.bits === layout.bits &&
    (target.littleEndian ?? little) === little;
  if (isSame) return;
  const known = Object.entries(ELF_TARGETS).find(([, other]) => other?.machine === machine);
  const name = known === undefined ? `machine ${machine}` : known[0];
  const order = little ? 'little-endian' : 'big-endian';
  throw library.refusal('wrong-architecture', `${layout.bits}-bit ${order} ELF for ${name}`);
}

/** Linkers put this table last, so that it lies inside the file is the best sign of a whole one. */
async function checkElfSections(
  library: LibraryFile,
  layout: ElfLayout,
  header: DataView,
  little: boolean,
): Promise<void> {
  const offset = word(header, layout.shoff, layout, little);
  if (offset === 0n) return;
  let count = BigInt(header.getUint16(layout.shnum, little));
  if (count === 0n) {
    // 65,280 sections or more: the count moves to the first section header.
    const first = await library.read(offset, layout.sectionHeaderBytes, 'section header table');
    count = word(first, layout.shSize, layout, little);
  }
  const length = count * BigInt(header.getUint16(layout.shentsize, little));
  library.requireInside(offset, length, 'section header table');
}

/** Checks that every segment is in the file, and returns them. */
async function checkElfSegments(
  library: LibraryFile,
  layout: ElfLayout,
  header: DataView,
  little: boolean,
): Promise<Segment[]> {
  const count = header.getUint16(layout.phnum, little);
  const entryBytes = header.getUint16(layout.phentsize, little);
  if (count > 0 && entryBytes !== layout.programHeaderBytes) {
    throw library.malformed(`program headers of ${entryBytes} bytes`);
  }
  const offset = word(header, layout.phoff, layout, little);
  const table = await library.read(offset, count * entryBytes, 'program header table');
  const segments: Segment[] = [];
  for (let index = 0; index < count; index++) {
    const at = index * entryBytes;
    const segment = {
      type: table.getUint32(at, little),
      flags: table.getUint32(at + layout.pFlags, little),
      offset: word(table, at + layout.pOffset, layout, little),
      fileBytes: word(table, at + layout.pFilesz, layout, little),
      address: word(table, at + layout.pVaddr, layout, little),
      memoryBytes: word(table, at + layout.pMemsz, layout, little),
    };
    library.requireInside(segment.offset, segment.fileBytes, `segment ${index}`);
    segments.push(segment);
  }
  return segments;
}

/**
 * Separate debug information keeps the headers but not this section; executables are marked in it.
 */
async function checkElfDynamic(
  library: LibraryFile,
  layout: ElfLayout,
  segments: readonly Segment[],
  little: boolean,
): Promise<DynamicEntry[]> {
  const dynamic = segments.findLast(({ type }) => type === PT_DYNAMIC);
  if (dynamic === undefined || !segments.some(({ type }) => type === PT_LOAD)) {
    throw library.refusal('not-a-library', 'ELF with nothing to load or no dynamic section');
  }
  const entries = await readDynamic(library, layout, dynamic, little);
  const flags = entries.filter(({ tag }) => tag === DT_FLAGS_1);
  if (flags.some(({ value }) => (value & DF_1_PIE) !== 0n)) {
    throw library.refusal('not-a-library', 'a position-independent executable');
  }
  const has = (wanted: bigint) => entries.some(({ tag }) => tag === wanted);
  if (!has(DT_STRTAB) || !has(DT_SYMTAB)) {
    const got = 'ELF without a table of dynamic symbols, such as separate debug information';
    throw library.refusal('not-a-library', got);
  }
  // Read here at its place in the file, and by the loader at its place in memory, up to the entry that ends it.
  const isWhere = segments.some(
    (load) =>
      load.type === PT_LOAD &&
      dynamic.address - load.address === dynamic.offset - load.offset &&
      dynamic.address >= load.address &&
      dynamic.address + dynamic.fileBytes <= load.address + load.fileBytes,
  );
  if (!isWhere || !has(DT_NULL)) {
    throw library.malformed('a dynamic section that is not loaded, or has no end');
  }
  return entries;
}

/** Up to the entry that ends it, which is included. */
async function readDynamic(
  library: LibraryFile,
  layout: ElfLayout,
  dynamic: Segment,
  little: boolean,
): Promise<DynamicEntry[]> {
  const wordBytes = layout.bits / 8;
  const entryBytes = 2 * wordBytes;
  const readable = Math.min(Number(dynamic.fileBytes), MAX_DYNAMIC_BYTES);
  const section = await library.read(dynamic.offset, readable, 'dynamic section');
  const entries: DynamicEntry[] = [];
  for (let at = 0; at + entryBytes <= readable; at += entryBytes) {
    const tag = word(section, at, layout, little);
    entries.push({ tag, value: word(section, at + wordBytes, layout, little) });
    if (tag === DT_NULL) break;
  }
  return entries;
}
