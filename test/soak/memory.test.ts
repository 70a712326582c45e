/** The soak would notice a leak, and does not take a heap that warms up for one. */

import test from 'ava';
import { type MemoryPoint, memoryGrowth, roundsIn } from './memory.js';

const MIB = 1024;

/** Memory after each round, in MiB. */
const points = (
  field: 'rssKiB' | 'heapKiB',
  mib: readonly number[],
  lanesEach = 40,
): MemoryPoint[] =>
  mib.map((size, round) => ({
    rssKiB: 200 * MIB,
    heapKiB: 12 * MIB,
    lanes: lanesEach * (round + 1),
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
  t.deepEqual(verdicts(points('rssKiB', kept, 300)), [true, true]);
});

test('a thousand lanes tell nothing of resident memory, which is still getting warm', (t) => {
  const warming = [395, 399, 433, 466, 502, 511, 590, 564, 573, 626, 633, 641];
  t.deepEqual(verdicts(points('rssKiB', warming, 86)), [true]);
});

test('memory outside of the heap that grows by 40 MiB each round is noticed', (t) => {
  const leaking = Array.from({ length: 12 }, (_, round) => 400 + 40 * round);
  t.deepEqual(verdicts(points('rssKiB', leaking, 300)), [true, false]);
});

test('lanes that come and go may leave a little, and no more', (t) => {
  const [few, many] = [400, 4000].map((lanes): MemoryPoint[] =>
    [0, lanes, lanes].map((more) => ({
      rssKiB: (more === 0 ? 200 : 340) * MIB,
      heapKiB: 0,
      lanes: 1000 + more,
      requests: 0,
    })),
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
