/**
 * The life of a version, without threads or libraries.
 *
 *   loading ──► active ──► draining ──► drained ──► retired
 *      └──► failed            (0 in flight)   (lanes gone)
 *
 * | from     | to       | when                                              |
 * |----------|----------|---------------------------------------------------|
 * | loading  | active   | every lane has loaded the library and checked it  |
 * | loading  | failed   | any of them could not, or it took too long        |
 * | active   | draining | swapped out, unloaded or closed                   |
 * | draining | drained  | nothing is in flight and every caller is answered |
 * | drained  | retired  | lanes have left, private copy removed             |
 */

import { strict as assert } from 'node:assert';

/** Where a version is in its life. Only `active` gives guards. */
export type VersionState = 'loading' | 'active' | 'draining' | 'drained' | 'retired' | 'failed';

const NEXT: Readonly<Record<VersionState, readonly VersionState[]>> = {
  loading: ['active', 'failed'],
  active: ['draining'],
  draining: ['drained'],
  drained: ['retired'],
  retired: [],
  failed: [],
};

/** Checks a step and returns where it leads. A step that is not in the table is a bug of ours. */
export function step(from: VersionState, to: VersionState): VersionState {
  assert(NEXT[from].includes(to), `a version does not go from ${from} to ${to}`);
  return to;
}
