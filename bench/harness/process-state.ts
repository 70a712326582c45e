/** What this process holds of the system: memory, threads, descriptors, mapped files. From proc(5), so on Linux only. */

import { readdirSync, readFileSync } from 'node:fs';

export interface MemoryReport {
  /** Resident memory, pages shared with other processes included. */
  rssKiB: number;
  /** The part of it that this process alone has written to: what it would give back by ending. */
  privateKiB: number;
}

/** Of this process, or of another one of this user. */
export function residentMemory(pid: number | 'self' = 'self'): MemoryReport {
  const path = `/proc/${pid}/smaps_rollup`;
  const rollup = readFileSync(path, 'utf8');
  const kib = (field: string) => {
    const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(rollup)?.[1];
    if (found === undefined) throw new Error(`${path} has no ${field}`);
    return Number(found);
  };
  return { rssKiB: kib('Rss'), privateKiB: kib('Private_Dirty') };
}

export function openHandles(): { threads: number; descriptors: number } {
  return {
    threads: readdirSync('/proc/self/task').length,
    descriptors: readdirSync('/proc/self/fd').length,
  };
}

/** The processes that this one has started and that have not ended. */
export function childProcesses(parentId = process.pid): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const stat = textOf(`/proc/${pid}/stat`);
      // State and parent come after the program's name, which is in parentheses: proc_pid_stat(5).
      const [state = '', parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(parent) === parentId && !'ZX'.includes(state);
    });
}

/** Empty if the process has ended meanwhile. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Different files whose path contains `part` and that are mapped, those that were removed since included. */
export function mappedFiles(part: string, pid: number | 'self' = 'self'): number {
  const path = `/proc/${pid}/maps`;
  // Another process may have ended; that this one cannot be read must be seen.
  const lines = (pid === 'self' ? readFileSync(path, 'utf8') : textOf(path)).split('\n');
  // Copies are told apart by path: each load has its own.
  return new Set(
    lines.filter((line) => line.includes(part)).map((line) => line.slice(line.indexOf('/'))),
  ).size;
}

/** V8 asks for its heap at random addresses below this one; the system's libraries and everybody else's memory lie above. */
const V8_HEAP_END = 2 ** 46;

export interface AddressSpace {
  mappings: number;
  /** Those that are not V8's heap, whose young generation grows and shrinks by 90 (Node 20) to 230 (Node 24). */
  otherMappings: number;
  mib: number;
}

/** Mappings of this process, and the address space that they take. */
export function addressSpace(): AddressSpace {
  const lines = readFileSync('/proc/self/maps', 'utf8').trimEnd().split('\n');
  const others = lines.filter((line) => Number.parseInt(line, 16) >= V8_HEAP_END);
  const status = readFileSync('/proc/self/status', 'utf8');
  const kib = Number(/^VmSize:\s+(\d+) kB$/m.exec(status)?.[1]);
  return { mappings: lines.length, otherMappings: others.length, mib: kib / 1024 };
}

/** Waits until what was given back has been collected. */
export async function settleMemory(): Promise<void> {
  for (let times = 0; times < 3; times++) {
    globalThis.gc?.();
    // Threads end and finalizers run between turns of the event loop.
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** By how much `y` grows for each `x`, fitted to all points. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (pick: 0 | 1) => points.reduce((sum, point) => sum + point[pick], 0) / points.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  let covariance = 0;
  let variance = 0;
  for (const [x, y] of points) {
    covariance += (x - meanX) * (y - meanY);
    variance += (x - meanX) ** 2;
  }
  return covariance / variance;
}
