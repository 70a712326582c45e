/**
 * Whether memory grows without end, told by what is held between two rounds, when nothing is loaded. The first round does not count: in
 * it code is compiled, heaps and the allocator's arenas grow to the size that the load needs, and V8 begins to keep the pages of
 * threads that have ended (Node 24: some 150 MiB). Resident memory takes longer to get there, since payloads of 12 MiB come at random
 * and every thread that comes and goes finds the allocator's arenas a little larger: the first thousand lanes are for that, and a
 * shorter soak does not judge it. (Measured in two minutes, after twelve rounds and 103 to 1,037 lanes: 395, 399, 433, 466, 502, 511, 590,
 * 564, 573, 626, 633, 641 MiB.) What is kept for a while is given back in one of the next rounds, what leaks is not: so the lower
 * of the last two counts. A run of fewer than three rounds is too short to tell anything.
 */

import { strict as assert } from 'node:assert';
import { settleMemory } from '../../bench/harness/process-state.js';
import type { Comparison } from './resources.js';

export interface MemoryPoint {
  rssKiB: number;
  /** The main thread's JavaScript heap, and what its objects hold outside of it. */
  heapKiB: number;
  /** Lanes that have been started, and requests that have been sent, by then. */
  lanes: number;
  requests: number;
}

/** Long enough for each endpoint to have been changed. */
const ROUND_MS = 10_000;
const MOST_ROUNDS = 12;
export const LEAST_ROUNDS = 3;
/** Resident memory is judged from the round on in which so many lanes have come. */
const WARM_LANES = 1000;

/** How many rounds a soak of this length has. */
export function roundsIn(totalMs: number): number {
  return Math.min(MOST_ROUNDS, Math.max(1, Math.floor(totalMs / ROUND_MS)));
}

export async function memoryNow(): Promise<Pick<MemoryPoint, 'rssKiB' | 'heapKiB'>> {
  await settleMemory();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rssKiB: Math.round(rss / 1024), heapKiB: Math.round((heapUsed + external) / 1024) };
}

/** What is collected leaves little behind. Measured, from round to round: up to 0.2 MiB, one time 1 MiB less. */
const HEAP_KIB = 4 * 1024;
/** Which pages V8 and the allocator give back is chance. Measured in two minutes, lanes included: 47 MiB on Node 20, 83 on Node 26. */
const RESIDENT_KIB = 96 * 1024;
/** A thread that has come and gone, koffi in it, leaves this behind. Measured: 25 to 65 KiB. */
const PER_LANE_KIB = 65;

interface Allowed {
  readonly tolerance: number;
  readonly why: string;
}

/** How the end compares with the first point, if something can be said. Points are taken after each round. */
export function memoryGrowth(points: readonly MemoryPoint[]): Comparison[] {
  const [first, lastButOne, last] = [points[0], points.at(-2), points.at(-1)];
  if (points.length < LEAST_ROUNDS) return [];
  assert(first !== undefined && lastButOne !== undefined && last !== undefined);
  const warm = points.filter(({ lanes }) => lanes >= WARM_LANES);
  const compare = (what: string, field: 'rssKiB' | 'heapKiB', before: number, more: Allowed) => {
    const { tolerance, why } = more;
    const after = Math.min(lastButOne[field], last[field]);
    return { what, before, after, tolerance, why, ok: after <= before + tolerance };
  };
  const heap = compare('JavaScript heap since the first round, KiB', 'heapKiB', first.heapKiB, {
    tolerance: HEAP_KIB,
    why: 'what is collected leaves little behind',
  });
  const [firstWarm] = warm;
  if (firstWarm === undefined || warm.length < LEAST_ROUNDS) return [heap];
  const lanes = last.lanes - firstWarm.lanes;
  return [
    heap,
    compare('resident memory since it was warm, KiB', 'rssKiB', firstWarm.rssKiB, {
      tolerance: RESIDENT_KIB + PER_LANE_KIB * lanes,
      why: `${RESIDENT_KIB / 1024} MiB for pages that V8 and the allocator keep, ${PER_LANE_KIB} KiB for each of the ${lanes} lanes that have come and gone`,
    }),
  ];
}
