/**
 * Changes private copies before anything loads them. Runs in a worker thread; all that goes in and
 * out is plain data.
 */

import { chmodSync } from 'node:fs';
import { ElfEditor } from '../elf/elf-editor.js';
import { ElfFile } from '../elf/elf-file.js';

/** What is to be changed in one copy. */
export interface PatchTask {
  /** The copy. */
  path: string;
  /** What it is called from now on; null if nobody asks for it by name. */
  soname: string | null;
  /** Libraries that it needs: old names and new ones. */
  names: [from: string, to: string][];
  /** What it is to ask for before all others. */
  first: string | null;
  runpath: string | null;
  /** Unique symbols that stay what they are. */
  keepUnique: string[];
}

/** What was changed in it. */
export interface Patched {
  uniqueSymbols: number;
  names: number;
  searchPath: boolean;
}

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
  const unique = file.unique.length > 0;
  if (!unique && soname === null && names.length === 0 && first === null && runpath === null) {
    return { uniqueSymbols: 0, names: 0, searchPath: false };
  }
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
