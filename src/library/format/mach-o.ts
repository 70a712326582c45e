/**
 * Whether a Mach-O file, thin or universal, is a whole library for a machine: `mach-o/loader.h` and
 * `mach-o/fat.h`.
 */

import { FAT_MAGIC, FAT_MAGIC_64 } from './kind.js';
import type { LibraryFile } from './library-file.js';

/** 64-bit and little-endian: the only Mach-O that Node runs on. */
const MH_MAGIC_64 = 0xfeedfacf;
const MH_HEADER_BYTES = 32;
const MH_LIBRARY_TYPES: readonly number[] = [6, 8]; // MH_DYLIB, MH_BUNDLE
const LC_SEGMENT_64 = 0x19;
const LC_SEGMENT_64_BYTES = 72;

const MACH_O_CPUS: Partial<Record<string, number>> = { x64: 0x01000007, arm64: 0x0100000c };

export async function checkMachO(library: LibraryFile): Promise<void> {
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
