/**
 * Question: how much memory does one more thread cost, and one more endpoint?
 *
 * Predicted: a worker thread with koffi and the library is most of it, 5 to 9 MiB, and that is the same for everyone. The engine
 * adds a ring of which only the touched pages are resident, and has no task queue. So it is at or below Piscina for the same
 * number of threads. A Piscina user who wants one more library beside the others starts one more pool.
 */

import { HandlerRegistry } from '../src/index.js';
import type { Contender } from './contenders/contender.js';
import { type ContenderName, contenders, startContender } from './contenders/index.js';
import { residentMemory, settleMemory, slope } from './harness/process-state.js';
import type { Measurement, Question, Results, Table } from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount, withSpread } from './harness/text.js';
import { buildNative, workLibrary } from './native/library.js';

const measured: readonly ContenderName[] = ['changeover', 'piscina'];
const LANES = [1, 2, 4, 8] as const;
const ENDPOINTS = [1, 2, 4, 8, 16] as const;
/** Before measuring, each endpoint has served so many 4 KiB requests: memory that is never touched costs nothing. */
const REQUESTS = 200;
const REQUEST_BYTES = 4096;

const KINDS = [
  { kind: 'lanes', counts: LANES, one: 'thread' },
  { kind: 'endpoints', counts: ENDPOINTS, one: 'endpoint with one thread' },
] as const;

type Kind = (typeof KINDS)[number]['kind'];

export const memory: Question = {
  name: 'memory',
  question: 'How much memory does one more thread cost, and one more endpoint?',
  predicted: 'About 5 to 9 MiB, nearly all of it the worker thread; not more than Piscina.',
  rounds: 3,
  trials: (mode) =>
    KINDS.flatMap(({ kind, counts }) =>
      counts
        .filter((count) => mode !== 'quick' || count <= 2)
        .flatMap((count) => measured.map((contender) => ({ contender, kind, count }))),
    ),
  measure: async (trial): Promise<Measurement> => {
    const count = trial['count'] as number;
    const [endpoints, threads] = trial['kind'] === 'lanes' ? [1, count] : [count, 1];
    const start = trial['contender'] === 'changeover' ? startEngine : startPiscina;
    const { calls, close } = await start(endpoints, threads);
    const request = makeRequest(REQUEST_BYTES);
    for (const call of calls) {
      // At the same time, so that every thread has its share.
      await Promise.all(Array.from({ length: REQUESTS }, () => call(request)));
    }
    await settleMemory();
    const { rssKiB, privateKiB } = residentMemory();
    await close();
    return { rssKiB, privateKiB };
  },
  compared: KINDS.map(({ kind, counts }) => ({
    // The most: what one more costs is the larger part then.
    trial: { contender: 'changeover', kind, count: Math.max(...counts) },
    figures: [
      {
        key: 'rssKiB',
        label: `resident with ${Math.max(...counts)} ${kind}, KiB`,
        better: 'lower',
      },
    ],
  })),
  answer: (results) => ({
    tables: [...KINDS.map(({ kind }) => totalTable(results, kind)), extraTable(results)],
    plots: [
      {
        name: 'memory-by-endpoints',
        title: 'Resident memory by number of endpoints, one thread each',
        caption: 'An endpoint costs a worker thread; the engine adds next to nothing to it.',
        kind: 'line',
        x: { label: 'endpoints' },
        y: { label: 'resident memory, MiB' },
        series: measured.map((contender) => ({
          name: contenders[contender].label,
          role: contenders[contender].role,
          points: pointsOf(results, contender, 'endpoints', 'rssKiB').map(([count, kib]) => [
            count,
            kib / 1024,
          ]),
        })),
      },
    ],
    levels: KINDS.map(({ kind, one }) => ({
      what: `resident memory of one more ${one}, of Piscina's`,
      value:
        extraKiB(results, 'changeover', kind, 'rssKiB') /
        extraKiB(results, 'piscina', kind, 'rssKiB'),
      atMost: 1,
      unit: 'x',
    })),
  }),
};

interface Started {
  /** One for each endpoint. */
  calls: ((request: Uint8Array) => unknown)[];
  close(): Promise<unknown>;
}

/** One registry with all endpoints; all options but the threads by default. */
async function startEngine(endpoints: number, threads: number): Promise<Started> {
  await buildNative();
  const registry = new HandlerRegistry({ threads });
  const ids = Array.from({ length: endpoints }, (_, index) => `work-${index}`);
  // One after the other, as in a process that serves already.
  for (const id of ids) await registry.loadFrom(id, workLibrary);
  return {
    calls: ids.map((id) => (request) => registry.execute(id, undefined, request)),
    close: () => registry.close(),
  };
}

/** One pool for each endpoint, whose workers load its library. */
async function startPiscina(endpoints: number, threads: number): Promise<Started> {
  const pools: Contender[] = [];
  for (let index = 0; index < endpoints; index++)
    pools.push(await startContender('piscina', { threads }));
  return {
    calls: pools.map((pool) => (request) => pool.call(request)),
    close: () => Promise.all(pools.map((pool) => pool.close())),
  };
}

function pointsOf(
  results: Results,
  contender: ContenderName,
  kind: Kind,
  key: string,
): [number, number][] {
  return results
    .values<number>('count', { contender, kind })
    .map((count) => [count, results.median({ contender, kind, count }, key)]);
}

function extraKiB(results: Results, contender: ContenderName, kind: Kind, key: string): number {
  return slope(pointsOf(results, contender, kind, key));
}

function totalTable(results: Results, kind: Kind): Table {
  const counts = results.values<number>('count', { kind });
  return {
    title:
      kind === 'lanes'
        ? 'Resident memory of the process by threads, one endpoint, MiB'
        : 'Resident memory of the process by endpoints, one thread each, MiB',
    columns: ['', ...counts.map(String)],
    rows: measured.map((contender) => [
      contenders[contender].label,
      ...counts.map((count) => {
        const spread = results.spread({ contender, kind, count }, 'rssKiB');
        if (spread === null) return 'failed';
        const { median, min, max } = spread;
        return withSpread({ median: median / 1024, min: min / 1024, max: max / 1024 });
      }),
    ]),
    note: `After ${REQUESTS} requests of ${REQUEST_BYTES} bytes to each endpoint and a garbage collection.`,
  };
}

function extraTable(results: Results): Table {
  return {
    title: 'One more, MiB: the slope over all counts',
    columns: ['', ...KINDS.flatMap(({ one }) => [`${one}, resident`, `${one}, private`])],
    rows: measured.map((contender) => [
      contenders[contender].label,
      ...KINDS.flatMap(({ kind }) =>
        ['rssKiB', 'privateKiB'].map((key) =>
          amount(extraKiB(results, contender, kind, key) / 1024),
        ),
      ),
    ]),
  };
}
