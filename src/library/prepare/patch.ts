/**
 * Changes private copies before anything loads them. Runs in a worker thread; all that goes in and
 * out is plain data.
 */

import { chmodSync } from 'node:fs';
import { ElfEditor } from '../elf/elf-editor.js';
import { ElfFile } from '../elf/elf-file.js';
import { changesNothingElse, type Patched, type PatchTask, UNCHANGED } from './patch-task.js';

/**
 * Only this user may read and execute a copy, and nobody write to it but here.
 *
 * @throws {ElfError} if it cannot be changed; then it is as it was.
 */
export function patch(task: PatchTask): Patched {
  chmodSync(task.path, 0o700);
  const file = ElfFile.open(task.path, 'r+');
  try {
    return apply(file, task);
  } finally {
    file.close();
    chmodSync(task.path, 0o500);
  }
}

function apply(file: ElfFile, task: PatchTask): Patched {
  const { soname, names, first, runpath, keepUnique } = task;
  if (file.unique.length === 0 && changesNothingElse(task)) return UNCHANGED;
  const editor = new ElfEditor(file);
  const uniqueSymbols = editor.makeUniqueOrdinary(new Set(keepUnique));
  if (soname !== null) editor.setSoname(soname);
  if (names.length > 0) editor.renameNeeded(new Map(names));
  if (first !== null) editor.addNeededFirst(first);
  if (runpath !== null) editor.setRunpath(runpath);
  editor.save();
  return {
    uniqueSymbols,
    names: names.length + (soname === null ? 0 : 1) + (first === null ? 0 : 1),
    searchPath: runpath !== null,
  };
}
