/**
 * Whether this process still maps a file: the proof that a library is really unloaded. `dlclose`
 * returning tells nothing, since some libraries stay (see `STB_GNU_UNIQUE` in dlclose(3) and
 * ld.so).
 */

import { readFileSync } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

/**
 * Whether the process maps the file at `path`: also one that was removed or replaced after it was
 * mapped. `undefined` where that cannot be told: on any platform but Linux, or without `/proc`.
 *
 * The file itself may be gone. Symbolic links in the path to its directory are followed; if the
 * path itself was a link, it must still exist. Format of the list: proc_pid_maps(5).
 */
export async function isMapped(path: string): Promise<boolean | undefined> {
  const maps = await readMaps();
  return maps === undefined ? undefined : listsFile(maps, await realPathOf(path));
}

const MAPS = '/proc/self/maps';

/**
 * The kernel hands out a page at a time, and each would be a turn of the event loop: a list up to
 * this long is read at once, which takes half a millisecond at most. A longer one does not hold up
 * the event loop.
 */
const SHORT_CHARACTERS = 128 * 1024;

/** The next list is about as long as the last one. */
let lastLength = 0;

/** The text of this process's list of mappings; `undefined` where there is none. */
export async function readMaps(): Promise<string | undefined> {
  if (process.platform !== 'linux') return undefined;
  try {
    const isShort = lastLength <= SHORT_CHARACTERS;
    const maps = isShort ? readFileSync(MAPS, 'utf8') : await readFile(MAPS, 'utf8');
    lastLength = maps.length;
    return maps;
  } catch {
    // Without /proc, or with rules against reading it, nothing is known.
    return undefined;
  }
}

/**
 * Whether the text of a `/proc/<pid>/maps` lists the file at the real path `path`.
 *
 * The path is written the kernel's way and compared, not the line decoded: of all characters the
 * kernel escapes only the newline, so a backslash in a line may stand for itself.
 */
export function listsFile(maps: string, path: string): boolean {
  const written = path.replaceAll('\n', '\\012');
  const removed = `${written} (deleted)`;
  return maps.split('\n').some((line) => {
    // The columns before the path never contain a slash, and a mapped file's path starts with one.
    const start = line.indexOf('/');
    if (start === -1) return false;
    const listed = line.slice(start);
    return listed === written || listed === removed;
  });
}

/** The path as the kernel shows it. Of a file that is gone, only the directory can be resolved. */
async function realPathOf(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await realpath(absolute);
  } catch {
    const directory = dirname(absolute);
    return join(await realpath(directory).catch(() => directory), basename(absolute));
  }
}
