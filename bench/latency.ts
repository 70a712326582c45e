/**
 * Question: how long do requests take at a given load, and how busy is the main thread?
 *
 * Predicted: up to a load that a pool cannot carry, its latency is its time alone; from there on its queue grows for as long as
 * the load lasts. Pools that post messages reach that point between 20,000 and 50,000 requests a second; the engine beyond 200,000.
 * At 100,000 a second the engine's main thread is less than 40 % busy.
 */

import { type ContenderName, contenders, peerNames, startContender } from './contenders/index.js';
import { alone, throughput } from './harness/closed-loop.js';
import { openLoop } from './harness/open-loop.js';
import type { Plot } from './harness/plot.js';
import type { Measurement, Question, Results, Table } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount } from './harness/text.js';
import { short } from './harness/units.js';

const REQUEST_BYTES = 128;
const RATES = [1_000, 10_000, 20_000, 50_000, 100_000, 200_000] as const;
const QUICK_RATES = [10_000] as const;
/** The load at which the main thread's business is looked at, and with which number of lanes. */
const BUSY_RATE = 100_000;
const BUSY_LANES = [1, 2] as const;
const DURATION_MS = { full: 1000, short: 300, quick: 100 };

const measured: readonly ContenderName[] = ['changeover', ...peerNames, 'koffiAsync'];
/** Beyond this most pools only pile up requests. */
const HIGHEST_PEER_RATE = 50_000;

export const latency: Question = {
  name: 'latency',
  question: 'How long do requests take at a given load, and how busy is the main thread?',
  predicted:
    'Flat up to a knee: beyond 200,000 a second for the engine, 20,000 to 50,000 for pools that post messages. Main thread below 40 % busy at 100,000 a second.',
  rounds: 2,
  trials: (mode) => [
    ...(mode === 'quick' ? QUICK_RATES : RATES).flatMap((rate) =>
      measured
        .filter((contender) => contender === 'changeover' || rate <= HIGHEST_PEER_RATE)
        .map((contender) => ({ contender, rate, lanes: 1, pacing: 'poll' })),
    ),
    ...BUSY_LANES.map((lanes) => ({
      contender: 'changeover',
      rate: BUSY_RATE,
      lanes,
      pacing: 'timer',
    })),
    { contender: 'piscina', rate: 10_000, lanes: 1, pacing: 'timer' },
    { contender: 'changeover', rate: 10_000, lanes: 1, pacing: 'timer' },
  ],
  measure: async (trial, mode): Promise<Measurement> => {
    const contender = await startContender(trial['contender'] as ContenderName, {
      threads: trial['lanes'] as number,
    });
    const request = makeRequest(REQUEST_BYTES);
    const durationMs = DURATION_MS[mode];
    // A slow load would be measured before the code is compiled.
    await throughput(contender, { request, outstanding: 16, durationMs: durationMs / 4 });
    if (trial['pacing'] === 'alone') {
      const { p50Us, p99Us } = await alone(contender, { request, durationMs });
      await contender.close();
      return { p50Us, p99Us };
    }
    const report = await openLoop(contender, {
      ratePerSecond: trial['rate'] as number,
      durationMs,
      warmUpMs: durationMs / 4,
      pacing: trial['pacing'] as 'poll' | 'timer',
      request: () => request,
    });
    await contender.close();
    const rejected = [...report.errors.values()].reduce((sum, count) => sum + count, 0);
    return { ...report.latency, ...report.loop, perSecond: report.perSecond, rejected };
  },
  compared: [
    {
      trial: { contender: 'changeover', lanes: 1, pacing: 'alone' },
      figures: [
        { key: 'p50Us', label: 'alone p50, µs', better: 'lower' },
        { key: 'p99Us', label: 'alone p99, µs', better: 'lower' },
      ],
    },
    {
      trial: { contender: 'changeover', rate: BUSY_RATE, lanes: 1, pacing: 'timer' },
      figures: [
        {
          key: 'loopBusy',
          label: `main thread busy at ${amount(BUSY_RATE)}/s, share of the time`,
          better: 'lower',
        },
      ],
    },
  ],
  answer: (results) => ({
    headline: `At 100,000 requests a second the main thread is busy for ${amount(busy(results, 1))} % of the time with one lane.`,
    tables: [latencyTable(results), busyTable(results)],
    plots: [plotOf(results)],
    levels: BUSY_LANES.map((lanes) => ({
      what: `main thread busy at 100,000 a second, ${lanes} lane${lanes === 1 ? '' : 's'}`,
      value: busy(results, lanes),
      atMost: 40,
      unit: '%',
    })),
  }),
};

/** In percent of the time. */
function busy(results: Results, lanes: number): number {
  const trial = { contender: 'changeover', rate: BUSY_RATE, pacing: 'timer', lanes };
  return results.median(trial, 'loopBusy') * 100;
}

/** A pool whose 99th percentile is longer than this does not carry the load: its queue grows. */
const CARRIED_P99_US = 20_000;

/** The highest load that a contender carries. */
function carried(results: Results, contender: ContenderName): number {
  const rates = results.values<number>('rate', { contender, pacing: 'poll' });
  const p99Us = (rate: number) => results.median({ contender, rate, pacing: 'poll' }, 'p99Us');
  return Math.max(0, ...rates.filter((rate) => p99Us(rate) <= CARRIED_P99_US));
}

function plotOf(results: Results): Plot {
  const peers = Math.max(...peerNames.map((peer) => carried(results, peer)));
  return {
    name: 'latency-by-load',
    title: `The engine keeps its latency up to ${short(carried(results, 'changeover'))} requests a second, the best pool up to ${short(peers)}`,
    caption: `99th percentile from the intended start, ${REQUEST_BYTES}-byte echo, one lane. Beyond what a pool can carry, its queue grows for as long as the load lasts.`,
    kind: 'line',
    x: { label: 'offered requests a second', scale: 'log' },
    y: { label: 'p99 latency', scale: 'log', unit: 'us' },
    series: results.values<ContenderName>('contender', { pacing: 'poll' }).map((contender) => ({
      name: contenders[contender].label,
      role: contenders[contender].role,
      points: results
        .values<number>('rate', { contender, pacing: 'poll' })
        .map((rate) => [rate, results.median({ contender, rate, pacing: 'poll' }, 'p99Us')]),
    })),
  };
}

function latencyTable(results: Results): Table {
  return {
    title: `Latency from the intended start, ${REQUEST_BYTES}-byte echo, one lane: p50 / p99 / p99.9, µs`,
    columns: ['', ...RATES.map((rate) => `${amount(rate)}/s`)],
    rows: results.values<ContenderName>('contender', { pacing: 'poll' }).map((contender) => [
      contenders[contender].label,
      ...RATES.map((rate) => {
        const trial = { contender, rate, pacing: 'poll' };
        if (results.spread(trial, 'p50Us') === null) return '';
        return ['p50Us', 'p99Us', 'p999Us']
          .map((key) => amount(results.median(trial, key)))
          .join(' / ');
      }),
    ]),
    note: 'Arrivals are a Poisson process. The sender looks at the clock in every turn of the event loop.',
  };
}

function busyTable(results: Results): Table {
  return {
    title: 'The main thread under load, requests sent by a timer',
    columns: [
      '',
      'lanes',
      'offered, /s',
      'answered, /s',
      'busy, %',
      'loop delay p50, ms',
      'loop delay p99, ms',
    ],
    rows: results
      .trials({ pacing: 'timer' })
      .map((trial) => [
        contenders[trial['contender'] as ContenderName].label,
        String(trial['lanes']),
        amount(trial['rate'] as number),
        amount(results.median(trial, 'perSecond')),
        amount(results.median(trial, 'loopBusy') * 100),
        amount(results.median(trial, 'loopDelayP50Ms')),
        amount(results.median(trial, 'loopDelayP99Ms')),
      ]),
  };
}
