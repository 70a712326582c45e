/**
 * Question: do two lanes do twice the work of one, and do short requests suffer from long ones beside them?
 *
 * Predicted: CPU-bound work of 5 ms scales with the cores, for every pool, and the main thread stays as free as when idle.
 * With work of 1 and 200 ms mixed, a pool whose worker has requests of its own waiting makes short ones wait for the
 * long one before them: up to 200 ms. One queue for all workers does not. Among those that have one, the order is that of what a pool
 * loses between two requests: the engine's lane takes the next from shared memory, other pools' workers ask the main thread.
 */

import { build } from 'hdr-histogram-js';
import type { Contender } from './contenders/contender.js';
import { type ContenderName, contenders, peerNames, startContender } from './contenders/index.js';
import { throughput } from './harness/closed-loop.js';
import { watchEventLoop } from './harness/event-loop.js';
import { latencyReport } from './harness/latency-report.js';
import { openLoop } from './harness/open-loop.js';
import type { Measurement, Mode, Question, Results, Table, Trial } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount, withSpread } from './harness/text.js';

const REQUEST_BYTES = 128;

// ---- 5 ms of CPU time each, as fast as they are answered -------------------------------------------

const WORK_MS = 5;
const LANES = [1, 2] as const;
const scaled: readonly ContenderName[] = [
  'changeover',
  'piscina',
  'tinypool',
  'workerpool',
  'poolifier',
  'koffiAsync',
];

// ---- Short and long ones mixed ---------------------------------------------------------------------

const MIXED_LANES = 2;
const SHORT_MS = 1;
const LONG_MS = 200;
/** Of what the lanes can do. */
const LOAD = 0.7;
/**
 * A long request every 300 ms on average, which is two thirds of a lane, and short ones for the rest of the load, which is
 * almost three quarters of one. So while a long one occupies a lane, which is most of the time, the other can carry the short
 * ones: in a pool that lets them pass, they wait for other short ones only. Arrivals are a Poisson process; every so-manieth request
 * is long, because two long ones at a time by chance would occupy both lanes, where no pool can do anything: luck would be
 * measured. With more short ones than that, their p99 would be one backlog that happened to be the worst.
 */
const LONG_EVERY_MS = 300;
const SHORT_PER_SECOND = ((LOAD * MIXED_LANES - LONG_MS / LONG_EVERY_MS) / SHORT_MS) * 1000;
const RATE = SHORT_PER_SECOND + 1000 / LONG_EVERY_MS;
const LONG_EVERY = Math.round((RATE * LONG_EVERY_MS) / 1000);

/** Pools that may hand a worker several tasks at once are also measured with one: it is what they should do here. */
const WITH_TASKS_PER_THREAD: readonly ContenderName[] = [
  'piscinaConfigured',
  'tinypoolConfigured',
  'poolifierConfigured',
];
const TASKS_PER_THREAD = [1, 64] as const;
const mixed: readonly Trial[] = [
  { contender: 'changeover' },
  ...peerNames.flatMap((contender): Trial[] =>
    WITH_TASKS_PER_THREAD.includes(contender)
      ? TASKS_PER_THREAD.map((tasksPerThread) => ({ contender, tasksPerThread }))
      : [{ contender }],
  ),
  { contender: 'koffiAsync' },
];

export const scaling: Question = {
  name: 'scaling',
  question:
    'Do two lanes do twice the work of one, and do short requests suffer from long ones beside them?',
  predicted:
    'At least 1.9 times, with the main thread as free as when idle. Short ones wait for long ones only in pools that queue at the worker.',
  rounds: 2,
  trials: () => [
    ...LANES.flatMap((lanes) => scaled.map((contender) => ({ part: 'cpu', contender, lanes }))),
    ...mixed.map((trial) => ({ part: 'mixed', ...trial, lanes: MIXED_LANES })),
  ],
  measure: async (trial, mode): Promise<Measurement> => {
    const tasksPerThread = trial['tasksPerThread'] as number | undefined;
    const lanes = trial['lanes'] as number;
    const contender = await startContender(trial['contender'] as ContenderName, {
      threads: lanes,
      ...(tasksPerThread === undefined ? {} : { tasksPerThread }),
    });
    const measurement =
      trial['part'] === 'cpu'
        ? await measureWork(contender, lanes, mode)
        : await measureMixed(contender, mode);
    await contender.close();
    return measurement;
  },
  compared: [
    {
      trial: { part: 'cpu', contender: 'changeover', lanes: 2 },
      figures: [
        { key: 'perSecond', label: `${WORK_MS} ms of CPU time, two lanes, /s`, better: 'higher' },
      ],
    },
    {
      trial: { part: 'mixed', contender: 'changeover', lanes: MIXED_LANES },
      figures: [
        { key: 'shortP50Ms', label: 'short beside long, p50, ms', better: 'lower' },
        { key: 'shortP99Ms', label: 'short beside long, p99, ms', better: 'lower' },
      ],
    },
  ],
  answer: (results) => ({
    tables: [workTable(results), mixedTable(results)],
    plots: [
      {
        name: 'scaling-by-lanes',
        title: `Requests of ${WORK_MS} ms CPU time a second, by number of lanes`,
        caption: 'The work is the cores’: twice the lanes do twice of it.',
        kind: 'bar',
        x: { label: 'lanes', scale: 'category', categories: LANES.map(String) },
        y: { label: 'requests a second' },
        series: scaled.map((contender) => ({
          name: contenders[contender].label,
          role: contenders[contender].role,
          points: LANES.map((lanes) => [
            String(lanes),
            results.median({ part: 'cpu', contender, lanes }, 'perSecond'),
          ]),
        })),
      },
      {
        name: 'short-beside-long',
        title: `p99 of ${SHORT_MS} ms requests beside ${LONG_MS} ms ones, two lanes, ${LOAD * 100} % load`,
        caption:
          'Where a worker has a queue of its own, short requests wait for the long one before them.',
        kind: 'bar',
        x: { label: '', scale: 'category', categories: mixed.map(labelOf) },
        y: { label: 'p99 of short requests, ms', scale: 'log' },
        series: (['engine', 'peer', 'koffi'] as const).map((role) => ({
          name: { engine: 'changeover', peer: 'pools', koffi: 'koffi .async' }[role],
          role,
          points: mixed
            .filter((trial) => contenders[trial['contender'] as ContenderName].role === role)
            .map((trial) => [labelOf(trial), shortP99(results, trial)]),
        })),
      },
    ],
    levels: [
      {
        what: `${WORK_MS} ms of CPU time, two lanes, of one lane`,
        value:
          results.median({ part: 'cpu', contender: 'changeover', lanes: 2 }, 'perSecond') /
          results.median({ part: 'cpu', contender: 'changeover', lanes: 1 }, 'perSecond'),
        atLeast: 1.9,
        unit: 'x',
      },
      {
        what: 'event-loop delay p99 with two lanes at work, above idle',
        value: results.median(
          { part: 'cpu', contender: 'changeover', lanes: 2 },
          'addedDelayP99Ms',
        ),
        atMost: 2,
        unit: 'ms',
      },
      {
        what: 'p99 of short requests beside long ones, of the best pool, configured or not',
        value:
          shortP99(results, { contender: 'changeover' }) /
          Math.min(
            ...mixed
              .filter((trial) => contenders[trial['contender'] as ContenderName].role === 'peer')
              .map((trial) => shortP99(results, trial))
              .filter((value) => !Number.isNaN(value)),
          ),
        atMost: 1,
        unit: 'x',
      },
    ],
  }),
};

async function measureWork(contender: Contender, lanes: number, mode: Mode): Promise<Measurement> {
  const durationMs = { full: 700, short: 250, quick: 60 }[mode];
  const idle = watchEventLoop();
  await new Promise((resolve) => setTimeout(resolve, durationMs / 2));
  const { loopDelayP99Ms: idleDelayP99Ms } = idle();
  const { perSecond, loopDelayP99Ms, loopBusy } = await throughput(contender, {
    request: makeRequest(REQUEST_BYTES, WORK_MS * 1000),
    outstanding: 2 * lanes,
    durationMs,
    warmUpMs: durationMs / 4,
  });
  const addedDelayP99Ms = loopDelayP99Ms - idleDelayP99Ms;
  return { perSecond, idleDelayP99Ms, loopDelayP99Ms, addedDelayP99Ms, loopBusy };
}

async function measureMixed(contender: Contender, mode: Mode): Promise<Measurement> {
  const short = makeRequest(REQUEST_BYTES, SHORT_MS * 1000);
  const long = makeRequest(REQUEST_BYTES, LONG_MS * 1000);
  // The first in the middle of the first stretch, so that the warm-up has one too.
  const isLong = (index: number) => index % LONG_EVERY === LONG_EVERY >> 1;
  const histogram = () => build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  const [shorts, longs] = [histogram(), histogram()];
  const warmUpMs = mode === 'quick' ? 50 : 500;
  const { loop } = await openLoop(contender, {
    ratePerSecond: RATE,
    durationMs: { full: 4000, short: 2000, quick: 450 }[mode],
    warmUpMs,
    // Sleeps between sends: a sender that polls would take a core from the lanes.
    pacing: 'timer',
    request: (index) => (isLong(index) ? long : short),
    settled: ({ index, intendedMs, latencyMs, error }) => {
      if (error !== undefined) throw error;
      if (intendedMs < warmUpMs) return;
      (isLong(index) ? longs : shorts).recordValue(Math.max(1, Math.round(latencyMs * 1e6)));
    },
  });
  const { p50Us, p90Us, p99Us, maxUs } = latencyReport(shorts);
  return {
    shortP50Ms: p50Us / 1000,
    shortP90Ms: p90Us / 1000,
    shortP99Ms: p99Us / 1000,
    shortMaxMs: maxUs / 1000,
    longP50Ms: latencyReport(longs).p50Us / 1000,
    loopDelayP99Ms: loop.loopDelayP99Ms,
    loopBusy: loop.loopBusy,
  };
}

/** A trial without `tasksPerThread` would match all of its contender; where it matters, all have it. */
function shortP99(results: Results, trial: Trial): number {
  return results.median({ part: 'mixed', ...trial }, 'shortP99Ms');
}

function labelOf(trial: Trial): string {
  const { label } = contenders[trial['contender'] as ContenderName];
  const tasks = trial['tasksPerThread'];
  if (tasks === undefined) return label;
  return `${label}, ${tasks} task${tasks === 1 ? '' : 's'} a worker`;
}

function workTable(results: Results): Table {
  return {
    title: `Requests of ${WORK_MS} ms CPU time, two outstanding for each lane`,
    columns: [
      '',
      ...LANES.map((lanes) => `${lanes} lane${lanes === 1 ? '' : 's'}, /s`),
      'ratio',
      'loop delay p99 idle, ms',
      'two lanes at work, ms',
      'main thread busy, %',
    ],
    rows: scaled.map((contender) => {
      const trial = (lanes: number) => ({ part: 'cpu', contender, lanes });
      const median = (lanes: number, key: string) => results.median(trial(lanes), key);
      return [
        contenders[contender].label,
        ...LANES.map((lanes) => withSpread(results.spread(trial(lanes), 'perSecond'))),
        `${amount(median(2, 'perSecond') / median(1, 'perSecond'))}x`,
        amount(median(2, 'idleDelayP99Ms')),
        amount(median(2, 'loopDelayP99Ms')),
        amount(median(2, 'loopBusy') * 100),
      ];
    }),
    note: 'koffi .async has as many threads in libuv’s pool as the others have lanes.',
  };
}

function mixedTable(results: Results): Table {
  return {
    title: `${SHORT_MS} ms requests beside ${LONG_MS} ms ones (1 in ${LONG_EVERY}), two lanes, ${LOAD * 100} % load, ms`,
    columns: ['', 'short p50', 'short p90', 'short p99', 'short max', 'long p50', 'main busy, %'],
    rows: mixed.map((trial) => {
      const part = { part: 'mixed', ...trial };
      return [
        labelOf(trial),
        ...['shortP50Ms', 'shortP90Ms', 'shortP99Ms', 'shortMaxMs', 'longP50Ms'].map((key) =>
          withSpread(results.spread(part, key)),
        ),
        amount(results.median(part, 'loopBusy') * 100),
      ];
    }),
    note: `From the intended start. ${amount(RATE)} requests a second, the same arrivals for everyone. Long ones come about ${LONG_EVERY_MS} ms apart and take two thirds of a lane, short ones almost three quarters: there is always a lane for them.`,
  };
}
