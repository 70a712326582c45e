/**
 * Ends a lane's process from the main thread, whatever it does.
 *
 * A signal may be refused: this process may have become another user's since (setuid(2)). So each
 * lane process has a lifeline, a pipe that this process holds the only writing end of. When that is
 * closed, the kernel ends the lane process on its own behalf, which needs no permission.
 */

import { closeSync } from 'node:fs';
import type { RingProducer } from './ring/producer.js';

/** @throws {Error} with `code`, such as EPERM, if the process cannot be ended. */
export function endLaneProcess(ring: RingProducer, lane: number): void {
  const pid = ring.processOf(lane);
  if (pid === 0) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    // It has just ended by itself.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return;
    if (!cutLifeline(ring, lane)) throw error;
  }
}

/** Whether there was one to cut. */
export function cutLifeline(ring: RingProducer, lane: number): boolean {
  const descriptor = ring.takeLifeline(lane);
  if (descriptor === null) return false;
  closeSync(descriptor);
  return true;
}
