/**
 * Whether memory grows without end, told by what is held between two rounds, when nothing is loaded. The first round does not count: in
 * it code is compiled, heaps and the allocator's arenas grow to the size that the load needs, and V8 begins to keep the pages of
 * threads that have ended (Node 24: some 150 MiB). Resident memory takes longer to get there, since payloads of 12 MiB come at random:
 * it is judged only if there are twelve rounds, and the first third of them is for that. (Measured in four minutes: 293 MiB after the
 * first of twelve rounds, 507 after the fourth, 496 after the last; in one: 350, 379, 423, 528, 552, 531.) What is kept for a while is given back in one of the next rounds, what leaks is
 * not: so the lower of the last two counts. A run of fewer than three rounds is too short to tell anything.
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
/** The same for resident memory. */
const LEAST_RESIDENT_ROUNDS = MOST_ROUNDS;
/** How many of the rounds it has to get warm. */
const WARM_UP = 1 / 3;

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
  const warmUp = points.slice(0, Math.floor(points.length * WARM_UP));
  const lanes = last.lanes - first.lanes;
  const compare = (what: string, field: 'rssKiB' | 'heapKiB', before: number, more: Allowed) => {
    const { tolerance, why } = more;
    const after = Math.min(lastButOne[field], last[field]);
    return { what, before, after, tolerance, why, ok: after <= before + tolerance };
  };
  const warmKiB = Math.max(...warmUp.map(({ rssKiB }) => rssKiB));
  const heap = compare('JavaScript heap since the first round, KiB', 'heapKiB', first.heapKiB, {
    tolerance: HEAP_KIB,
    why: 'what is collected leaves little behind',
  });
  if (points.length < LEAST_RESIDENT_ROUNDS) return [heap];
  return [
    heap,
    compare('resident memory since the first rounds, KiB', 'rssKiB', warmKiB, {
      tolerance: RESIDENT_KIB + PER_LANE_KIB * lanes,
      why: `${RESIDENT_KIB / 1024} MiB for pages that V8 and the allocator keep, ${PER_LANE_KIB} KiB for each of the ${lanes} lanes that have come and gone`,
    }),
  ];
}
