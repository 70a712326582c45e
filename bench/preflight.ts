/**
 * Question: what does pre-flight cost a load?
 *
 * Predicted: about 40 ms, the start of a Node process that imports koffi; the main thread is as free as without.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { build } from 'hdr-histogram-js';
import { HandlerRegistry } from '../src/index.js';
import { latencyReport } from './harness/latency-report.js';
import type { Measurement, Mode, Question, Results, Table } from './harness/question.js';
import { withSpread } from './harness/text.js';
import { buildNative, workLibrary } from './native/library.js';

const LOADS = { full: 100, short: 10, quick: 5 };
const WITH = { preflight: 'with' };
const WITHOUT = { preflight: 'without' };

export const preflight: Question = {
  name: 'preflight',
  question: 'What does pre-flight cost a load?',
  predicted:
    'About 40 ms, the start of a Node process that imports koffi; the main thread is as free as without.',
  rounds: 5,
  trials: () => [WITH, WITHOUT],
  measure: async (trial, mode) => {
    await buildNative();
    const cacheDir = await mkdtemp(join(tmpdir(), 'changeover-bench-'));
    try {
      return await measureLoads(cacheDir, trial['preflight'] === 'with', mode);
    } finally {
      await rm(cacheDir, { recursive: true });
    }
  },
  compared: [
    {
      trial: WITH,
      figures: [
        { key: 'loadMs', label: 'load with pre-flight, p50, ms', better: 'lower' },
        { key: 'mainThreadMs', label: 'main thread busy with it, ms', better: 'lower' },
      ],
    },
    {
      trial: WITHOUT,
      figures: [{ key: 'loadMs', label: 'load without, p50, ms', better: 'lower' }],
    },
  ],
  answer: (results) => ({
    tables: [tableOf(results)],
    plots: [],
    levels: [
      {
        what: 'pre-flight, of one load',
        value: results.median(WITH, 'loadMs') - results.median(WITHOUT, 'loadMs'),
        atMost: 100,
        unit: 'ms',
      },
    ],
  }),
};

/** Loads one after the other, each when the one before is gone. */
async function measureLoads(
  cacheDir: string,
  withPreflight: boolean,
  mode: Mode,
): Promise<Measurement> {
  const registry = new HandlerRegistry({ cacheDir, threads: 1, preflight: withPreflight });
  const times = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  // The first load of a process also imports what all need.
  await registry.loadFrom('work', workLibrary);
  await registry.unload('work');
  const before = performance.eventLoopUtilization();
  for (let count = 0; count < LOADS[mode]; count++) {
    const startedNs = process.hrtime.bigint();
    await registry.loadFrom('work', workLibrary);
    times.recordValue(Number(process.hrtime.bigint() - startedNs));
    await registry.unload('work');
  }
  const { active } = performance.eventLoopUtilization(before);
  await registry.close();
  const { p50Us, p99Us, count } = latencyReport(times);
  return { loadMs: p50Us / 1000, loadP99Ms: p99Us / 1000, mainThreadMs: active / count };
}

function tableOf(results: Results): Table {
  const row = (name: string, trial: typeof WITH) => [
    name,
    ...['loadMs', 'loadP99Ms', 'mainThreadMs'].map((key) => withSpread(results.spread(trial, key))),
  ];
  return {
    title: 'A load, one lane',
    columns: ['', 'p50, ms', 'p99, ms', 'main thread busy, ms'],
    rows: [row('with pre-flight', WITH), row('without', WITHOUT)],
    note: 'The main thread is busy with a load and its unload.',
  };
}
