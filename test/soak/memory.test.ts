/** The soak would notice a leak, and does not take a heap that warms up for one. */

import test from 'ava';
import { type MemoryPoint, memoryGrowth, roundsIn } from './memory.js';

const MIB = 1024;

/** Memory after each round, in MiB; 40 lanes each. */
const points = (field: 'rssKiB' | 'heapKiB', mib: readonly number[]): MemoryPoint[] =>
  mib.map((size, round) => ({
    rssKiB: 200 * MIB,
    heapKiB: 12 * MIB,
    lanes: 40 * (round + 1),
    requests: 8000 * (round + 1),
    [field]: size * MIB,
  }));

const verdicts = (of: readonly MemoryPoint[]) => memoryGrowth(of).map(({ ok }) => ok);

test('a heap that stays as it is after the first round is as it should be', (t) => {
  t.deepEqual(verdicts(points('heapKiB', [12, 13, 12, 13, 13])), [true]);
});

test('a heap that grows by more than a megabyte each round is noticed', (t) => {
  t.deepEqual(verdicts(points('heapKiB', [12, 13, 14, 15, 17, 18])), [false]);
});

test('pages that are kept now and given back then are no leak', (t) => {
  const kept = [234, 261, 275, 265, 271, 309, 320, 270, 310, 264, 330, 301];
  t.deepEqual(verdicts(points('rssKiB', kept)), [true, true]);
});

test('six rounds tell nothing of resident memory, which is still getting warm', (t) => {
  t.deepEqual(verdicts(points('rssKiB', [350, 379, 423, 528, 552, 531])), [true]);
});

test('memory outside of the heap that grows by 20 MiB each round is noticed, and not what it takes to get warm', (t) => {
  const leaking = Array.from({ length: 12 }, (_, round) => 200 + 20 * round);
  t.deepEqual(verdicts(points('rssKiB', leaking)), [true, false]);
  const warm = [293, 328, 374, 507, 456, 483, 472, 422, 470, 500, 493, 496];
  t.deepEqual(verdicts(points('rssKiB', warm)), [true, true]);
});

test('lanes that come and go may leave a little, and no more', (t) => {
  const [few, many] = [400, 4000].map((lanes): MemoryPoint[] =>
    Array.from({ length: 12 }, (_, round) =>
      round < 4
        ? { rssKiB: 200 * MIB, heapKiB: 0, lanes: 0, requests: 0 }
        : { rssKiB: 340 * MIB, heapKiB: 0, lanes, requests: 0 },
    ),
  );
  t.deepEqual(verdicts(few ?? []), [true, false]);
  t.deepEqual(verdicts(many ?? []), [true, true]);
});

test('two rounds tell nothing of growth', (t) => {
  t.deepEqual(memoryGrowth(points('heapKiB', [12])), []);
  t.deepEqual(memoryGrowth(points('heapKiB', [12, 500])), []);
});

test('two seconds are one round, a minute is judged', (t) => {
  t.is(roundsIn(1800), 1);
  t.is(roundsIn(60_000), 6);
});
