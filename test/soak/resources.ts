/** What the process holds, before and after, and how much of it may be left. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  mappedFiles,
  openHandles,
  residentMemory,
  settleMemory,
} from '../../bench/harness/process-state.js';

/** Numbers that the platform does not tell are absent: all but memory and files come from /proc. */
export interface Resources {
  rssKiB: number;
  privateKiB?: number;
  threads?: number;
  descriptors?: number;
  children?: number;
  mappedLibraries?: number;
  privateCopies: number;
}

export function measure(cacheDir: string): Resources {
  const privateCopies = readdirSync(cacheDir)
    .map((store) => readdirSync(join(cacheDir, store)).length)
    .reduce((sum, count) => sum + count, 0);
  if (process.platform !== 'linux') {
    return { rssKiB: Math.round(process.memoryUsage.rss() / 1024), privateCopies };
  }
  return {
    ...residentMemory(),
    ...openHandles(),
    children: childProcesses().length,
    mappedLibraries: mappedFiles(cacheDir),
    privateCopies,
  };
}

/** Process ids of the children, zombies included. A process is the child of the thread that started it: proc_tid_children(5). */
export function childProcesses(): number[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc/self/task').flatMap((thread) => childrenOf(thread));
}

function childrenOf(thread: string): number[] {
  try {
    const children = readFileSync(`/proc/self/task/${thread}/children`, 'utf8');
    return children.split(' ').filter(Boolean).map(Number);
  } catch {
    // It has ended meanwhile.
    return [];
  }
}

const SETTLE_DEADLINE_MS = 5000;

/** Measures once what is about to go has gone: threads and descriptors end a moment after the last promise. */
export async function measureSettled(cacheDir: string, before?: Resources): Promise<Resources> {
  const endMs = performance.now() + SETTLE_DEADLINE_MS;
  for (;;) {
    await settleMemory();
    const now = measure(cacheDir);
    const back = before === undefined || leftOver(before, now, 0).every(({ ok }) => ok);
    if (back || performance.now() > endMs) return now;
  }
}

export interface Comparison {
  what: string;
  before: number;
  after: number;
  /** How much more than before there may be. */
  tolerance: number;
  why: string;
  ok: boolean;
}

/** What a first use of everything costs: heaps that have grown, the allocator's arenas, compiled code. */
const WARM_UP_KIB = 96 * 1024;
/** A thread that has come and gone, koffi in it, leaves this behind. Measured: 25 to 65 KiB. */
const PER_LANE_KIB = 65;

/** How the end compares with the beginning, when so many lanes have come and gone. */
export function leftOver(before: Resources, after: Resources, lanes: number): Comparison[] {
  const compare = (
    what: string,
    field: keyof Resources,
    tolerance = 0,
    why = 'everything is given back',
  ): Comparison[] => {
    const [from, to] = [before[field], after[field]];
    if (from === undefined || to === undefined) return [];
    return [{ what, before: from, after: to, tolerance, why, ok: to <= from + tolerance }];
  };
  return [
    ...compare('threads', 'threads'),
    ...compare('descriptors', 'descriptors'),
    ...compare('child processes, zombies included', 'children'),
    ...compare('mapped handler libraries', 'mappedLibraries'),
    ...compare('private copies', 'privateCopies'),
    ...compare(
      'resident memory, KiB',
      'rssKiB',
      WARM_UP_KIB + PER_LANE_KIB * lanes,
      `${WARM_UP_KIB / 1024} MiB for heaps and allocator arenas that have grown, ${PER_LANE_KIB} KiB for each of the ${lanes} lanes that have come and gone`,
    ),
  ];
}
