/**
 * Names of libraries that stand in a library as texts: what it may open by name while it runs
 * (dlopen(3)). A name that is put together at run time is not seen.
 */

import { DT, PF, PT } from '../elf/constants.js';
import { type ElfFile, hashNames } from '../elf/elf-file.js';

const OPENERS = hashNames(['dlopen', 'dlmopen']);
/** More is not looked through. */
const MOST_BYTES = 64 * 1024 * 1024;
const MOST_NAMES = 256;
const MOST_NAME_BYTES = 4096;
const IN_NAME = /^[\w.+/-]+\.so(?:\.\w+)*$/;

/** None if the library opens nothing by itself. */
export function namesInside(elf: ElfFile): string[] {
  if (elf.importsAmong(OPENERS).size === 0) return [];
  const names = new Set<string>();
  const strings = elf.value(DT.STRTAB) ?? 0;
  const stringsEnd = strings + elf.strings.length;
  const readOnly = elf.segments.filter(({ type, flags }) => type === PT.LOAD && !(flags & PF.W));
  // Linkers put texts and code into one segment, or texts into segments without code.
  const data = readOnly.filter(({ flags }) => !(flags & PF.X));
  for (const { offset, address, fileBytes } of data.length > 0 ? data : readOnly) {
    if (fileBytes > MOST_BYTES) continue;
    const bytes = elf.bytes.read(offset, fileBytes, 'read-only data');
    for (const { at, name } of textsIn(bytes)) {
      const isInTable = address + at >= strings && address + at < stringsEnd;
      if (!isInTable && names.size < MOST_NAMES) names.add(name);
    }
  }
  return [...names];
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
