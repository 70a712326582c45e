/**
 * Question: what happens when three times as many requests come as can be served?
 *
 * Predicted: the engine goes on at its capacity, because shedding costs the main thread next to nothing: goodput stays above 95 %,
 * rejections take microseconds, memory stays where its limits put it, and once the load is gone the queue is worked off in well
 * under a second.
 */

import { build } from 'hdr-histogram-js';
import { type ContenderName, contenders, startContender } from './contenders/index.js';
import { throughput } from './harness/closed-loop.js';
import { latencyReport } from './harness/latency-report.js';
import { type Outcome, openLoop } from './harness/open-loop.js';
import type { Measurement, Question, Results, Table } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount, withSpread } from './harness/text.js';
import { bucketed } from './harness/timeline.js';

const REQUEST_BYTES = 128;
/** A short native call, so that much of the work is dispatch. */
const CALL_US = 100;
const FACTOR = 3;
/** As many as the engine holds by default, so that every pool queues as long. */
const MAX_QUEUE = 4096;
const BUCKET_MS = 500;

const measured: readonly ContenderName[] = [
  'changeover',
  'piscina',
  'piscinaConfigured',
  'workerpool',
];

export const overload: Question = {
  name: 'overload',
  question: `What happens when ${FACTOR} times as many requests come as can be served?`,
  predicted:
    'Goodput at least 95 % of capacity, rejections in microseconds, memory flat, and the queue worked off in less than a second.',
  rounds: 1,
  trials: () => measured.map((contender) => ({ contender })),
  measure: async (trial, mode) => {
    const name = trial['contender'] as ContenderName;
    // The level is about a minute; peers show in ten seconds how they fare.
    const fullS = name === 'changeover' ? 60 : 10;
    return overloaded(name, { full: fullS, short: 1, quick: 0.3 }[mode]);
  },
  compared: [
    {
      trial: { contender: 'changeover' },
      figures: [
        { key: 'capacity', label: `calls of ${CALL_US} µs, /s`, better: 'higher' },
        { key: 'goodput', label: 'answered under overload, of capacity', better: 'higher' },
        { key: 'rejectP50Ms', label: 'rejected after, p50, ms', better: 'lower' },
      ],
    },
  ],
  answer: (results) => {
    const engine = { contender: 'changeover' };
    const served = `${amount(results.median(engine, 'goodput') * 100)} % of capacity`;
    return {
      headline: `With ${FACTOR} times the capacity offered, ${served} goes on being served, and the rest is refused after ${amount(results.median(engine, 'rejectP99Ms'))} ms (p99).`,
      tables: [tableOf(results)],
      plots: [
        {
          name: 'overload',
          title: `${FACTOR} times the capacity offered: the engine goes on serving ${served}`,
          caption: `Answered requests as a share of what the same contender can do, calls of ${CALL_US} µs, one lane, queues of ${MAX_QUEUE}. Peers are loaded for ten seconds, the engine for a minute.`,
          kind: 'line',
          x: { label: 'time since the overload began', unit: 's' },
          y: { label: 'answered, of capacity', unit: '%' },
          series: measured.map((contender) => ({
            name: contenders[contender].label,
            role: contenders[contender].role,
            points: results
              .series({ contender }, 'answeredShare')
              .map((share, index) => [((index + 0.5) * BUCKET_MS) / 1000, share * 100]),
          })),
        },
      ],
      levels: [
        {
          what: 'goodput of capacity',
          value: results.median(engine, 'goodput') * 100,
          atLeast: 95,
          unit: '%',
        },
        {
          what: 'rejected after, p99',
          value: results.median(engine, 'rejectP99Ms'),
          atMost: 1,
          unit: 'ms',
        },
        {
          what: 'served as before after',
          value: results.median(engine, 'recoveryMs'),
          atMost: 1000,
          unit: 'ms',
        },
        {
          what: 'memory grown during the second half',
          value: results.median(engine, 'grownMiB'),
          atMost: 8,
          unit: 'MiB',
        },
      ],
    };
  },
};

async function overloaded(name: ContenderName, seconds: number): Promise<Measurement> {
  const contender = await startContender(name, { threads: 1, maxQueue: MAX_QUEUE });
  const request = makeRequest(REQUEST_BYTES, CALL_US);
  const durationMs = seconds * 1000;
  const calibrationMs = Math.min(2000, durationMs);
  const { perSecond: capacity } = await throughput(contender, {
    request,
    outstanding: 64,
    durationMs: calibrationMs,
  });
  const rejected = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  const answers = bucketed(BUCKET_MS, durationMs);
  let answeredInTime = 0;
  let lastAnswerMs = 0;
  const settled = ({ intendedMs, latencyMs, sinceSentMs, error }: Outcome) => {
    const atMs = intendedMs + latencyMs;
    if (error !== undefined) {
      rejected.recordValue(Math.max(1, Math.round(sinceSentMs * 1e6)));
      return;
    }
    answers.add(atMs);
    if (atMs <= durationMs) answeredInTime += 1;
    lastAnswerMs = atMs;
  };
  const memory = { halfMiB: 0, maxMiB: 0 };
  const startedMs = performance.now();
  const watching = setInterval(() => {
    const nowMiB = process.memoryUsage.rss() / 2 ** 20;
    memory.maxMiB = Math.max(memory.maxMiB, nowMiB);
    if (performance.now() - startedMs < durationMs / 2) memory.halfMiB = memory.maxMiB;
  }, 100);
  const report = await openLoop(contender, {
    ratePerSecond: capacity * FACTOR,
    durationMs,
    pacing: 'timer',
    request: () => request,
    settled,
  });
  clearInterval(watching);
  // The queue is empty now. That it serves as before is seen when it does.
  const { perSecond: capacityAfter } = await throughput(contender, {
    request,
    outstanding: 64,
    durationMs: calibrationMs,
    warmUpMs: 0,
  });
  await contender.close();
  return {
    capacity,
    capacityAfter,
    offered: (report.sent / durationMs) * 1000,
    goodput: answeredInTime / (durationMs / 1000) / capacity,
    rejectP50Ms: latencyReport(rejected).p50Us / 1000,
    rejectP99Ms: latencyReport(rejected).p99Us / 1000,
    recoveryMs: Math.max(0, lastAnswerMs - durationMs),
    answeredP99Ms: report.latency.p99Us / 1000,
    grownMiB: memory.maxMiB - memory.halfMiB,
    maxMiB: memory.maxMiB,
    loopDelayP99Ms: report.loop.loopDelayP99Ms,
    loopBusy: report.loop.loopBusy,
    answeredShare: answers.counts.map((count) => count / (BUCKET_MS / 1000) / capacity),
  };
}

function tableOf(results: Results): Table {
  return {
    title: `${FACTOR} times the capacity offered, calls of ${CALL_US} µs, one lane, queues of ${MAX_QUEUE}`,
    columns: [
      '',
      'capacity, /s',
      'offered, /s',
      'goodput, of capacity',
      'rejected after p50, ms',
      'p99, ms',
      'queue empty after, ms',
      'capacity afterwards, /s',
      'memory, most, MiB',
      'loop delay p99, ms',
      'main busy',
    ],
    rows: measured.map((contender) => [
      contenders[contender].label,
      ...[
        'capacity',
        'offered',
        'goodput',
        'rejectP50Ms',
        'rejectP99Ms',
        'recoveryMs',
        'capacityAfter',
        'maxMiB',
        'loopDelayP99Ms',
        'loopBusy',
      ].map((key) => withSpread(results.spread({ contender }, key))),
    ]),
    note: 'The engine for a minute, the others for ten seconds. Goodput counts what was answered while the overload lasted.',
  };
}
