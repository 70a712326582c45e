/**
 * The library that is copied, which others may replace or change at any time, and what to tell a
 * caller who named something else.
 */

import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { LibraryInvalidError, LibraryNotFoundError, LoadFailedError } from '../errors.js';
import { codeOf, messageOf, quote } from './system-errors.js';

/**
 * Non-blocking, since opening a fifo, should one have come to be there, would otherwise wait for a writer. Windows has
 * neither.
 */
const SOURCE_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

const MAX_SUGGESTIONS = 5;

/**
 * Whether a file is the same and holds what it held. A change within one tick of the file system's
 * clock (some milliseconds) that keeps the size cannot be seen.
 *
 * `ctime` tells of writes whose `mtime` was put back, but also changes with the number of links. A
 * rename over the file takes its last name away and no byte, and is how a library should be
 * replaced: where the links changed too, `ctime` says nothing and `mtime` has to do.
 */
export function isUnchanged(before: FileState, after: FileState): boolean {
  return (
    before.ino === after.ino &&
    before.size === after.size &&
    before.mtimeNs === after.mtimeNs &&
    (before.ctimeNs === after.ctimeNs || before.nlink !== after.nlink)
  );
}

export type FileState = Pick<BigIntStats, 'ino' | 'size' | 'nlink' | 'mtimeNs' | 'ctimeNs'>;

/** Opens a regular file. Anything else is not even opened: opening alone does something to many a device. */
export async function openSource(path: string): Promise<FileHandle> {
  try {
    const stats = await stat(path, { bigint: true });
    if (!stats.isFile()) throw notAFile(path, kindOf(stats));
    return await open(path, SOURCE_FLAGS);
  } catch (cause) {
    if (cause instanceof LibraryInvalidError) throw cause;
    throw await openError(path, cause);
  }
}

async function openError(path: string, cause: unknown): Promise<Error> {
  const notFound = (why: string) =>
    new LibraryNotFoundError(`cannot read the library ${quote(path)}: ${why}`, path, { cause });
  switch (codeOf(cause)) {
    case 'ENOENT':
      return notFound(await missingAdvice(path));
    case 'ENOTDIR':
      return notFound('a part of its path is not a directory; correct the path');
    case 'EACCES':
    case 'EPERM':
      return notFound('this user may not read it, or not enter its directory; grant that');
    case 'ELOOP':
      return notFound('its symbolic links form a loop; correct the link');
    case 'ENAMETOOLONG':
      return notFound('its path is longer than the system allows; correct the path');
    case 'EISDIR':
      return notAFile(path, 'a directory');
    case 'ENXIO':
    case 'ENODEV':
    case 'EOPNOTSUPP':
      return notAFile(path, 'a socket or device');
    default:
      return sourceFailure(path, cause);
  }
}

async function missingAdvice(path: string): Promise<string> {
  const directory = dirname(resolve(path));
  const names = await readdir(directory).catch(() => undefined);
  if (names === undefined) {
    return `there is no directory ${quote(directory)} that can be listed; correct the path`;
  }
  const wanted = basename(path);
  const similar = names
    .filter((name) => /^(lib)?handler_[A-Za-z0-9_-]+\.(so|dylib|dll)$/.test(name))
    .sort((a, b) => sharedPrefix(b, wanted) - sharedPrefix(a, wanted) || (a < b ? -1 : 1))
    .slice(0, MAX_SUGGESTIONS);
  if (similar.length === 0)
    return 'no such file, and its directory has no handler library; build it, or correct the path';
  return `no such file; its directory has ${similar.join(', ')}`;
}

function sharedPrefix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

export async function onSourceSide<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    throw sourceFailure(path, cause);
  }
}

function sourceFailure(path: string, cause: unknown): LoadFailedError {
  const message = `reading the library ${quote(path)} failed: ${messageOf(cause)}`;
  return new LoadFailedError(message, path, { cause });
}

export function notAFile(path: string, got: string): LibraryInvalidError {
  return new LibraryInvalidError(
    'not-a-file',
    `cannot load ${quote(path)}: expected a regular file, got ${got}. Name the library itself.`,
    path,
  );
}

export function changedWhileCopied(path: string): LibraryInvalidError {
  return new LibraryInvalidError(
    'changed-while-copied',
    `cannot load ${quote(path)}: expected a finished file, got one that changed while it was ` +
      'copied. Write new versions under another name, rename them into place, then load.',
    path,
  );
}

export function kindOf(stats: BigIntStats): string {
  if (stats.isDirectory()) return 'a directory';
  if (stats.isFIFO()) return 'a fifo';
  if (stats.isSocket()) return 'a socket';
  return 'a device';
}
