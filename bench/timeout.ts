/**
 * Question: what does a timeout for each request cost, and what happens when one passes?
 *
 * Predicted: one timer serves all requests of a version, so a timeout costs the engine at most 1.3 times the time without; a
 * pool that needs an AbortSignal each pays several microseconds. When a timeout passes, the caller is told within a
 * millisecond or two. The engine's lane goes on once the native call has returned; pools that end the worker have to start
 * another one.
 */

import { build } from 'hdr-histogram-js';
import type { Contender } from './contenders/contender.js';
import { startEngine } from './contenders/engine.js';
import { type ContenderName, contenders, peerNames, startContender } from './contenders/index.js';
import { alone, throughput } from './harness/closed-loop.js';
import { latencyReport } from './harness/latency-report.js';
import type { Measurement, Question, Results, Table } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount, withSpread } from './harness/text.js';
import { buildNative } from './native/library.js';

const REQUEST_BYTES = 128;
const OUTSTANDING = 64;
/** Never reached. */
const FAR_TIMEOUT_MS = 60_000;
/** What is measured when a timeout passes: a call of 40 ms that may take 10. */
const CALL_US = 40_000;
const SHORT_TIMEOUT_MS = 10;

const DURATION_MS = { full: 250, short: 100, quick: 50 };

const measured: readonly ContenderName[] = ['changeover', ...peerNames];

export const timeout: Question = {
  name: 'timeout',
  question: 'What does a timeout for each request cost, and what happens when one passes?',
  predicted:
    'At most 1.3 times the time without for the engine; several microseconds for pools that need an AbortSignal each. Told within 2 ms; the next request is answered as soon as the late call has returned.',
  rounds: 3,
  trials: () => [
    ...measured.map((contender) => ({ contender, what: 'cost' })),
    ...measured.map((contender) => ({ contender, what: 'late' })),
  ],
  measure: async (trial, mode) => {
    const name = trial['contender'] as ContenderName;
    if (trial['what'] === 'late') return late(name, mode === 'quick' ? 1 : 4);
    return cost(name, DURATION_MS[mode]);
  },
  compared: [
    {
      trial: { contender: 'changeover', what: 'cost' },
      figures: [
        {
          key: 'perSecondTimed',
          label: `${OUTSTANDING} outstanding with a timeout each, /s`,
          better: 'higher',
        },
        { key: 'aloneTimedUs', label: 'alone with a timeout, p50, µs', better: 'lower' },
      ],
    },
  ],
  answer: (results) => ({
    tables: [costTable(results), lateTable(results)],
    plots: [],
    levels: [
      {
        what: `${OUTSTANDING} outstanding, time with a timeout each, of without`,
        value: results.median({ contender: 'changeover', what: 'cost' }, 'ratio'),
        atMost: 1.3,
        unit: 'x',
      },
      {
        what: 'alone, time with a timeout each, of without',
        value: results.median({ contender: 'changeover', what: 'cost' }, 'ratioAlone'),
        atMost: 1.3,
        unit: 'x',
      },
    ],
  }),
};

/** The engine has a default timeout; without means without any. */
async function startWithout(name: ContenderName): Promise<Contender> {
  if (name !== 'changeover') return startContender(name, { threads: 1 });
  await buildNative();
  return startEngine({ threads: 1 }, { defaultTimeoutMs: Number.POSITIVE_INFINITY });
}

async function cost(name: ContenderName, durationMs: number): Promise<Measurement> {
  const contender = await startWithout(name);
  const request = makeRequest(REQUEST_BYTES);
  const options = { timeoutMs: FAR_TIMEOUT_MS };
  const load = { request, outstanding: OUTSTANDING, durationMs };
  // In turn, and each twice, so that neither has the warmer process.
  const without: number[] = [];
  const withOne: number[] = [];
  const aloneWithout: number[] = [];
  const aloneWith: number[] = [];
  for (let turn = 0; turn < 2; turn++) {
    without.push((await throughput(contender, load)).perSecond);
    withOne.push((await throughput(contender, { ...load, options })).perSecond);
    aloneWithout.push((await alone(contender, { request, durationMs })).p50Us);
    aloneWith.push((await alone(contender, { request, durationMs, options })).p50Us);
  }
  await contender.close();
  const perSecond = Math.max(...without);
  const perSecondTimed = Math.max(...withOne);
  const aloneUs = Math.min(...aloneWithout);
  const aloneTimedUs = Math.min(...aloneWith);
  return {
    perSecond,
    perSecondTimed,
    ratio: perSecond / perSecondTimed,
    aloneUs,
    aloneTimedUs,
    ratioAlone: aloneTimedUs / aloneUs,
  };
}

/** Timeouts that pass while native code runs. */
async function late(name: ContenderName, times: number): Promise<Measurement> {
  const contender = await startContender(name, { threads: 1 });
  const long = makeRequest(REQUEST_BYTES, CALL_US);
  const short = makeRequest(REQUEST_BYTES);
  const told = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  const recovered = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  for (let time = 0; time < times; time++) {
    const startedMs = performance.now();
    const answered = await Promise.resolve(
      contender.call(long, { timeoutMs: SHORT_TIMEOUT_MS }),
    ).then(
      () => true,
      () => false,
    );
    if (answered) {
      await contender.close();
      return { ignored: 1 };
    }
    const toldMs = performance.now();
    told.recordValue(Math.max(1, (toldMs - startedMs - SHORT_TIMEOUT_MS) * 1e6));
    await contender.call(short);
    recovered.recordValue((performance.now() - toldMs) * 1e6);
  }
  await contender.close();
  return {
    lateMs: latencyReport(told).p50Us / 1000,
    nextMs: latencyReport(recovered).p50Us / 1000,
  };
}

function costTable(results: Results): Table {
  return {
    title: `What a timeout costs, ${REQUEST_BYTES}-byte echo, one lane`,
    columns: [
      '',
      'without, /s',
      'with one each, /s',
      'time, of without',
      'alone without, µs',
      'alone with, µs',
      'time, of without',
    ],
    rows: measured.map((contender) => [
      contenders[contender].label,
      ...['perSecond', 'perSecondTimed', 'ratio', 'aloneUs', 'aloneTimedUs', 'ratioAlone'].map(
        (key) => withSpread(results.spread({ contender, what: 'cost' }, key)),
      ),
    ]),
    note: `${OUTSTANDING} outstanding, then alone. Timeouts are never reached. Pools other than workerpool are given AbortSignal.timeout().`,
  };
}

function lateTable(results: Results): Table {
  const trial = (contender: ContenderName) => ({ contender, what: 'late' });
  return {
    title: `A native call of ${CALL_US / 1000} ms with a timeout of ${SHORT_TIMEOUT_MS} ms, one lane`,
    columns: ['', 'told late by, ms', 'next request answered after, ms'],
    rows: measured.map((contender) => [
      contenders[contender].label,
      ...['lateMs', 'nextMs'].map((key) =>
        results.spread(trial(contender), 'ignored') === null
          ? withSpread(results.spread(trial(contender), key))
          : 'never',
      ),
    ]),
    note: `The native call cannot be interrupted, so ${amount(CALL_US / 1000 - SHORT_TIMEOUT_MS)} ms are the least for the next request of a pool that waits for it. Never: the call was answered as if it had no timeout.`,
  };
}
