/**
 * Whether a file is a whole shared library that this process can load. The dynamic loader must not
 * be the one to find out: a truncated ELF file kills the process with SIGBUS, and a library for
 * another machine is reported as "No such file".
 *
 * Nothing in the file is trusted. Offsets and sizes are bigints, every range is checked against the
 * file's size before it is read, and tables have a limit. A range that ends after the file is
 * `truncated`; a table that contradicts itself, or that leads the loader out of the library's
 * memory, is `not-a-library`. This is no defence against a library built to do harm, which need not
 * be malformed to do it.
 *
 * Formats: elf(5) and the System V gABI; `mach-o/loader.h` and `mach-o/fat.h`; the PE/COFF
 * specification.
 */

import type { FileHandle } from 'node:fs/promises';
import { checkElf } from './elf.js';
import { describeOther, FORMAT_NAMES, formatFor, formatOf, HEAD_BYTES } from './kind.js';
import { LibraryFile } from './library-file.js';
import { checkMachO } from './mach-o.js';
import { checkPe } from './pe.js';

/**
 * Resolves when the file is a whole shared library for `platform` and `arch` (as in
 * `process.platform` and `process.arch`). On Linux and other Unix systems that is ELF, on macOS
 * Mach-O (thin or universal), on Windows a PE DLL. A machine that is not known here is not checked.
 *
 * Reads headers and tables, at explicit positions, through `file`, which stays open. Does not look
 * for dependencies or for the symbols of a handler. `path` is for the message: the library as the
 * caller named it.
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
