/** The directories that hold private copies: made, checked to be nobody else's, and removed. */

import { lstat, mkdir, realpath, rmdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { directoryName, sweep, thisProcess } from './owner.js';
import { codeOf, messageOf, unless } from './system-errors.js';

export function defaultBaseDir(): string {
  const uid = process.geteuid?.();
  // On Windows the directory for temporary files is the user's own.
  return join(tmpdir(), uid === undefined ? 'changeover' : `changeover-${uid}`);
}

export async function makeStoreDirectory(baseDir: string, isDefaultBase: boolean): Promise<string> {
  await (isDefaultBase ? makePrivateBase(baseDir) : makeCallersBase(baseDir));
  // The list of mappings shows real paths, and a link in between must not be changed later.
  const base = await realpath(baseDir);
  const owner = await thisProcess();
  await sweep(base, owner);
  const directory = join(base, directoryName(owner));
  await mkdir(directory, { mode: 0o700 });
  return directory;
}

/** The default base is at a path that anyone can guess, in a directory where anyone may create. */
async function makePrivateBase(dir: string): Promise<void> {
  await mkdir(dir, { mode: 0o700 }).catch(unless('EEXIST'));
  const stats = await lstat(dir);
  const advice = 'remove it, or pass another directory as `cacheDir`';
  if (stats.isSymbolicLink()) throw new Error(`it is a symbolic link; ${advice}`);
  if (!stats.isDirectory()) throw new Error(`it is not a directory; ${advice}`);
  const uid = process.geteuid?.();
  // Windows has no mode bits to judge by.
  if (uid === undefined) return;
  if (stats.uid !== uid) throw new Error(`it belongs to user ${stats.uid}, not ${uid}; ${advice}`);
  if ((stats.mode & 0o077) !== 0) {
    const mode = (stats.mode & 0o777).toString(8);
    throw new Error(`others may use it (mode ${mode}); make that 700, ${advice}`);
  }
}

async function makeCallersBase(dir: string): Promise<void> {
  await makeDirectories(dir);
  const stats = await stat(dir);
  if (!stats.isDirectory()) throw new Error('it is not a directory; pass another `cacheDir`');
  const isUnix = process.geteuid !== undefined;
  // Without the sticky bit, whoever may write here may also replace the store's directory.
  if (isUnix && (stats.mode & 0o002) !== 0 && (stats.mode & 0o1000) === 0) {
    throw new Error(
      'every user may write there; take that away (chmod o-w), or pass another `cacheDir`',
    );
  }
}

/**
 * Tries each level once. `mkdir` with `recursive: true` never returns where a parent exists that
 * takes no entries, such as `/proc`: on ENOENT, Node makes the parent and tries again, for ever.
 */
async function makeDirectories(dir: string): Promise<void> {
  if (await exists(dir)) return;
  const parent = dirname(dir);
  if (parent !== dir) await makeDirectories(parent);
  await mkdir(dir, { mode: 0o700 }).catch(unless('EEXIST'));
}

async function exists(path: string): Promise<boolean> {
  const stats = await stat(path).catch(unless('ENOENT'));
  return stats !== undefined;
}

/** For a system error whose code has no advice of its own, the error's message. */
export function cacheAdvice(cause: unknown): string {
  switch (codeOf(cause)) {
    case 'ENOSPC':
      return 'the file system is full; free space, or pass a `cacheDir` on another';
    case 'EDQUOT':
      return 'the disk quota is used up; free space, or pass a `cacheDir` elsewhere';
    case 'EROFS':
      return 'the file system is read-only; pass a `cacheDir` that can be written';
    case 'EACCES':
    case 'EPERM':
      return (
        'this user may not write there, or the file system is mounted noexec; ' +
        'pass a `cacheDir` that can be written and loaded from'
      );
    case 'EMFILE':
    case 'ENFILE':
      return 'too many files are open; raise the limit (ulimit -n)';
    case 'ENOENT':
      return 'a directory in its path is missing; make it, or pass another `cacheDir`';
    case 'EEXIST':
    case 'ENOTDIR':
      return 'it, or a part of its path, is not a directory; pass another `cacheDir`';
    default:
      return messageOf(cause);
  }
}

/** Best effort: a directory that cannot be removed is a leftover, not a reason to fail. */
export async function removeIfEmpty(directory: string): Promise<void> {
  await rmdir(directory).catch(() => {});
}
