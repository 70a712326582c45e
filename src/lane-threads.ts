/**
 * The threads that lanes run in, by the system's numbers, in memory that all threads of the process
 * share. Whoever looks for threads of a library leaves these out: they have been in it, and what is
 * left of that on their stacks says nothing.
 *
 * A number may be another thread's after its owner has ended, so the moment in which the thread was
 * started belongs to it.
 */

import { readFileSync, readlinkSync } from 'node:fs';

/** Those that came last are remembered: more than there can be at once on most systems. */
const MOST_THREADS = 4096;
const ENTRY_WORDS = 2;
/** Of include/linux/sched.h. */
const PF_EXITING = 4;

/** Words of the table: how many were entered ever, then the entries. */
const COUNT = 0;
const FIRST_ENTRY = 1;

/** The table of all registries in this thread. A lane gets it with its first message. */
export const laneThreads = new SharedArrayBuffer(
  (FIRST_ENTRY + MOST_THREADS * ENTRY_WORDS) * Int32Array.BYTES_PER_ELEMENT,
);

export interface ThreadKey {
  id: number;
  /** When it was started, in ticks (100 a second) since the system was. */
  startedTicks: number;
  /** Whether it is in the kernel and will not come back from there. */
  isEnding: boolean;
}

/** Notes that this thread is a lane's. Does nothing where there is no /proc. */
export function enterLaneThread(memory: SharedArrayBuffer): void {
  const key = thisThread();
  if (key === null) return;
  const words = new Int32Array(memory);
  const entry = Atomics.add(words, COUNT, 1) % MOST_THREADS;
  const at = FIRST_ENTRY + entry * ENTRY_WORDS;
  // The number last: from then on others find the entry, which must be whole.
  Atomics.store(words, at + 1, key.startedTicks | 0);
  Atomics.store(words, at, key.id);
}

/** Whether a thread is, or was, a lane's. */
export function isLaneThread(memory: SharedArrayBuffer, { id, startedTicks }: ThreadKey): boolean {
  const words = new Int32Array(memory);
  for (let at = FIRST_ENTRY; at < words.length; at += ENTRY_WORDS) {
    if (Atomics.load(words, at) !== id) continue;
    if (Atomics.load(words, at + 1) === (startedTicks | 0)) return true;
  }
  return false;
}

function thisThread(): ThreadKey | null {
  if (process.platform !== 'linux') return null;
  try {
    const link = readlinkSync('/proc/thread-self');
    return threadKey(Number(link.slice(link.lastIndexOf('/') + 1)));
  } catch {
    return null; // No /proc: then nobody looks for threads either.
  }
}

/** A thread of this process, or null if it has ended. */
export function threadKey(id: number): ThreadKey | null {
  let text: string;
  try {
    text = readFileSync(`/proc/self/task/${id}/stat`, 'latin1');
  } catch {
    return null;
  }
  // Columns: proc_pid_stat(5). They are counted from the end of the name, which may contain
  // anything.
  const columns = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return {
    id,
    startedTicks: Number(columns[22 - 3]),
    isEnding: (Number(columns[9 - 3]) & PF_EXITING) !== 0,
  };
}
