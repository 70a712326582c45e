/**
 * Question: how many 128-byte requests a second does one lane answer, and how long does one take alone?
 *
 * Predicted: dispatch through shared memory costs the main thread about a microsecond, where a pool that posts messages
 * costs it ten to fifty. So with 64 or 1,024 outstanding the engine does at least 40 times Piscina's throughput and 8 times
 * that of the best configured pool. Alone it takes a third of the best pool's time, because two thread wake-ups are left and
 * nothing else.
 */

import { build } from 'hdr-histogram-js';
import {
  type ContenderName,
  contenderNames,
  contenders,
  peerNames,
  startContender,
} from './contenders/index.js';
import { pingPong } from './contenders/ping-pong.js';
import { alone, throughput as throughputOf } from './harness/closed-loop.js';
import { latencyReport } from './harness/latency-report.js';
import type { Plot, PlotSeries } from './harness/plot.js';
import type { Level, Measurement, Question, Results, Table, Trial } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount, withSpread } from './harness/text.js';
import { bindWork, buildNative } from './native/library.js';

const REQUEST_BYTES = 128;
const OUTSTANDING = [64, 1024] as const;

const DURATION_MS = { full: 500, short: 150, quick: 50 };

const LIMITS = {
  directLoop: 'limit: direct call in a bare loop',
  pingPongSleep: 'limit: two threads, sleeping',
  pingPongSpin: 'limit: two threads, spinning',
} as const;

type LimitName = keyof typeof LIMITS;

export const throughput: Question = {
  name: 'throughput',
  question: `How many ${REQUEST_BYTES}-byte requests a second does one lane answer, and how long does one take alone?`,
  predicted:
    'At least 40 times Piscina and 8 times the best configured pool with 64 or 1,024 outstanding; alone at most 0.4 of the best pool.',
  rounds: 3,
  trials: () => [
    ...contenderNames.map((contender) => ({ contender })),
    ...Object.keys(LIMITS).map((limit) => ({ limit })),
  ],
  measure: (trial, mode) => {
    const durationMs = DURATION_MS[mode];
    return 'limit' in trial
      ? measureLimit(trial['limit'] as LimitName, durationMs)
      : measureContender(trial['contender'] as ContenderName, durationMs);
  },
  compared: [
    {
      trial: { contender: 'changeover' },
      figures: OUTSTANDING.map((count) => ({
        key: `perSecond${count}`,
        label: `${count} outstanding, /s`,
        better: 'higher',
      })),
    },
  ],
  answer: (results) => ({
    headline: headlineOf(results),
    tables: [tableOf(results)],
    plots: [plotOf(results)],
    levels: levelsOf(results),
  }),
};

function headlineOf(results: Results): string {
  const count = OUTSTANDING[0];
  const rate = (name: string) => results.median({ contender: name }, `perSecond${count}`);
  const engine = rate('changeover');
  const best = Math.max(...peerNames.map(rate));
  const us = (name: string) => results.median({ contender: name }, 'aloneP50Us');
  return (
    `With ${count} requests outstanding one lane answers ${amount(engine)} a second: ${amount(engine / rate('piscina'))} times Piscina as it comes, ` +
    `${amount(engine / best)} times the best configured pool, ${amount(engine / rate('koffiOnMain'))} times calling directly and blocking the main thread; ` +
    `alone a request takes ${amount(us('changeover'))} µs, ${amount(us('piscina'))} µs with Piscina.`
  );
}

function plotOf(results: Results): Plot {
  const [few] = OUTSTANDING;
  const rate = (name: ContenderName) => results.median({ contender: name }, `perSecond${few}`);
  const best = Math.max(...peerNames.map(rate));
  const columns = OUTSTANDING.map((count) => ({
    key: `perSecond${count}`,
    category: `${count} outstanding, requests a second`,
  }));
  return {
    name: 'throughput',
    title: `One lane answers ${amount(rate('changeover'))} requests a second: ${amount(rate('changeover') / best)} times the best pool`,
    caption: `${REQUEST_BYTES}-byte echo through one worker thread; longer is better. Dashed: the direct call in a loop, which no thread can beat.`,
    kind: 'bar',
    x: { label: '', scale: 'category', categories: columns.map(({ category }) => category) },
    y: { label: 'requests a second' },
    series: rowsOf(results).map(({ label, role, trial }) => ({
      name: label.replace(/^limit: /, ''),
      role,
      points: columns.map(({ key, category }) => [category, results.median(trial, key)]),
    })),
  };
}

async function measureContender(name: ContenderName, durationMs: number): Promise<Measurement> {
  const contender = await startContender(name, { threads: 1 });
  const request = makeRequest(REQUEST_BYTES);
  const measurement: Measurement = {};
  const { p50Us, p99Us } = await alone(contender, { request, durationMs });
  measurement['aloneP50Us'] = p50Us;
  measurement['aloneP99Us'] = p99Us;
  for (const outstanding of OUTSTANDING) {
    const { perSecond, loopDelayP99Ms } = await throughputOf(contender, {
      request,
      outstanding,
      durationMs,
    });
    measurement[`perSecond${outstanding}`] = perSecond;
    measurement[`loopDelayP99Ms${outstanding}`] = loopDelayP99Ms;
  }
  await contender.close();
  return measurement;
}

async function measureLimit(name: LimitName, durationMs: number): Promise<Measurement> {
  if (name === 'directLoop') {
    await buildNative();
    const perSecond = directCallsPerSecond(durationMs);
    return Object.fromEntries(OUTSTANDING.map((count) => [`perSecond${count}`, perSecond]));
  }
  const histogram = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  await pingPong(name === 'pingPongSpin' ? 'spin' : 'sleep', durationMs, (ns) =>
    histogram.recordValue(ns),
  );
  const { p50Us, p99Us } = latencyReport(histogram);
  return { aloneP50Us: p50Us, aloneP99Us: p99Us };
}

/** Nothing between two calls but the check of the answer: no promise, no event loop. */
function directCallsPerSecond(durationMs: number): number {
  const work = bindWork();
  const request = makeRequest(REQUEST_BYTES);
  const loop = (forMs: number) => {
    const startedMs = performance.now();
    let done = 0;
    while ((done & 1023) !== 0 || performance.now() - startedMs < forMs) {
      if (work(request)[REQUEST_BYTES - 1] !== request[REQUEST_BYTES - 1]) {
        throw new Error('the response is not the request');
      }
      done += 1;
    }
    return (done / (performance.now() - startedMs)) * 1000;
  };
  loop(durationMs / 2);
  return loop(durationMs);
}

interface Row {
  label: string;
  role: PlotSeries['role'];
  trial: Trial;
}

function rowsOf(results: Results): Row[] {
  return [
    ...results
      .values<ContenderName>('contender')
      .map((contender) => ({ ...contenders[contender], trial: { contender } })),
    ...results
      .values<LimitName>('limit')
      .map((limit) => ({ label: LIMITS[limit], role: 'limit' as const, trial: { limit } })),
  ];
}

function tableOf(results: Results): Table {
  const piscina = (key: string) => results.median({ contender: 'piscina' }, key);
  return {
    title: `${REQUEST_BYTES}-byte echo, one lane`,
    columns: [
      '',
      ...OUTSTANDING.flatMap((count) => [
        `${count} outstanding, /s`,
        'of Piscina',
        'loop delay p99, ms',
      ]),
      'alone p50, µs',
      'alone p99, µs',
    ],
    rows: rowsOf(results).map(({ label, trial }) => [
      label,
      ...OUTSTANDING.flatMap((count) => {
        const key = `perSecond${count}`;
        const spread = results.spread(trial, key);
        if (spread === null) return ['', '', ''];
        return [
          withSpread(spread),
          `${amount(spread.median / piscina(key))}x`,
          amount(results.median(trial, `loopDelayP99Ms${count}`)),
        ];
      }),
      ...['aloneP50Us', 'aloneP99Us'].map((key) => {
        const spread = results.spread(trial, key);
        return spread === null ? '' : withSpread(spread);
      }),
    ]),
    note: 'koffi on main is awaited like everyone else; the bare loop is the same call without a promise. Medians, with the lowest and highest round.',
  };
}

function levelsOf(results: Results): Level[] {
  const rate = (contender: string, count: number) =>
    results.median({ contender }, `perSecond${count}`);
  const aloneOf = (trial: Trial) => results.median(trial, 'aloneP50Us');
  const engineAlone = aloneOf({ contender: 'changeover' });
  return [
    ...OUTSTANDING.flatMap((count) => {
      const engine = rate('changeover', count);
      const what = `${count} outstanding`;
      return [
        {
          what: `${what}, of Piscina`,
          value: engine / rate('piscina', count),
          atLeast: 40,
          unit: 'x',
        },
        {
          what: `${what}, of the best pool, configured or not`,
          value: engine / Math.max(...peerNames.map((peer) => rate(peer, count))),
          atLeast: 8,
          unit: 'x',
        },
        {
          what: `${what}, of the direct call, awaited`,
          value: engine / rate('koffiOnMain', count),
          atLeast: 0.7,
          unit: 'x',
        },
      ];
    }),
    {
      what: 'alone, of the best pool',
      value: engineAlone / Math.min(...peerNames.map((contender) => aloneOf({ contender }))),
      atMost: 0.4,
      unit: 'x',
    },
    {
      what: 'alone, of two threads that sleep',
      value: engineAlone / aloneOf({ limit: 'pingPongSleep' }),
      atMost: 1.5,
      unit: 'x',
    },
  ];
}
