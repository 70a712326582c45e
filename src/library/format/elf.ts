/** Whether an ELF file is a whole shared library for a machine: elf(5) and the System V gABI. */

import { ELF_TARGETS, ELF32, ELF64, type ElfLayout, word } from './elf-layout.js';
import type { LibraryFile } from './library-file.js';

const ET_DYN = 3;
const ELF_TYPE_NAMES: Partial<Record<number, string>> = {
  1: 'an object file (.o), not yet linked',
  2: 'an executable',
  4: 'a core dump',
};

const PT_LOAD = 1;
const PT_DYNAMIC = 2;

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
  const dynamic = await checkElfSegments(library, layout, header, little);
  await checkElfDynamic(library, layout, dynamic, little);
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

/** Checks every segment and returns where the dynamic section is. */
async function checkElfSegments(
  library: LibraryFile,
  layout: ElfLayout,
  header: DataView,
  little: boolean,
): Promise<{ offset: bigint; length: bigint }> {
  const count = header.getUint16(layout.phnum, little);
  const entryBytes = header.getUint16(layout.phentsize, little);
  if (count > 0 && entryBytes !== layout.programHeaderBytes) {
    throw library.malformed(`program headers of ${entryBytes} bytes`);
  }
  const offset = word(header, layout.phoff, layout, little);
  const table = await library.read(offset, count * entryBytes, 'program header table');
  let loads = 0;
  let dynamic: { offset: bigint; length: bigint } | undefined;
  for (let index = 0; index < count; index++) {
    const at = index * entryBytes;
    const type = table.getUint32(at, little);
    const segment = {
      offset: word(table, at + layout.pOffset, layout, little),
      length: word(table, at + layout.pFilesz, layout, little),
    };
    library.requireInside(segment.offset, segment.length, `segment ${index}`);
    if (type === PT_LOAD) loads++;
    if (type === PT_DYNAMIC) dynamic = segment;
  }
  if (loads === 0 || dynamic === undefined) {
    throw library.refusal('not-a-library', 'ELF with nothing to load or no dynamic section');
  }
  return dynamic;
}

/**
 * Separate debug information keeps the headers but not this section; executables are marked in it.
 */
async function checkElfDynamic(
  library: LibraryFile,
  layout: ElfLayout,
  dynamic: { offset: bigint; length: bigint },
  little: boolean,
): Promise<void> {
  const wordBytes = layout.bits / 8;
  const entryBytes = 2 * wordBytes;
  const readable = Math.min(Number(dynamic.length), MAX_DYNAMIC_BYTES);
  const section = await library.read(dynamic.offset, readable, 'dynamic section');
  const tags = new Set<bigint>();
  for (let at = 0; at + entryBytes <= readable; at += entryBytes) {
    const tag = word(section, at, layout, little);
    if (tag === DT_NULL) break;
    tags.add(tag);
    const value = word(section, at + wordBytes, layout, little);
    if (tag === DT_FLAGS_1 && (value & DF_1_PIE) !== 0n) {
      throw library.refusal('not-a-library', 'a position-independent executable');
    }
  }
  if (!tags.has(DT_STRTAB) || !tags.has(DT_SYMTAB)) {
    const got = 'ELF without a table of dynamic symbols, such as separate debug information';
    throw library.refusal('not-a-library', got);
  }
}
