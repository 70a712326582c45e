/**
 * Who owns a store's directory, as its name says, and the removal of those whose owners are dead.
 */

import { createHash, randomBytes } from 'node:crypto';
import { lstat, readdir, readFile, readlink, rmdir, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { codeOf, unless } from './system-errors.js';

/** A process, told apart from every other that has, had or will have its pid. */
interface Owner {
  pid: number;
  /** In clock ticks after boot; empty where the system does not tell. */
  startTime: string;
  /** Where the pid means something: host and, on Linux, pid namespace. */
  namespace: string;
}

const DIRECTORY_NAME = /^changeover\.([1-9][0-9]*)\.([0-9]*)\.([0-9a-f-]+)\.[0-9a-f]+$/;

export function directoryName({ pid, startTime, namespace }: Owner): string {
  return `changeover.${pid}.${startTime}.${namespace}.${randomBytes(6).toString('hex')}`;
}

function parseDirectoryName(name: string): Owner | undefined {
  const [, pid, startTime, namespace] = DIRECTORY_NAME.exec(name) ?? [];
  if (pid === undefined || startTime === undefined || namespace === undefined) return undefined;
  return { pid: Number(pid), startTime, namespace };
}

export async function thisProcess(): Promise<Owner> {
  const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 12);
  // The number alone would not do where hosts share a cache: it is the same on every host.
  const link = await readlink('/proc/self/ns/pid').catch(() => '');
  const inode = /\d+/.exec(link)?.[0];
  return {
    pid: process.pid,
    startTime: await startTimeOf('self', process.pid),
    namespace: inode === undefined ? host : `${inode}-${host}`,
  };
}

/**
 * A process's start time in clock ticks after boot, from field 22 of `/proc/<pid>/stat`
 * (proc_pid_stat(5)); empty where there is none.
 *
 * The pid is compared because `/proc` may be that of another pid namespace.
 */
async function startTimeOf(entry: string, pid: number): Promise<string> {
  const text = await readFile(`/proc/${entry}/stat`, 'latin1').catch(() => '');
  if (!text.startsWith(`${pid} (`)) return '';
  // Field 2 is the program's name, which may contain spaces and parentheses; field 3 follows it.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields[22 - 3] ?? '';
}

async function isAlive(owner: Owner, self: Owner): Promise<boolean> {
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    return codeOf(error) !== 'ESRCH';
  }
  // Start times compare only if this process can see its own; in doubt the owner lives.
  if (owner.startTime === '' || self.startTime === '') return true;
  const startTime = await startTimeOf(String(owner.pid), owner.pid);
  return startTime === '' || startTime === owner.startTime;
}

/**
 * Removes the directories that dead processes left in `base`. Best effort, in any company: what
 * cannot be read or removed, or is being removed by another sweeper, stays or goes without an
 * error.
 */
export async function sweep(base: string, self: Owner): Promise<void> {
  for (const name of await readdir(base).catch(() => [])) {
    const owner = parseDirectoryName(name);
    if (owner === undefined || owner.namespace !== self.namespace) continue;
    if (!(await isAlive(owner, self))) await removeLeftover(join(base, name)).catch(() => {});
  }
}

/**
 * Not recursive: a store's directory holds files only. And only the user's own, so that in a shared
 * `cacheDir` no other user can send a sweeper through links of his.
 */
async function removeLeftover(directory: string): Promise<void> {
  const stats = await lstat(directory);
  if (!stats.isDirectory() || stats.uid !== (process.geteuid?.() ?? stats.uid)) return;
  for (const name of await readdir(directory)) {
    await unlink(join(directory, name)).catch(unless('ENOENT'));
  }
  await rmdir(directory);
}
