/**
 * Whether a library is where only those can have put it who may run code here anyway: this user and root. Judged by the file
 * that was opened and by the directories that lead to it by name, not by all that are above them; access control lists are not looked at.
 */

import type { BigIntStats } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { dirname, relative, sep } from 'node:path';
import { UnsafeLibraryError } from '../errors.js';
import { onSourceSide } from './source.js';
import { quote } from './system-errors.js';

export interface SafetyRules {
  /** Skips the look at owners and mode bits. */
  allowUnsafePermissions?: boolean;
  /** The directory that links must not lead out of; null for any. */
  within?: string | null;
}

const GROUP_MAY_WRITE = 0o020n;
const OTHERS_MAY_WRITE = 0o002n;
const STICKY = 0o1000n;

const ALLOW = 'or set allowUnsafePermissions if you trust them';

/**
 * Checks the file that was opened at `path` and has the state `opened`.
 *
 * @returns false if another file has come to be there since.
 * @throws {UnsafeLibraryError} if others could have written it, or could replace it.
 */
export async function isSafe(
  path: string,
  opened: BigIntStats,
  rules: SafetyRules,
): Promise<boolean> {
  const real = await onSourceSide(path, realpath(path));
  const now = await onSourceSide(path, stat(real, { bigint: true }));
  if (now.ino !== opened.ino || now.dev !== opened.dev) return false;
  await checkWithin(path, real, rules.within ?? null);
  // Windows has no owners and mode bits to judge by.
  if (rules.allowUnsafePermissions === true || process.geteuid === undefined) return true;
  checkOwnership(path, real, opened);
  // A link is replaced where it is, the file where that is.
  for (const directory of new Set([dirname(path), dirname(real)])) {
    const stats = await onSourceSide(path, stat(directory, { bigint: true }));
    checkOwnership(path, directory, stats);
  }
  return true;
}

async function checkWithin(path: string, real: string, within: string | null): Promise<void> {
  if (within === null) return;
  const way = relative(await onSourceSide(path, realpath(within)), real);
  if (way !== '..' && !way.startsWith(`..${sep}`)) return;
  throw new UnsafeLibraryError(
    'leads-outside',
    real,
    `${quote(path)} is a link to ${quote(real)}, outside of the handlers directory ${quote(within)}; put the library there, name it with loadFrom, or set allowOutsideLinks`,
    path,
  );
}

function checkOwnership(library: string, path: string, stats: BigIntStats): void {
  const user = BigInt(process.geteuid?.() ?? 0);
  const what = stats.isDirectory() ? 'directory' : 'file';
  if (stats.uid !== user && stats.uid !== 0n) {
    throw new UnsafeLibraryError(
      'foreign-owner',
      path,
      `cannot load ${quote(library)}: the ${what} ${quote(path)} belongs to user ${stats.uid}, who is neither root nor this process's user ${user} and could change it; change its owner (chown), ${ALLOW}`,
      library,
    );
  }
  // Where anyone may create files, the sticky bit keeps them from replacing those of others.
  if (stats.isDirectory() && (stats.mode & STICKY) !== 0n) return;
  const byOthers = (stats.mode & OTHERS_MAY_WRITE) !== 0n;
  const byGroup = (stats.mode & GROUP_MAY_WRITE) !== 0n && !isOwnGroup(stats.gid);
  if (!byOthers && !byGroup) return;
  const mode = (stats.mode & 0o7777n).toString(8);
  const who = byOthers ? 'every user' : `every user in group ${stats.gid}`;
  throw new UnsafeLibraryError(
    'writable-by-others',
    path,
    `cannot load ${quote(library)}: ${who} may write to the ${what} ${quote(path)} (mode ${mode}); take that away (chmod go-w), ${ALLOW}`,
    library,
  );
}

/**
 * The group that many systems give each user for himself, with the user's own number: there, group-writable is what a plain
 * compiler run makes, and says no more than the owner's own right.
 */
function isOwnGroup(gid: bigint): boolean {
  const user = process.geteuid?.();
  return user !== undefined && process.getegid?.() === user && gid === BigInt(user);
}
