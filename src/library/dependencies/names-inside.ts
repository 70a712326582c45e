/**
 * Names of libraries that stand in a library as texts: what it may open by name while it runs
 * (dlopen(3)). A name that is put together at run time is not seen.
 */

import { DT, PF, PT } from '../elf/constants.js';
import type { ElfFile } from '../elf/elf-file.js';

const OPENERS = new Set(['dlopen', 'dlmopen']);
/** More is not looked through. */
const MOST_BYTES = 64 * 1024 * 1024;
const MOST_NAMES = 256;
const MOST_NAME_BYTES = 4096;
const IN_NAME = /^[\w.+/-]+\.so(?:\.\w+)*$/;

/** None if the library opens nothing by itself. */
export function namesInside(elf: ElfFile): string[] {
  if (!opensLibraries(elf)) return [];
  const names = new Set<string>();
  const strings = elf.value(DT.STRTAB) ?? 0;
  const stringsEnd = strings + elf.strings.length;
  for (const { type, flags, offset, address, fileBytes } of elf.segments) {
    if (type !== PT.LOAD || (flags & PF.W) !== 0 || fileBytes > MOST_BYTES) continue;
    const bytes = elf.bytes.read(offset, fileBytes, 'read-only data');
    for (const { at, name } of textsIn(bytes)) {
      const isInTable = address + at >= strings && address + at < stringsEnd;
      if (!isInTable && names.size < MOST_NAMES) names.add(name);
    }
  }
  return [...names];
}

function opensLibraries(elf: ElfFile): boolean {
  for (const { name } of elf.importedSymbols()) if (OPENERS.has(name)) return true;
  return false;
}

function* textsIn(bytes: Buffer): Generator<{ at: number; name: string }> {
  for (let found = bytes.indexOf('.so'); found !== -1; found = bytes.indexOf('.so', found + 1)) {
    const end = bytes.indexOf(0, found);
    const start = bytes.lastIndexOf(0, found) + 1;
    if (end === -1 || end - start > MOST_NAME_BYTES) continue;
    const name = bytes.toString('latin1', start, end);
    if (IN_NAME.test(name) && name !== '.so') yield { at: start, name };
    found = end;
  }
}
