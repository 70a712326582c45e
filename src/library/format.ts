/**
 * Whether a file is a whole shared library that this process can load. The dynamic loader must not
 * be the one to find out: a truncated ELF file kills the process with SIGBUS, and a library for
 * another machine is reported as "No such file".
 *
 * Nothing in the file is trusted. Offsets and sizes are bigints, every range is checked against the
 * file's size before it is read, and tables have a limit. A range that ends after the file is
 * `truncated`; a table that contradicts itself is `not-a-library`. This is no defence against a
 * library built to do harm, which need not be malformed to do it.
 *
 * Formats: elf(5) and the System V gABI; `mach-o/loader.h` and `mach-o/fat.h`; the PE/COFF
 * specification.
 */

import type { FileHandle } from 'node:fs/promises';
import { type LibraryDefect, LibraryInvalidError } from '../errors.js';

/**
 * Resolves when the file is a whole shared library for `platform` and `arch` (as in
 * `process.platform` and `process.arch`). On Linux and other Unix systems that is ELF, on macOS
 * Mach-O (thin or universal), on Windows a PE DLL. A machine that is not known here is not checked.
 *
 * Reads headers only, at explicit positions, through `file`, which stays open. Does not look for
 * dependencies or symbols. `path` is for the message: the library as the caller named it.
 *
 * @throws {LibraryInvalidError} with the `defect`: what was expected, what came, what to do.
 */
export async function checkLibraryFile(
  file: FileHandle,
  sizeBytes: number,
  path: string,
  platform: NodeJS.Platform = process.platform,
  arch: NodeJS.Architecture = process.arch,
): Promise<void> {
  const library = new LibraryFile(file, sizeBytes, path, platform, arch);
  if (sizeBytes === 0) throw library.refusal('not-a-library', 'an empty file (0 bytes)');
  const head = await library.read(0n, Math.min(sizeBytes, HEAD_BYTES), 'start');
  const format = formatOf(head);
  const expected = formatFor(platform);
  if (format === undefined) throw library.refusal('not-a-library', describeOther(head));
  if (format !== expected) throw library.refusal('wrong-platform', FORMAT_NAMES[format]);
  if (format === 'elf') await checkElf(library);
  else if (format === 'pe') await checkPe(library);
  else await checkMachO(library);
}

// ---- The file, read with distrust ---------------------------------------------------------------

type Format = 'elf' | 'mach-o' | 'pe';

/** Enough to tell every format apart, up to the PE offset in the DOS header. */
const HEAD_BYTES = 64;

const NEXT_STEPS: Partial<Record<LibraryDefect, string>> = {
  'not-a-library': 'Link the handler as a shared library (cc -shared -fPIC) and load that file.',
  'wrong-platform': 'Build the handler for this platform and load that file.',
  'wrong-architecture': 'Build the handler for this architecture and load that file.',
  truncated: 'Put the whole file there again: write it under another name, then rename it.',
};

class LibraryFile {
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

/** Real tables are a few KiB. The largest a 16-bit count can claim is 4 MiB (ELF sections). */
const MAX_TABLE_BYTES = 4 * 1024 * 1024;

// ---- Telling formats apart ----------------------------------------------------------------------

const FORMAT_NAMES: Record<Format, string> = {
  elf: 'an ELF file, as on Linux',
  'mach-o': 'a Mach-O file, as on macOS',
  pe: 'a PE file, as on Windows',
};

const FAT_MAGIC = 0xcafebabe;
const FAT_MAGIC_64 = 0xcafebabf;

/**
 * Java class files share the magic of universal Mach-O; their version, read as a count, is larger.
 */
const FAT_MAX_SLICES = 30;

function formatFor(platform: NodeJS.Platform): Format {
  if (platform === 'win32') return 'pe';
  return platform === 'darwin' ? 'mach-o' : 'elf';
}

function formatOf(head: DataView): Format | undefined {
  if (head.byteLength < 4) return undefined;
  const magic = head.getUint32(0);
  switch (magic) {
    case 0x7f454c46:
      return 'elf';
    case 0xfeedface:
    case 0xfeedfacf:
    case 0xcefaedfe:
    case 0xcffaedfe:
      return 'mach-o';
    case FAT_MAGIC:
    case FAT_MAGIC_64:
      if (head.byteLength < 8) return undefined;
      return head.getUint32(4) <= FAT_MAX_SLICES ? 'mach-o' : undefined;
    default:
      return magic >>> 16 === 0x4d5a ? 'pe' : undefined;
  }
}

/** What a file that is no library is, as far as its first bytes tell. */
function describeOther(head: DataView): string {
  const bytes = new Uint8Array(head.buffer);
  const start = Buffer.from(bytes).toString('latin1');
  if (start.startsWith('!<arch>')) return 'a static library (.a)';
  if (start.startsWith('version https://git-lfs')) return 'a Git LFS pointer, not the file itself';
  if (start.startsWith('\0asm')) return 'a WebAssembly module';
  // Tab to carriage return, and everything from the space up but DEL.
  const isText = bytes.every((byte) => (byte >= 9 && byte <= 13) || (byte >= 32 && byte !== 127));
  return isText ? 'a text file' : 'a file of an unknown format';
}

// ---- ELF ----------------------------------------------------------------------------------------

interface ElfLayout {
  bits: 32 | 64;
  headerBytes: number;
  /** Offsets in the file header. */
  phoff: number;
  shoff: number;
  phentsize: number;
  phnum: number;
  shentsize: number;
  shnum: number;
  /** Size of a program header, and offsets in it. */
  programHeaderBytes: number;
  pOffset: number;
  pFilesz: number;
  /** Size of a section header, and an offset in it. */
  sectionHeaderBytes: number;
  shSize: number;
}

const ELF32: ElfLayout = {
  bits: 32,
  headerBytes: 52,
  phoff: 28,
  shoff: 32,
  phentsize: 42,
  phnum: 44,
  shentsize: 46,
  shnum: 48,
  programHeaderBytes: 32,
  pOffset: 4,
  pFilesz: 16,
  sectionHeaderBytes: 40,
  shSize: 20,
};

const ELF64: ElfLayout = {
  bits: 64,
  headerBytes: 64,
  phoff: 32,
  shoff: 40,
  phentsize: 54,
  phnum: 56,
  shentsize: 58,
  shnum: 60,
  programHeaderBytes: 56,
  pOffset: 8,
  pFilesz: 32,
  sectionHeaderBytes: 64,
  shSize: 32,
};

interface ElfTarget {
  machine: number;
  bits: 32 | 64;
  /** Absent where Node runs on both byte orders. */
  littleEndian?: boolean;
}

const ELF_TARGETS: Partial<Record<string, ElfTarget>> = {
  x64: { machine: 62, bits: 64, littleEndian: true },
  arm64: { machine: 183, bits: 64, littleEndian: true },
  ia32: { machine: 3, bits: 32, littleEndian: true },
  arm: { machine: 40, bits: 32, littleEndian: true },
  riscv64: { machine: 243, bits: 64, littleEndian: true },
  ppc64: { machine: 21, bits: 64 },
  s390x: { machine: 22, bits: 64, littleEndian: false },
  loong64: { machine: 258, bits: 64, littleEndian: true },
};

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

async function checkElf(library: LibraryFile): Promise<void> {
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

function word(view: DataView, offset: number, layout: ElfLayout, little: boolean): bigint {
  if (layout.bits === 64) return view.getBigUint64(offset, little);
  return BigInt(view.getUint32(offset, little));
}

// ---- Mach-O -------------------------------------------------------------------------------------

/** 64-bit and little-endian: the only Mach-O that Node runs on. */
const MH_MAGIC_64 = 0xfeedfacf;
const MH_HEADER_BYTES = 32;
const MH_LIBRARY_TYPES: readonly number[] = [6, 8]; // MH_DYLIB, MH_BUNDLE
const LC_SEGMENT_64 = 0x19;
const LC_SEGMENT_64_BYTES = 72;

const MACH_O_CPUS: Partial<Record<string, number>> = { x64: 0x01000007, arm64: 0x0100000c };

async function checkMachO(library: LibraryFile): Promise<void> {
  const head = await library.read(0n, 8, 'Mach-O header');
  const magic = head.getUint32(0);
  if (magic !== FAT_MAGIC && magic !== FAT_MAGIC_64) {
    return checkMachOSlice(library, 0n, undefined);
  }

  const is64 = magic === FAT_MAGIC_64;
  const entryBytes = is64 ? 32 : 20;
  const count = head.getUint32(4);
  const table = await library.read(8n, count * entryBytes, 'table of architectures');
  const wanted = MACH_O_CPUS[library.arch];
  let found: { offset: bigint; length: bigint } | undefined;
  for (let at = 0; at < table.byteLength; at += entryBytes) {
    const slice = is64
      ? { offset: table.getBigUint64(at + 8), length: table.getBigUint64(at + 16) }
      : { offset: BigInt(table.getUint32(at + 8)), length: BigInt(table.getUint32(at + 12)) };
    library.requireInside(slice.offset, slice.length, 'slice for an architecture');
    if (table.getUint32(at) === wanted) found = slice;
  }
  if (wanted === undefined) return;
  if (found === undefined) {
    throw library.refusal('wrong-architecture', 'universal Mach-O for other architectures');
  }
  return checkMachOSlice(library, found.offset, found.length);
}

/** `length` is that of a universal file's slice; segments count from the slice's start. */
async function checkMachOSlice(
  library: LibraryFile,
  start: bigint,
  length: bigint | undefined,
): Promise<void> {
  const header = await library.read(start, MH_HEADER_BYTES, 'Mach-O header');
  const cpu = header.getUint32(4, true);
  const wanted = MACH_O_CPUS[library.arch];
  if (header.getUint32(0, true) !== MH_MAGIC_64 || (wanted !== undefined && cpu !== wanted)) {
    throw library.refusal('wrong-architecture', 'Mach-O for another architecture');
  }
  const type = header.getUint32(12, true);
  if (!MH_LIBRARY_TYPES.includes(type)) {
    throw library.refusal('not-a-library', `Mach-O of type ${type}, not a dylib or bundle`);
  }

  const count = header.getUint32(16, true);
  const commandsAt = start + BigInt(MH_HEADER_BYTES);
  const commands = await library.read(commandsAt, header.getUint32(20, true), 'load commands');
  for (let index = 0, at = 0; index < count; index++) {
    const left = commands.byteLength - at;
    const size = left < 8 ? 0 : commands.getUint32(at + 4, true);
    if (size < 8 || size > left) throw library.malformed(`load command ${index}`);
    if (commands.getUint32(at, true) === LC_SEGMENT_64) {
      if (size < LC_SEGMENT_64_BYTES) throw library.malformed(`load command ${index}`);
      const offset = commands.getBigUint64(at + 40, true);
      const bytes = commands.getBigUint64(at + 48, true);
      library.requireInside(start + offset, bytes, 'segment');
      if (length !== undefined && offset + bytes > length) {
        throw library.malformed('a segment outside its slice');
      }
    }
    at += size;
  }
}

// ---- PE -----------------------------------------------------------------------------------------

const PE_SIGNATURE = 0x50450000;
const COFF_HEADER_BYTES = 24; // with the signature
const IMAGE_FILE_DLL = 0x2000;
const PE_SECTION_BYTES = 40;

const PE_MACHINES: Partial<Record<string, number>> = {
  x64: 0x8664,
  arm64: 0xaa64,
  ia32: 0x014c,
  arm: 0x01c4,
};

async function checkPe(library: LibraryFile): Promise<void> {
  const dos = await library.read(0n, HEAD_BYTES, 'DOS header');
  const start = BigInt(dos.getUint32(60, true));
  const header = await library.read(start, COFF_HEADER_BYTES, 'PE header');
  if (header.getUint32(0) !== PE_SIGNATURE) {
    throw library.refusal('not-a-library', 'a DOS program, or a PE file without its header');
  }
  const machine = header.getUint16(4, true);
  const wanted = PE_MACHINES[library.arch];
  if (wanted !== undefined && machine !== wanted) {
    const got = `PE for machine 0x${machine.toString(16)}`;
    throw library.refusal('wrong-architecture', got);
  }
  if ((header.getUint16(22, true) & IMAGE_FILE_DLL) === 0) {
    throw library.refusal('not-a-library', 'PE that is not marked as a DLL');
  }

  const tableAt = start + BigInt(COFF_HEADER_BYTES + header.getUint16(20, true));
  const tableBytes = header.getUint16(6, true) * PE_SECTION_BYTES;
  const sections = await library.read(tableAt, tableBytes, 'section table');
  for (let at = 0; at < tableBytes; at += PE_SECTION_BYTES) {
    const bytes = BigInt(sections.getUint32(at + 16, true));
    // Without data in the file the pointer means nothing.
    if (bytes === 0n) continue;
    library.requireInside(BigInt(sections.getUint32(at + 20, true)), bytes, 'section');
  }
}
