/** What this process holds, as far as the platform tells. */

import { readFile } from 'node:fs/promises';
import test from 'ava';
import { openHandles } from '../../bench/harness/process-state.js';
import { type Declare, needs } from './needs.js';

const linux = process.platform === 'linux';

/** For what only Linux can tell: mappings, threads and descriptors come from /proc. */
export const onLinux: Declare = needs('Linux', linux);

/** The same for a test that runs before the others of its file, alone. */
export const onLinuxAlone: Declare = needs('Linux', linux, test.serial);

/** What a drain report says of a library that is gone: only checked where the platform can tell. */
export const UNLOADED = linux ? 'unloaded' : 'unverified';

/** The files below `directory` that this process maps, each once, removed ones included. */
export async function mappedIn(directory: string): Promise<string[]> {
  const maps = await readFile('/proc/self/maps', 'utf8');
  const paths = maps.split('\n').map((line) => line.slice(line.indexOf('/')));
  return [...new Set(paths.filter((path) => path.startsWith(`${directory}/`)))];
}

export async function threadCount(): Promise<number> {
  return openHandles().threads;
}

export async function descriptorCount(): Promise<number> {
  return openHandles().descriptors;
}
