/**
 * Question: what do callers notice of a graceful swap under load?
 *
 * Predicted: nothing is lost. Starting the new version's threads takes some 50 ms of CPU time each, which on two cores competes
 * with the requests, so the 99th percentile rises in that second, but to less than twice its usual; the main thread is
 * not blocked for 5 ms. With `standby` the threads are there already, and what is started for the next swap, a little in each
 * of the seconds that follow, is not noticed.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { build, type Histogram } from 'hdr-histogram-js';
import type { EndpointOptions } from '../src/index.js';
import type { Contender } from './contenders/contender.js';
import { startEngine } from './contenders/engine.js';
import { startPiscina } from './contenders/piscina.js';
import { watchEventLoop } from './harness/event-loop.js';
import { heldBy, watchHolds } from './harness/holds.js';
import { latencyReport } from './harness/latency-report.js';
import { type Outcome, openLoop } from './harness/open-loop.js';
import type { Axis, Panel, Plot } from './harness/plot.js';
import type { Measurement, Question, Results, Table } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount, withSpread } from './harness/text.js';
import { buildNative, workLibrary } from './native/library.js';

const REQUEST_BYTES = 128;
const LANES = 2;
const BUCKET_MS = 100;
const POLL_MS = 20;
/** What is usual is everything before the swap, but for the first half second. */
const SETTLED_AFTER_MS = 500;
/** Short: three quarters of a second before the swap that are usual, and the second that begins with it. */
const DURATION_MS = { full: 8000, short: 2600, quick: 600 };

/** What is on the way while versions are swapped. */
const LOADS = {
  light: { label: '2,000 echoes a second', ratePerSecond: 2000, callUs: 0 },
  heavy: { label: '600 calls of 1 ms a second', ratePerSecond: 600, callUs: 1000 },
} as const;

type LoadName = keyof typeof LOADS;

/** How each swaps. */
const SWAPPERS = {
  changeover: {
    label: 'changeover, swapGraceful',
    series: 'changeover',
    role: 'engine',
    start: () => startSwappingEngine({}),
  },
  standby: {
    label: 'changeover, standby: true',
    series: 'changeover, standby',
    role: 'engine',
    start: () => startSwappingEngine({ standby: true }),
  },
  piscina: {
    label: 'Piscina, new pool, then close the old',
    series: 'Piscina',
    role: 'peer',
    start: startSwappingPiscina,
  },
} as const;

type SwapperName = keyof typeof SWAPPERS;

const swapperNames = Object.keys(SWAPPERS) as SwapperName[];
const ENGINES = ['changeover', 'standby'] as const;

interface Swapper extends Contender {
  /** Replaces the version; settles when the new one serves and the old one is gone. */
  swap(): Promise<unknown>;
}

export const swap: Question = {
  name: 'swap',
  question: 'What do callers notice of a graceful swap under load?',
  predicted:
    'Nothing is lost; p99 in the second around the swap is at most twice the usual; the main thread is not blocked for 5 ms.',
  rounds: 3,
  trials: () => trialsOf(swapperNames).map((trial) => ({ ...trial, lanes: LANES })),
  measure: (trial, mode) =>
    swapUnderLoad(trial['contender'] as SwapperName, trial['load'] as LoadName, DURATION_MS[mode]),
  compared: ENGINES.map((contender) => ({
    trial: { contender, load: 'light', lanes: LANES },
    figures: [
      { key: 'swapTookMs', label: `swap took, ms, ${contender}`, better: 'lower' },
      { key: 'aroundP99Ms', label: `p99 in its second, ms, ${contender}`, better: 'lower' },
    ],
  })),
  answer: (results) => ({
    headline: headlineOf(results),
    tables: [tableOf(results)],
    plots: Object.keys(LOADS).map((load) => plotOf(results, load as LoadName)),
    levels: trialsOf(ENGINES)
      .map((trial) => ({ trial, label: labelOf(trial) }))
      .flatMap(({ trial, label }) => [
        {
          what: `lost, ${label}`,
          value: results.spread(trial, 'lost')?.max ?? Number.NaN,
          atMost: 0,
          unit: '',
        },
        {
          what: `p99 around the swap, of the usual, ${label}`,
          value: results.median(trial, 'p99Ratio'),
          atMost: 2,
          unit: 'x',
        },
        {
          what: `event loop held by the swap, ${label}`,
          value: results.median(trial, 'heldMoreMs'),
          atMost: 5,
          unit: 'ms',
        },
      ]),
  }),
};

function trialsOf(contenders: readonly SwapperName[]) {
  return (Object.keys(LOADS) as LoadName[]).flatMap((load) =>
    contenders.map((contender) => ({ contender, load })),
  );
}

function labelOf({ contender, load }: { contender: SwapperName; load: LoadName }): string {
  return `${SWAPPERS[contender].label}; ${LOADS[load].label}`;
}

function headlineOf(results: Results): string {
  const loads = Object.keys(LOADS);
  const of = (contender: SwapperName, key: string) =>
    loads.flatMap((load) => results.spread({ contender, load }, key) ?? []);
  const most = (contender: SwapperName, key: string) =>
    amount(Math.max(...of(contender, key).map(({ median }) => median)));
  const lost = Math.max(...ENGINES.flatMap((engine) => of(engine, 'lost')).map(({ max }) => max));
  return (
    `A graceful swap under load loses ${lost === 0 ? 'no' : amount(lost)} request. It takes ${most('changeover', 'swapTookMs')} ms at most, p99 in that second is at most ${most('changeover', 'p99Ratio')} times the usual, ` +
    `and the event loop is held for at most ${most('changeover', 'heldMoreMs')} ms more than in as long a time without a swap; with \`standby: true\` it is ${most('standby', 'swapTookMs')} ms, ${most('standby', 'p99Ratio')} times and ${most('standby', 'heldMoreMs')} ms.`
  );
}

/** What happened by the second, before, through and after the swap. */
function plotOf(results: Results, load: LoadName): Plot {
  const panel = (key: string, y: Axis): Panel => ({
    y,
    series: Object.entries(SWAPPERS).map(([contender, { series, role }]) => ({
      name: series,
      role,
      points: results
        .series({ contender, load }, key)
        .map((value, index) => [((index + 0.5) * BUCKET_MS) / 1000, value]),
    })),
  });
  const engine = { contender: 'changeover', load };
  const perSecond = results.series(engine, 'perSecond');
  const lost = results.spread(engine, 'lost')?.max ?? Number.NaN;
  const ratio = (trial: typeof engine) => amount(results.median(trial, 'p99Ratio'));
  return {
    name: `swap-${load}`,
    title: `A library replaced under ${LOADS[load].label}: ${lost === 0 ? 'no' : amount(lost)} request lost, p99 in that second ${ratio(engine)} times the usual, ${ratio({ ...engine, contender: 'standby' })} with standby`,
    caption: `${LANES} lanes, by tenths of a second; times count from when a request was due. Piscina: a new pool has answered before it takes over, then close() of the old one.`,
    kind: 'panels',
    x: { label: 'time', unit: 's' },
    panels: [
      panel('perSecond', { label: 'answered requests a second' }),
      panel('p99Ms', { label: 'p99 latency', scale: 'log', unit: 'ms' }),
      panel('errors', { label: 'failed requests' }),
    ],
    marks: [{ x: (perSecond.length * BUCKET_MS) / 2000, label: 'swap' }],
  };
}

async function startSwappingEngine(options: EndpointOptions): Promise<Swapper> {
  const engine = await startEngine({ threads: LANES }, options);
  const isReady = () => engine.registry.stats().endpoints[0]?.standbyLanes === LANES;
  while (options.standby === true && !isReady()) await delay(POLL_MS);
  return {
    ...engine,
    swap: async () => (await engine.registry.swapGraceful('work', workLibrary)).drained,
  };
}

/** As a careful user of a pool would write it: the new pool has answered before it gets any traffic. */
async function startSwappingPiscina(): Promise<Swapper> {
  let current = await startPiscina({ threads: LANES });
  return {
    call: (request) => current.call(request),
    close: () => current.close(),
    swap: async () => {
      const next = await startPiscina({ threads: LANES });
      const warm = Array.from({ length: LANES }, () => next.call(makeRequest(REQUEST_BYTES)));
      await Promise.all(warm);
      const old = current;
      current = next;
      await old.close();
    },
  };
}

const newHistogram = () =>
  build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });

async function swapUnderLoad(
  name: SwapperName,
  loadName: LoadName,
  durationMs: number,
): Promise<Measurement> {
  await buildNative();
  const contender = await SWAPPERS[name].start();
  const { ratePerSecond, callUs } = LOADS[loadName];
  const request = makeRequest(REQUEST_BYTES, callUs);
  const swapAtMs = durationMs / 2;
  const buckets = Array.from({ length: durationMs / BUCKET_MS }, newHistogram);
  const lostBy = buckets.map(() => 0);
  const settled = ({ intendedMs, latencyMs, error }: Outcome) => {
    const index = Math.min(buckets.length - 1, Math.floor(intendedMs / BUCKET_MS));
    if (error === undefined) buckets[index]?.recordValue(Math.max(1, Math.round(latencyMs * 1e6)));
    else lostBy[index] = (lostBy[index] ?? 0) + 1;
  };
  let swapping = { startMs: Number.NaN, endMs: Number.NaN };
  let loopDelayP99Ms = Number.NaN;
  const load = { ratePerSecond, pacing: 'timer' as const, request: () => request };
  // Unmeasured: until then, code is compiled.
  await openLoop(contender, { ...load, durationMs: durationMs / 4 });
  const watchedHolds = watchHolds();
  const loadedMs = performance.now();
  const swapped = new Promise<void>((resolve, reject) => {
    setTimeout(async () => {
      const watched = watchEventLoop();
      const startMs = performance.now();
      try {
        await contender.swap();
        swapping = { startMs, endMs: performance.now() };
        ({ loopDelayP99Ms } = watched());
        resolve();
      } catch (error) {
        reject(error);
      }
    }, swapAtMs);
  });
  await Promise.all([openLoop(contender, { ...load, durationMs, settled }), swapped]);
  const before = {
    startMs: loadedMs + Math.min(SETTLED_AFTER_MS, swapAtMs / 2),
    endMs: swapping.startMs,
  };
  const held = heldBy(swapping, before, watchedHolds());
  await contender.close();

  // The second that begins with the swap, and everything before it that is usual.
  const firstIndex = Math.floor(swapAtMs / BUCKET_MS);
  const around = merged(buckets.slice(firstIndex, firstIndex + 1000 / BUCKET_MS));
  const usual = merged(buckets.slice(SETTLED_AFTER_MS / BUCKET_MS, firstIndex));
  // The seconds after that one, in which what `standby` keeps ready is made anew.
  const after = [1000, 2000, 3000]
    .map((fromMs) => firstIndex + fromMs / BUCKET_MS)
    .map((from) => merged(buckets.slice(from, from + 1000 / BUCKET_MS)));
  return {
    lost: lostBy.reduce((sum, count) => sum + count, 0),
    swapTookMs: swapping.endMs - swapping.startMs,
    heldMs: held.heldMs,
    usualHeldMs: held.usualMs,
    heldMoreMs: held.moreMs,
    loopDelayP99Ms,
    usualP99Ms: latencyReport(usual).p99Us / 1000,
    aroundP99Ms: latencyReport(around).p99Us / 1000,
    afterP99Ms: Math.max(...after.map((second) => latencyReport(second).p99Us / 1000)),
    p99Ratio: latencyReport(around).p99Us / latencyReport(usual).p99Us,
    perSecond: buckets.map(({ totalCount }) => (totalCount / BUCKET_MS) * 1000),
    p50Ms: buckets.map((bucket) => latencyReport(bucket).p50Us / 1000),
    p99Ms: buckets.map((bucket) => latencyReport(bucket).p99Us / 1000),
    errors: lostBy,
  };
}

function merged(histograms: Histogram[]): Histogram {
  const all = newHistogram();
  for (const histogram of histograms) all.add(histogram);
  return all;
}

function tableOf(results: Results): Table {
  const keys = [
    'lost',
    'usualP99Ms',
    'aroundP99Ms',
    'p99Ratio',
    'afterP99Ms',
    'usualHeldMs',
    'heldMs',
    'heldMoreMs',
    'swapTookMs',
  ];
  return {
    title: `A graceful swap under load, ${LANES} lanes`,
    columns: [
      '',
      'lost',
      'p99 before, ms',
      'p99 in the second of the swap, ms',
      'of before',
      'highest p99 of the three seconds after it, ms',
      'event loop held at most in as long a time without, ms',
      'during the swap, ms',
      'held for, ms',
      'swap took, ms',
    ],
    rows: trialsOf(swapperNames).map((trial) => [
      labelOf(trial),
      ...keys.map((key) => withSpread(results.spread(trial, key))),
    ]),
    note: 'Held without: the longest hold in each stretch before, as long as the swap took, which is this machine’s doing (median of the stretches). Held for: how much longer the longest hold of the swap was. The swap took: until the new version served and the old one was gone. Requests are sent by a timer, and their times count from when they were due.',
  };
}
