/**
 * Sees to it that the process can end while libraries are being loaded or unloaded: Node terminates the worker
 * threads when it exits, and a thread that is terminated inside koffi aborts the whole process.
 *
 * At `exit` every ring is frozen: lanes inside koffi get a moment to come out, none goes in. Then the lanes' processes are killed: a
 * thread that waits for one cannot be terminated.
 */

import { endLaneProcess } from './end-lane-process.js';
import type { RingProducer } from './ring/producer.js';

/** In all. Starting and loading take 30 to 60 ms; what takes longer than this is hanging. */
const PATIENCE_MS = 2000;

const rings = new Set<RingProducer>();

export function guardAtExit(ring: RingProducer): void {
  if (rings.size === 0) process.on('exit', freezeAll);
  rings.add(ring);
}

export function unguardAtExit(ring: RingProducer): void {
  rings.delete(ring);
  if (rings.size === 0) process.off('exit', freezeAll);
}

function freezeAll(): void {
  const endMs = performance.now() + PATIENCE_MS;
  for (const ring of rings) ring.freeze();
  for (const ring of rings) ring.awaitFrozen(Math.max(0, endMs - performance.now()));
  for (const ring of rings) killProcesses(ring);
}

function killProcesses(ring: RingProducer): void {
  for (let lane = 0; lane < ring.layout.lanes; lane++) {
    try {
      endLaneProcess(ring, lane);
    } catch {
      // Nothing is left to try; the kernel ends it with this process if it can.
    }
  }
}
