/** Lanes that are processes, as the system sees them. */

import { childProcesses, mappedFiles } from '../harness/process-state.js';

/** How often the system is asked, in milliseconds. */
const POLL_MS = 2;

/** In the path of the library, and of the engine's private copies of it. */
const LIBRARY = ['/libhandler_work.so', '/work-'] as const;

const hasLoaded = (pid: number) => LIBRARY.some((part) => mappedFiles(part, pid) > 0);

/** Waits until so many child processes have loaded the library. Resolves to whether they have, by `limitMs`. */
export async function untilLoaded(lanes: number, limitMs: number): Promise<boolean> {
  return poll(limitMs, () => childProcesses().filter(hasLoaded).length >= lanes);
}

/** Waits until none of these processes runs. Resolves to whether that is so, by `limitMs`. */
export async function untilEnded(pids: readonly number[], limitMs: number): Promise<boolean> {
  return poll(limitMs, () => {
    const alive = childProcesses();
    return !pids.some((pid) => alive.includes(pid));
  });
}

async function poll(limitMs: number, isSo: () => boolean): Promise<boolean> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    if (isSo()) return true;
    if (performance.now() >= endMs) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
