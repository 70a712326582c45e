/** What "the event loop is held for" means, on made-up turns, and on a loop that is really held. */

import test from 'ava';
import { heldBy, type Stretch, watchHolds } from '../../bench/harness/holds.js';

/** Turns that end at these times; the first one begins at 0. */
function turnsAt(...times: number[]): Stretch[] {
  return times.map((endMs, index) => ({ startMs: times[index - 1] ?? 0, endMs }));
}

/** A turn every millisecond, but none between the start and the end of these holds. */
function everyMs(lastMs: number, ...holds: [start: number, end: number][]): Stretch[] {
  const times = Array.from({ length: lastMs }, (_, index) => index + 1);
  return turnsAt(...times.filter((ms) => !holds.some(([start, end]) => ms > start && ms < end)));
}

test('a hold counts beyond the usual of windows that are as long as the operation', (t) => {
  // Holds of 3, 5 and 4 ms beyond the tick, one in each of three windows of 100 ms; one of 9 ms in
  // the operation.
  const turns = everyMs(400, [10, 14], [150, 156], [250, 255], [320, 330]);
  const without = { startMs: 0, endMs: 300 };
  const operation = { startMs: 300, endMs: 400 };
  t.deepEqual(heldBy(operation, without, turns), { heldMs: 9, usualMs: 4, moreMs: 5 });
});

test('an operation that holds less than usual does not hold', (t) => {
  const turns = everyMs(200, [10, 20], [150, 152]);
  const [without, operation] = [
    { startMs: 0, endMs: 100 },
    { startMs: 100, endMs: 200 },
  ];
  t.deepEqual(heldBy(operation, without, turns), { heldMs: 1, usualMs: 9, moreMs: 0 });
});

test('of a hold that reaches into the operation, only its part in there counts', (t) => {
  const turns = everyMs(200, [80, 110]);
  const [without, operation] = [
    { startMs: 0, endMs: 100 },
    { startMs: 100, endMs: 200 },
  ];
  t.deepEqual(heldBy(operation, without, turns), { heldMs: 9, usualMs: 19, moreMs: 0 });
});

test('a time without that is shorter than the operation is one window', (t) => {
  const turns = everyMs(300, [10, 14], [250, 260]);
  const held = heldBy({ startMs: 100, endMs: 300 }, { startMs: 0, endMs: 100 }, turns);
  t.deepEqual(held, { heldMs: 9, usualMs: 3, moreMs: 6 });
});

test('a hold is seen from its beginning to its end, although no timer fires in it', (t) => {
  const watched = watchHolds();
  const startMs = performance.now();
  // Busy until the clock says so: a hold of that length, however fast the machine is.
  while (performance.now() - startMs < 20);
  const endMs = performance.now();
  const { heldMs } = heldBy({ startMs, endMs }, { startMs, endMs }, watched());
  // All but the tick.
  t.is(Math.round(heldMs), Math.round(endMs - startMs - 1));
});
