/**
 * Question: does a process that reloads its handlers for ever grow for ever?
 *
 * Predicted: resident memory rises for the first hundred reloads, while arenas and caches fill, and then by about 50 KiB a
 * reload, which koffi and Node keep of every worker thread that has ended. Nothing else is left: no mapping, no thread, no
 * descriptor.
 */

import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'hdr-histogram-js';
import { HandlerRegistry } from '../src/index.js';
import { latencyReport } from './harness/latency-report.js';
import {
  addressSpace,
  mappedFiles,
  openHandles,
  residentMemory,
  settleMemory,
  slope,
} from './harness/process-state.js';
import type { Measurement, Mode, Question, Results, Table } from './harness/question.js';
import { checkResponse, makeRequest } from './harness/requests.js';
import { amount } from './harness/text.js';
import { buildNative, workLibrary } from './native/library.js';

const RELOADS = 1000;
/** Multiples of `SAMPLES`. */
const RELOADS_IN = { full: RELOADS, short: 20, quick: 20 };
const SAMPLES = 20;
/** Until then arenas and caches fill. */
const SETTLED_AFTER = 100;
const REQUESTS_BETWEEN = 5;
/** As many threads end in each reload, whatever the default is on this machine. */
const LANES = 2;
const TRIAL = { contender: 'changeover' };

export const reload: Question = {
  name: 'reload',
  question: 'Does a process that reloads its handlers for ever grow for ever?',
  predicted:
    'By about 50 KiB a reload, which koffi and Node keep of every worker thread; nothing is left mapped, no thread, no descriptor.',
  rounds: 1,
  trials: () => [TRIAL],
  measure: async (_trial, mode) => {
    await buildNative();
    const directory = await mkdtemp(join(tmpdir(), 'changeover-bench-'));
    try {
      return await measureReloads(directory, mode);
    } finally {
      await rm(directory, { recursive: true });
    }
  },
  compared: [
    {
      trial: TRIAL,
      figures: [
        { key: 'swapP50Ms', label: 'until the new version serves, p50, ms', better: 'lower' },
        { key: 'wholeP50Ms', label: 'until the old library is gone, p50, ms', better: 'lower' },
      ],
    },
  ],
  answer: (results) => ({
    tables: [tableOf(results)],
    plots: [
      {
        name: 'memory-over-reloads',
        title: `Resident memory over ${RELOADS.toLocaleString('en')} graceful reloads`,
        caption: `After the first ${SETTLED_AFTER}, ${amount(slopeOf(results))} KiB are left of a reload.`,
        kind: 'line',
        x: { label: 'reloads' },
        y: { label: 'resident memory, MiB' },
        series: [
          {
            name: 'changeover',
            role: 'engine',
            points: seriesOf(results).map(([reloads, kib]) => [reloads, kib / 1024]),
          },
        ],
        marks: [{ x: SETTLED_AFTER, label: 'warm' }],
      },
    ],
    levels: [
      {
        what: `resident memory a reload, after the first ${SETTLED_AFTER}`,
        value: slopeOf(results),
        atMost: 64,
        unit: 'KiB',
      },
      {
        what: `mappings outside of V8’s heap, more than after the first ${SETTLED_AFTER}`,
        value: growthOf(results, 'otherMappings'),
        atMost: 50,
        unit: '',
      },
      ...[
        { key: 'leftMapped', what: 'libraries left mapped' },
        { key: 'extraThreads', what: 'threads left' },
        { key: 'extraDescriptors', what: 'descriptors left' },
      ].map(({ key, what }) => ({
        what,
        value: results.median(TRIAL, key),
        atMost: 0,
        unit: '',
      })),
    ],
  }),
};

async function measureReloads(directory: string, mode: Mode): Promise<Measurement> {
  const reloads = RELOADS_IN[mode];
  const paths = ['a', 'b'].map((name) => join(directory, `${name}.so`));
  for (const path of paths) await copyFile(workLibrary, path);
  const cacheDir = join(directory, 'cache');
  // Everything else by default.
  const registry = new HandlerRegistry({ cacheDir, threads: LANES });
  await registry.loadFrom('work', paths[0] ?? '');
  const request = makeRequest(128);
  const ask = async () =>
    checkResponse(request, (await registry.execute('work', undefined, request)).bytes);
  await ask();
  await settleMemory();
  const before = openHandles();
  const mappedBefore = mappedFiles(cacheDir);
  const reloadsAt = [0];
  const rssKiB = [residentMemory().rssKiB];
  const spaceBefore = addressSpace();
  const mappings = [spaceBefore.mappings];
  const otherMappings = [spaceBefore.otherMappings];
  const addressSpaceMib = [spaceBefore.mib];
  const swapTimes = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  const wholeTimes = build({ highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 });
  for (let count = 1; count <= reloads; count++) {
    const startedNs = process.hrtime.bigint();
    const { drained } = await registry.swapGraceful('work', paths[count % 2] ?? '');
    swapTimes.recordValue(Number(process.hrtime.bigint() - startedNs));
    await drained;
    wholeTimes.recordValue(Number(process.hrtime.bigint() - startedNs));
    for (let requests = 0; requests < REQUESTS_BETWEEN; requests++) await ask();
    if (count % (reloads / SAMPLES) !== 0) continue;
    reloadsAt.push(count);
    rssKiB.push(residentMemory().rssKiB);
    const space = addressSpace();
    mappings.push(space.mappings);
    otherMappings.push(space.otherMappings);
    addressSpaceMib.push(space.mib);
  }
  await settleMemory();
  const after = openHandles();
  const leftMapped = mappedFiles(cacheDir) - mappedBefore;
  await registry.close();
  const swap = latencyReport(swapTimes);
  const whole = latencyReport(wholeTimes);
  return {
    reloadsAt,
    rssKiB,
    mappings,
    otherMappings,
    addressSpaceMib,
    swapP50Ms: swap.p50Us / 1000,
    swapP99Ms: swap.p99Us / 1000,
    wholeP50Ms: whole.p50Us / 1000,
    wholeP99Ms: whole.p99Us / 1000,
    leftMapped,
    extraThreads: after.threads - before.threads,
    extraDescriptors: after.descriptors - before.descriptors,
  };
}

type Series = 'rssKiB' | 'mappings' | 'otherMappings' | 'addressSpaceMib';

function seriesOf(results: Results, key: Series = 'rssKiB'): [number, number][] {
  const values = results.series(TRIAL, key);
  return results
    .series(TRIAL, 'reloadsAt')
    .map((reloads, index) => [reloads, values[index] ?? Number.NaN]);
}

/** How much there is at the end that was not there once the process had settled. */
function growthOf(results: Results, key: Series): number {
  const points = seriesOf(results, key).filter(([reloads]) => reloads >= SETTLED_AFTER);
  return (points.at(-1)?.[1] ?? Number.NaN) - (points[0]?.[1] ?? Number.NaN);
}

function slopeOf(results: Results): number {
  return slope(seriesOf(results).filter(([reloads]) => reloads >= SETTLED_AFTER));
}

function tableOf(results: Results): Table {
  const row = (name: string, value: number) => [name, amount(value)];
  const at = (reloads: number, key: Series = 'rssKiB') =>
    seriesOf(results, key).find(([x]) => x === reloads)?.[1] ?? Number.NaN;
  const atTheEnd = (key: Series) => seriesOf(results, key).at(-1)?.[1] ?? Number.NaN;
  return {
    title: `Graceful reloads between two versions of a library, ${LANES} lanes, otherwise default options`,
    columns: ['', 'measured'],
    rows: [
      row('resident memory at the start, MiB', at(0) / 1024),
      row(`after ${SETTLED_AFTER}, MiB`, at(SETTLED_AFTER) / 1024),
      row('at the end, MiB', atTheEnd('rssKiB') / 1024),
      row(`a reload, after the first ${SETTLED_AFTER}, KiB`, slopeOf(results)),
      row('until the new version serves, p50, ms', results.median(TRIAL, 'swapP50Ms')),
      row('until the new version serves, p99, ms', results.median(TRIAL, 'swapP99Ms')),
      row('until the old library is gone, p50, ms', results.median(TRIAL, 'wholeP50Ms')),
      row('until the old library is gone, p99, ms', results.median(TRIAL, 'wholeP99Ms')),
      row(`mappings after ${SETTLED_AFTER}`, at(SETTLED_AFTER, 'mappings')),
      row('mappings at the end', atTheEnd('mappings')),
      row(`outside of V8’s heap, after ${SETTLED_AFTER}`, at(SETTLED_AFTER, 'otherMappings')),
      row('outside of V8’s heap, at the end', atTheEnd('otherMappings')),
      row(`address space after ${SETTLED_AFTER}, MiB`, at(SETTLED_AFTER, 'addressSpaceMib')),
      row('address space at the end, MiB', atTheEnd('addressSpaceMib')),
      row('libraries left mapped', results.median(TRIAL, 'leftMapped')),
      row('threads left', results.median(TRIAL, 'extraThreads')),
      row('descriptors left', results.median(TRIAL, 'extraDescriptors')),
    ],
  };
}
