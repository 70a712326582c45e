/** What the process holds, before and after, and how much of it may be left. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { mappedFiles, openHandles, settleMemory } from '../../bench/harness/process-state.js';

/** Numbers that the platform does not tell are absent: all but memory and files come from /proc. */
export interface Resources {
  rssKiB: number;
  threads?: number;
  descriptors?: number;
  children?: number;
  mappedLibraries?: number;
  /** Their files' names, which say whose they are. */
  privateCopies: readonly string[];
}

function measure(cacheDir: string): Resources {
  const privateCopies = readdirSync(cacheDir).flatMap((store) =>
    readdirSync(join(cacheDir, store)),
  );
  const rssKiB = Math.round(process.memoryUsage.rss() / 1024);
  if (process.platform !== 'linux') {
    return { rssKiB, privateCopies };
  }
  return {
    rssKiB,
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

/** More than a busy machine needs; only what is left for good takes so long. */
const SETTLE_DEADLINE_MS = 20_000;

/** Measures once what is about to go has gone: threads and descriptors end a moment after the last promise. */
export async function measureSettled(cacheDir: string, before?: Resources): Promise<Resources> {
  const endMs = performance.now() + SETTLE_DEADLINE_MS;
  for (;;) {
    await settleMemory();
    const now = measure(cacheDir);
    const back = before === undefined || leftOver(before, now).every(({ ok }) => ok);
    if (back || performance.now() > endMs) return now;
  }
}

export interface Comparison {
  what: string;
  before: number;
  after: number;
  /** How much more than before there may be; null if nothing can be said. */
  tolerance: number | null;
  why: string;
  ok: boolean;
  /** What there is now, where it has names. */
  names?: readonly string[];
}

/** How the end compares with the beginning. */
export function leftOver(before: Resources, after: Resources): Comparison[] {
  const why = 'everything is given back';
  const compare = (
    what: string,
    from: number | undefined,
    to: number | undefined,
    names: readonly string[] = [],
  ): Comparison[] => {
    if (from === undefined || to === undefined) return [];
    return [{ what, before: from, after: to, tolerance: 0, why, ok: to <= from, names }];
  };
  const copies = after.privateCopies;
  return [
    ...compare('threads', before.threads, after.threads),
    ...compare('descriptors', before.descriptors, after.descriptors),
    ...compare('child processes, zombies included', before.children, after.children),
    ...compare('mapped handler libraries', before.mappedLibraries, after.mappedLibraries),
    ...compare('private copies', before.privateCopies.length, copies.length, copies),
    {
      what: 'resident memory, KiB',
      before: before.rssKiB,
      after: after.rssKiB,
      tolerance: null,
      why: 'the first use of everything is in it',
      ok: true,
    },
  ];
}
