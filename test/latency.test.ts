import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { Histogram } from '../src/histogram.js';
import { LatencyRecorder, WINDOW_MS } from '../src/latency.js';

const EMPTY = {
  count: 0,
  minMs: 0,
  meanMs: 0,
  p50Ms: 0,
  p90Ms: 0,
  p99Ms: 0,
  p999Ms: 0,
  maxMs: 0,
};

/** The histogram keeps two figures. */
function isNear(actual: number, expected: number): boolean {
  return Math.abs(actual - expected) <= expected * 0.011 + 0.001;
}

test('nothing recorded is all zeros', (t) => {
  t.deepEqual(new LatencyRecorder().stats(0), { window: EMPTY, total: EMPTY });
});

test('percentiles of 1 to 1000 ms', (t) => {
  const recorder = new LatencyRecorder();
  for (let ms = 1; ms <= 1000; ms++) recorder.record(ms, 0);
  const { window, total } = recorder.stats(0);
  t.deepEqual(window, total);
  t.is(window.count, 1000);
  const expected = {
    minMs: 1,
    meanMs: 500.5,
    p50Ms: 500,
    p90Ms: 900,
    p99Ms: 990,
    p999Ms: 999,
    maxMs: 1000,
  };
  for (const [name, ms] of Object.entries(expected)) {
    const actual = window[name as keyof typeof expected];
    t.true(isNear(actual, ms), `${name} is ${actual}`);
  }
});

test('the percentiles are in order, whatever was recorded', (t) => {
  const recorder = new LatencyRecorder();
  for (const ms of [0, 0.0004, 0.02, 3, 3, 250, 86_400_000, 1e12]) recorder.record(ms, 0);
  const { minMs, p50Ms, p90Ms, p99Ms, p999Ms, maxMs, count } = recorder.stats(0).total;
  t.is(count, 8);
  const inOrder = [minMs, p50Ms, p90Ms, p99Ms, p999Ms, maxMs];
  t.deepEqual(
    [...inOrder].sort((a, b) => a - b),
    inOrder,
  );
});

test('less than a microsecond counts, and so does a clock that ran backwards', (t) => {
  const recorder = new LatencyRecorder();
  recorder.record(0, 0);
  recorder.record(-0.5, 0);
  const { count, maxMs } = recorder.stats(0).window;
  t.is(count, 2);
  t.true(isNear(maxMs, 0.001));
});

test('what is older than the window is in the total only', (t) => {
  const recorder = new LatencyRecorder();
  recorder.record(5, 1000);
  recorder.record(7, 1000 + WINDOW_MS);
  t.deepEqual(counts(recorder, 1000 + WINDOW_MS), { window: 2, total: 2 });
  t.deepEqual(counts(recorder, 1001 + WINDOW_MS), { window: 1, total: 2 });
  t.true(isNear(recorder.stats(1001 + WINDOW_MS).window.minMs, 7));
  t.deepEqual(counts(recorder, 1001 + 2 * WINDOW_MS), { window: 0, total: 2 });
  t.deepEqual(recorder.stats(1001 + 2 * WINDOW_MS).window, EMPTY);
});

test('a record after a long silence is counted once', (t) => {
  const recorder = new LatencyRecorder();
  recorder.record(1, 0);
  recorder.record(1, 10 * WINDOW_MS);
  t.deepEqual(counts(recorder, 10 * WINDOW_MS), { window: 1, total: 2 });
  t.deepEqual(counts(recorder, 10 * WINDOW_MS), { window: 1, total: 2 }, 'looking changes nothing');
});

test('everything is counted while the window slides', (t) => {
  const recorder = new LatencyRecorder();
  const everyMs = 700;
  for (let index = 1; index <= 1000; index++) {
    const nowMs = index * everyMs;
    recorder.record(1, nowMs);
    const { window, total } = counts(recorder, nowMs);
    t.is(total, index);
    const within = Math.min(index, Math.floor(WINDOW_MS / everyMs));
    // A bucket leaves as a whole, so up to ten seconds are missing at the far end.
    t.true(window <= within + 1 && window >= within - 10_000 / everyMs - 1);
  }
});

function counts(recorder: LatencyRecorder, nowMs: number): { window: number; total: number } {
  const { window, total } = recorder.stats(nowMs);
  return { window: window.count, total: total.count };
}

test('a quantile is within 1 % of what was recorded, over all orders of magnitude', (t) => {
  const sample = fc.array(
    fc
      .tuple(fc.integer({ min: 0, max: 36 }), fc.double({ min: 1, max: 1.99, noNaN: true }))
      .map(([power, factor]) => Math.floor(2 ** power * factor)),
    { minLength: 1, maxLength: 50 },
  );
  const shares = [0, 0.25, 0.5, 0.9, 0.99, 1];
  fc.assert(
    fc.property(sample, sample, (kept, taken) => {
      const part = new Histogram();
      const rest = new Histogram();
      const all = new Histogram();
      for (const us of kept) {
        all.record(us);
        rest.record(us);
      }
      for (const us of taken) {
        all.record(us);
        part.record(us);
      }
      requireExact(t, all, [...kept, ...taken], shares);
      all.subtract(part, [rest]);
      requireExact(t, all, kept, shares);
      all.subtract(rest, []);
      t.deepEqual([all.count, all.sum, all.max], [0, 0, 0]);
      t.deepEqual(all.quantiles(shares), Array(shares.length).fill(0));
    }),
  );
});

function requireExact(
  t: ExecutionContext,
  histogram: Histogram,
  values: readonly number[],
  shares: readonly number[],
): void {
  const sorted = values.toSorted((a, b) => a - b);
  const sum = sorted.reduce((total, us) => total + us, 0);
  const { count, min, max } = histogram;
  t.deepEqual(
    [count, histogram.sum, min, max],
    [sorted.length, sum, sorted[0] ?? 0, sorted.at(-1) ?? 0],
  );
  for (const [index, quantile] of histogram.quantiles(shares).entries()) {
    const place = Math.max(1, Math.ceil((shares[index] ?? 0) * sorted.length));
    const exact = sorted[place - 1] ?? 0;
    t.true(Math.abs(quantile - exact) <= exact * 0.01, `${quantile} for ${exact}`);
  }
}

test('a histogram has memory for the octaves between its smallest and its largest duration', (t) => {
  const histogram = new Histogram();
  const octave = 64 * Float64Array.BYTES_PER_ELEMENT;
  t.is(histogram.byteLength, 0);
  histogram.record(1000);
  t.is(histogram.byteLength, octave);
  histogram.record(600);
  t.is(histogram.byteLength, octave);
  // Three octaves up, then down to where each microsecond has a bin of its own.
  histogram.record(8000);
  t.is(histogram.byteLength, 4 * octave);
  histogram.record(1);
  t.is(histogram.byteLength, 8 * octave);
  const [p50 = 0] = histogram.quantiles([0.5]);
  t.true(Math.abs(p50 - 600) <= 6, `${p50}`);
});
