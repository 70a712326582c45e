/**
 * Question: how long does `stats()` hold the event loop, and what do the figures it tells take?
 *
 * Predicted: a few microseconds per version, nearly all of it percentiles: under 2 ms with 200 endpoints. A version has up to
 * eighteen histograms, of which only the octaves that occur have memory: some 40 KiB.
 *
 * 2,000 endpoints do not fit a machine: there, stand-ins have a version's ring and latencies and nothing that runs.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { HandlerRegistry } from '../src/index.js';
import { LatencyRecorder } from '../src/latency.js';
import { RingProducer } from '../src/ring/producer.js';
import type { Measurement, Mode, Question, Results, Table } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { withSpread } from './harness/text.js';
import { buildNative, workLibrary } from './native/library.js';

const ENDPOINTS = { kind: 'endpoints', count: 200 };
const STAND_INS = { kind: 'stand-ins', count: 2000 };
const QUICK_COUNT = 5;
const CALLS = 50;
const REQUESTS = 20;
const REQUEST_BYTES = 64;
/** Durations that the stand-ins have counted in each of a minute's seconds: from 5 microseconds to 5 ms. */
const DURATIONS_MS = Array.from({ length: 100 }, (_, index) => 0.005 * 1.0715 ** index);
const SECONDS = 60;

export const stats: Question = {
  name: 'stats',
  question: 'How long does stats() hold the event loop?',
  predicted:
    'A few microseconds per version: under 2 ms with 200 endpoints, under 20 ms with 2,000.',
  rounds: 3,
  trials: () => [ENDPOINTS, STAND_INS],
  measure: (trial, mode) =>
    trial['kind'] === 'endpoints' ? measureEndpoints(mode) : Promise.resolve(measureStandIns(mode)),
  compared: [ENDPOINTS, STAND_INS].map((trial) => ({
    trial,
    figures: [
      { key: 'medianMs', label: `stats() of ${trial.count} ${trial.kind}, ms`, better: 'lower' },
    ],
  })),
  answer: (results) => ({
    tables: [tableOf(results)],
    plots: [],
    levels: [
      level('stats() of 200 endpoints', results.median(ENDPOINTS, 'medianMs'), 2),
      level('stats() of 2,000 stand-ins', results.median(STAND_INS, 'medianMs'), 20),
    ],
  }),
};

function level(what: string, value: number, atMost: number) {
  return { what, value, atMost, unit: 'ms' };
}

async function measureEndpoints(mode: Mode): Promise<Measurement> {
  await buildNative();
  const cacheDir = await mkdtemp(join(tmpdir(), 'changeover-bench-'));
  const registry = new HandlerRegistry({ cacheDir, threads: 1, preflight: false });
  try {
    const count = mode === 'quick' ? QUICK_COUNT : ENDPOINTS.count;
    const ids = Array.from({ length: count }, (_, index) => `e${index}`);
    await Promise.all(ids.map((id) => registry.loadFrom(id, workLibrary)));
    const request = makeRequest(REQUEST_BYTES);
    for (let round = 0; round < REQUESTS; round++) {
      await Promise.all(ids.map((id) => registry.execute(id, undefined, request)));
    }
    return measureCalls(() => registry.stats());
  } finally {
    await registry.close();
    await rm(cacheDir, { recursive: true });
  }
}

function measureStandIns(mode: Mode): Measurement {
  const count = mode === 'quick' ? QUICK_COUNT : STAND_INS.count;
  const standIns = Array.from({ length: count }, () => {
    const latencies = { queue: new LatencyRecorder(), run: new LatencyRecorder() };
    for (let second = 0; second < SECONDS; second++) {
      for (const each of DURATIONS_MS) {
        for (const recorder of Object.values(latencies)) recorder.record(each, second * 1000);
      }
    }
    return { ring: new RingProducer({ slots: 32, lanes: 1 }), ...latencies };
  });
  // In the last of the seconds, so that the newest ten are still counted apart.
  const nowMs = SECONDS * 1000 - 500;
  const measurement = measureCalls(() =>
    standIns.map(({ ring, queue, run }) => ({
      activeRequests: ring.inFlight,
      latency: { queue: queue.stats(nowMs), run: run.stats(nowMs) },
    })),
  );
  const [first] = standIns;
  const bytes = (first?.queue.byteLength ?? 0) + (first?.run.byteLength ?? 0);
  return { ...measurement, histogramKiB: bytes / 1024 };
}

function measureCalls(call: () => unknown): Measurement {
  const timesMs = Array.from({ length: CALLS }, () => {
    const startedMs = performance.now();
    call();
    return performance.now() - startedMs;
  });
  const sorted = [...timesMs].sort((a, b) => a - b);
  const medianMs = sorted[CALLS >> 1] ?? Number.NaN;
  return { firstMs: timesMs[0] ?? Number.NaN, medianMs, maxMs: sorted.at(-1) ?? Number.NaN };
}

function tableOf(results: Results): Table {
  const columns = ['medianMs', 'firstMs', 'maxMs'];
  const row = (trial: typeof ENDPOINTS, name: string, last: string) => [
    name,
    ...columns.map((key) => withSpread(results.spread(trial, key))),
    last,
  ];
  const kept = withSpread(results.spread(STAND_INS, 'histogramKiB'));
  return {
    title: 'One call of stats()',
    columns: ['', 'p50, ms', 'first, ms', 'longest, ms', 'histograms of a version, KiB'],
    rows: [row(ENDPOINTS, '200 endpoints', '-'), row(STAND_INS, '2,000 stand-ins', kept)],
    note: 'The stand-ins have counted durations from 5 microseconds to 5 ms for a minute; all bins would be 288 KiB.',
  };
}
