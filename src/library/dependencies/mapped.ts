/**
 * What a process has loaded, by the names that its dynamic loader knows it by. Asked for one of
 * these, the loader looks no further: whoever needs a library gets the one that came first.
 */

import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { ElfError } from '../elf/bytes.js';
import { ElfFile } from '../elf/elf-file.js';
import { codeOf } from '../system-errors.js';

export interface MappedLibrary {
  path: string;
  /** Whether the file has been removed or replaced since it was loaded. */
  isGone: boolean;
}

interface Named extends MappedLibrary {
  /** What it calls itself, else its file's name. */
  name: string;
  needed: readonly string[];
}

const DELETED = ' (deleted)';

/** What is known of files, by path, device and inode: they are asked for at every load. */
const known = new Map<string, Pick<Named, 'name' | 'needed'> | null>();
/** Libraries that are loaded and unloaded again must not pile up here. */
const MOST_KNOWN = 1024;

export class MappedLibraries {
  readonly #libraries: readonly Named[];

  private constructor(libraries: readonly Named[]) {
    this.#libraries = libraries;
  }

  /** What this process has loaded by now. */
  static now(): MappedLibraries {
    return new MappedLibraries(listMapped(readFileSync('/proc/self/maps', 'utf8')));
  }

  /** What a new process with the same executable will have loaded: what the executable needs. */
  static atStart(): MappedLibraries {
    const libraries = MappedLibraries.now().#libraries;
    const names = [...namesIn('/proc/self/exe').needed];
    const found = new Set<Named>();
    for (let index = 0; index < names.length; index++) {
      const library = libraries.find(({ name }) => name === names[index]);
      if (library === undefined || found.has(library)) continue;
      found.add(library);
      names.push(...library.needed);
    }
    return new MappedLibraries([...found]);
  }

  /** The library that the loader takes for `name`; null if it has to look for one. */
  find(name: string): MappedLibrary | null {
    return this.#libraries.find((library) => library.name === name) ?? null;
  }
}

/** The libraries that a text of `/proc/<pid>/maps` lists: proc_pid_maps(5). */
function listMapped(maps: string): Named[] {
  const seen = new Set<string>();
  const libraries: Named[] = [];
  for (const line of maps.split('\n')) {
    const [, device, inode, listed] = /^\S+ \S+ \S+ (\S+) (\d+)\s+(\/.*)$/.exec(line) ?? [];
    if (listed === undefined || !basename(listed).includes('.so') || seen.has(listed)) continue;
    seen.add(listed);
    const isGone = listed.endsWith(DELETED);
    const path = isGone ? listed.slice(0, -DELETED.length) : listed;
    const said = isGone
      ? { name: basename(path), needed: [] }
      : namesOf(path, `${device} ${inode}`);
    if (said !== null) libraries.push({ path, isGone, ...said });
  }
  return libraries;
}

function namesOf(path: string, identity: string): Pick<Named, 'name' | 'needed'> | null {
  const key = `${identity} ${path}`;
  let said = known.get(key);
  if (said === undefined) {
    said = readNames(path);
    if (known.size >= MOST_KNOWN) known.clear();
    known.set(key, said);
  }
  return said;
}

/** Null if it is a file that the process maps for some other reason. */
function readNames(path: string): Pick<Named, 'name' | 'needed'> | null {
  try {
    return namesIn(path);
  } catch (error) {
    if (error instanceof ElfError || codeOf(error) !== undefined) return null;
    throw error;
  }
}

function namesIn(path: string): Pick<Named, 'name' | 'needed'> {
  const file = ElfFile.open(path);
  try {
    const { soname, needed } = file;
    return { name: soname ?? basename(path), needed };
  } finally {
    file.close();
  }
}
