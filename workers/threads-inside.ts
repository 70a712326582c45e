/**
 * Looks for threads of this process that are inside of certain files, before these are unmapped: such a thread would crash the process.
 *
 * Linux tells where a thread that waits has its stack (proc_pid_syscall(5)), and there is the address of each function that it will
 * return to. An old address that lies there by chance is taken for one that counts: then a library stays mapped that could have gone.
 * A thread that runs tells nothing. One that is younger than the library and runs on and on is taken for one of the library's.
 */

import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { isLaneThread, type ThreadKey, threadKey } from '../src/lane-threads.js';

/** A thread that was joined may still be listed for a moment. */
const END_MS = 200;
/** A thread that runs is most likely one of Node's that is starting, and will wait for something soon: on a busy machine, less soon. */
const RUN_MS = 5000;
/** A look takes up to a millisecond of processor time, so what takes long is looked for less often. */
const FIRST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 50;
/** Of a stack, what was called last. Nobody waits in deeper recursion than that. */
const MOST_STACK_BYTES = 1024 * 1024;
const ADDRESS_BYTES = 8;
const TICKS_PER_SECOND = 100;
/** Node has no Linux of the other kind that has 64 bits, but for s390x, where nothing is found. */
const LITTLE = true;

export interface ThreadsInside {
  /** How many threads are in each file; only files with any are there. A thread may be in several. */
  byFile: ReadonlyMap<string, number>;
  /** Younger threads of which it cannot be told where they are. */
  unknown: number;
}

interface Look extends ThreadsInside {
  /** Whether threads that are unknown now may show later where they are. */
  mayTell: boolean;
}

export interface LookOptions {
  files: readonly string[];
  /** Which threads are lanes; null if this process has none. */
  laneThreads: SharedArrayBuffer | null;
  /** Threads that were started before this, in seconds since the system was, are not the files' own. */
  sinceSeconds: number;
}

interface Range {
  start: number;
  end: number;
}

interface Mapping extends Range {
  path: string;
  isCode: boolean;
}

/** Looks until there is nothing to be seen, or for a moment at most. Blocks this thread. */
export function threadsInside(options: LookOptions): ThreadsInside {
  const startedMs = performance.now();
  const cleared = new Set<string>();
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const { mayTell, ...seen } = look(options, cleared);
    const { byFile, unknown } = seen;
    const patienceMs = unknown > 0 && mayTell ? RUN_MS : unknown > 0 ? END_MS : 0;
    if (performance.now() - startedMs >= (byFile.size > 0 ? END_MS : patienceMs)) return seen;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs);
  }
}

/** `cleared` are threads that were seen to be elsewhere: one of the library's has a function of it to return to wherever it waits. */
function look({ files, laneThreads, sinceSeconds }: LookOptions, cleared: Set<string>): Look {
  const mappings = readMappings();
  const code = mappings.filter(({ path, isCode }) => isCode && files.includes(path));
  const byFile = new Map<string, number>();
  let unknown = 0;
  const memory = openMemory();
  try {
    for (const name of readdirSync('/proc/self/task')) {
      const key = threadKey(Number(name));
      if (key === null || key.isEnding || isLane(key, laneThreads)) continue;
      const identity = `${key.id} ${key.startedTicks}`;
      if (cleared.has(identity)) continue;
      const place = memory === null ? 'unknown' : placeOf(key.id);
      if (place === 'gone') continue;
      if (place === 'unknown' || memory === null) {
        // Rounded by the system, so one more tick.
        if ((key.startedTicks + 1) / TICKS_PER_SECOND >= sinceSeconds) unknown += 1;
        continue;
      }
      const entered = filesIn(place, code, mappings, memory);
      if (entered.size === 0) cleared.add(identity);
      for (const file of entered) byFile.set(file, (byFile.get(file) ?? 0) + 1);
    }
  } finally {
    if (memory !== null) closeSync(memory);
  }
  return { byFile, unknown, mayTell: memory !== null };
}

/** Null in a process that has changed its user: what it was started as owns its files in /proc from then on. */
function openMemory(): number | null {
  try {
    return openSync('/proc/self/mem', 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM') return null;
    throw error;
  }
}

/** The main thread calls nothing of a library: in a lane's process and in pre-flight it is the one that looks. */
function isLane(key: ThreadKey, laneThreads: SharedArrayBuffer | null): boolean {
  if (key.id === process.pid) return true;
  return laneThreads !== null && isLaneThread(laneThreads, key);
}

interface Place {
  instruction: number;
  stack: number;
}

/** Where a thread waits. */
function placeOf(id: number): Place | 'gone' | 'unknown' {
  let text: string;
  try {
    text = readFileSync(`/proc/self/task/${id}/syscall`, 'latin1');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Some sandboxes do not have this file, whatever thread it is of.
    return code === 'ESRCH' || threadKey(id) === null ? 'gone' : 'unknown';
  }
  const [stack, instruction] = text.trim().split(' ').slice(-2).map(Number);
  if (stack === undefined || instruction === undefined || Number.isNaN(instruction)) {
    return 'unknown';
  }
  return { stack, instruction };
}

/** The files whose code a thread is in or will return to: the handler too, where it has called a library of its own. */
function filesIn(
  { instruction, stack }: Place,
  code: readonly Mapping[],
  mappings: readonly Mapping[],
  memory: number,
): Set<string> {
  const entered = new Set<string>();
  const note = (address: number) => {
    const found = code.find(({ start, end }) => address >= start && address < end);
    if (found !== undefined) entered.add(found.path);
  };
  note(instruction);
  const top = mappings.find(({ start, end }) => stack >= start && stack < end)?.end ?? stack;
  const length = Math.min(top - stack, MOST_STACK_BYTES);
  const bytes = Buffer.alloc(length);
  let read: number;
  try {
    read = readSync(memory, bytes, 0, length, stack);
  } catch {
    return entered; // It has ended meanwhile, and its stack with it.
  }
  const words = new DataView(bytes.buffer, bytes.byteOffset, read);
  for (let at = 0; at + ADDRESS_BYTES <= read; at += ADDRESS_BYTES) {
    const high = words.getUint32(at + 4, LITTLE);
    // Addresses of programs end below this; most words are none.
    if (high === 0 || high > 0x7fff) continue;
    note(high * 2 ** 32 + words.getUint32(at, LITTLE));
  }
  return entered;
}

/** Format: proc_pid_maps(5). */
function readMappings(): Mapping[] {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, start, end, rights, path] =
        /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+\s*(.*)$/.exec(line) ?? [];
      if (start === undefined || end === undefined) return [];
      return [
        {
          start: Number.parseInt(start, 16),
          end: Number.parseInt(end, 16),
          isCode: rights?.includes('x') === true,
          path: (path ?? '').replace(/ \(deleted\)$/, ''),
        },
      ];
    });
}
