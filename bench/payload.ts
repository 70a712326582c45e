/**
 * Question: what does it cost to move large payloads in and out of a native function?
 *
 * Predicted: up to 4 KiB what counts is the dispatch, from 1 MiB on the copies. A pool that clones copies four times; one that
 * hands buffers over copies once, but pays the system for fresh pages each time, which costs as much as a copy. The engine
 * copies twice or three times, into memory that it uses again, so it stays ahead at every size; over a `SharedArrayBuffer` it copies
 * once less.
 */

import koffi from 'koffi';
import { startReleasing } from './contenders/engine.js';
import {
  type ContenderName,
  contenderNames,
  contenders,
  peerNames,
  startContender,
} from './contenders/index.js';
import { throughput } from './harness/closed-loop.js';
import type { PlotSeries } from './harness/plot.js';
import type {
  Level,
  Measurement,
  Mode,
  Question,
  Results,
  Table,
  Trial,
} from './harness/question.js';
import { makeRequest } from './harness/requests.js';
import { amount, withSpread } from './harness/text.js';

const KIB = 1024;
const MIB = 1024 * KIB;

interface Size {
  bytes: number;
  label: string;
  /** Few: what is asked is how fast bytes move, not how many requests fit into the pipe. */
  outstanding: number;
  durationMs: number;
}

/** For half as long before: until then, V8 compiles and malloc grows, which took the first half second of all contenders. */
const SIZES: readonly Size[] = [
  { bytes: 128, label: '128 B', outstanding: 4, durationMs: 400 },
  { bytes: 4 * KIB, label: '4 KiB', outstanding: 4, durationMs: 400 },
  { bytes: 64 * KIB, label: '64 KiB', outstanding: 4, durationMs: 900 },
  { bytes: MIB, label: '1 MiB', outstanding: 4, durationMs: 900 },
  { bytes: 16 * MIB, label: '16 MiB', outstanding: 2, durationMs: 1200 },
];
const LARGE = SIZES.filter(({ bytes }) => bytes >= 64 * KIB);
const QUICK_DURATION_MS = 30;
/** Of a size's duration, when two commits are compared: much less, and malloc has not grown yet. */
const SHORT_OF_FULL = 0.5;

/** The default of the engine, which says so because the bench's other questions ask for less. */
const MAX_PAYLOAD_BYTES = 16 * MIB;

/** How the engine is used, beside the simplest way. */
type EngineWay = 'released' | 'shared' | 'both';

/** Everyone, the engine in each way, and the limit. */
const ways = [
  ...contenderNames.map((way) => ({
    way: way as string,
    label: contenders[way].label as string,
    role: contenders[way].role as PlotSeries['role'],
  })),
  { way: 'released', label: 'changeover, release()', role: 'engine' as const },
  { way: 'shared', label: 'changeover, SharedArrayBuffer', role: 'engine' as const },
  { way: 'both', label: 'changeover, SharedArrayBuffer and release()', role: 'engine' as const },
  { way: 'memcpy', label: 'limit: memcpy in and out', role: 'limit' as const },
];

const SHORT_NAMES: Readonly<Record<string, string>> = {
  shared: 'changeover, shared',
  released: 'changeover, released',
  both: 'changeover, both',
};

export const payload: Question = {
  name: 'payload',
  question: 'What does it cost to move large payloads in and out of a native function?',
  predicted:
    'Ahead of every pool at every size: two or three copies into memory that is used again, against four copies, or one into fresh pages.',
  rounds: 2,
  trials: () => SIZES.flatMap(({ bytes }) => ways.map(({ way }) => ({ way, bytes }))),
  measure: (trial, mode) => {
    const size = SIZES.find(({ bytes }) => bytes === trial['bytes']);
    if (size === undefined) throw new Error(`${trial['bytes']} is none of the sizes`);
    const way = trial['way'] as ContenderName | EngineWay | 'memcpy';
    return way === 'memcpy' ? measureMemcpy(size, mode) : measureContender(way, size, mode);
  },
  compared: SIZES.map(({ bytes, label }) => ({
    trial: { way: 'changeover', bytes },
    figures: [{ key: 'perSecond', label: `${label}, /s`, better: 'higher' }],
  })),
  answer: (results) => ({
    tables: [
      rateTable(results),
      tableOf(results, 'Payload in, and as much out, MiB/s', (trial, { bytes }) =>
        amount((results.median(trial, 'perSecond') * bytes) / MIB),
      ),
      tableOf(results, 'Event-loop delay meanwhile, p99, ms', (trial) =>
        amount(results.median(trial, 'loopDelayP99Ms')),
      ),
      copiesTable(results),
    ],
    plots: [
      {
        name: 'throughput-by-payload',
        title: 'Throughput by payload size, one lane',
        caption:
          'Small payloads are a matter of dispatch, large ones of copies; the engine is ahead of every pool at each size.',
        kind: 'line',
        x: { label: 'bytes in, and as many out', scale: 'log' },
        y: { label: 'requests a second', scale: 'log' },
        series: ways.map(({ way, label, role }) => ({
          // There is no room for the whole name beside the lines.
          name: SHORT_NAMES[way] ?? label,
          role,
          points: SIZES.filter(
            ({ bytes }) => results.spread({ way, bytes }, 'perSecond') !== null,
          ).map(({ bytes }) => [bytes, results.median({ way, bytes }, 'perSecond')]),
        })),
      },
    ],
    levels: levelsOf(results),
  }),
};

function durationIn(mode: Mode, fullMs: number): number {
  return { full: fullMs, short: fullMs * SHORT_OF_FULL, quick: QUICK_DURATION_MS }[mode];
}

async function measureContender(
  way: ContenderName | EngineWay,
  { bytes, outstanding, durationMs }: Size,
  mode: Mode,
): Promise<Measurement> {
  const setting = { threads: 1, maxPayloadBytes: MAX_PAYLOAD_BYTES };
  const releases = way === 'released' || way === 'both';
  const contender = releases
    ? await startReleasing(setting)
    : await startContender(way === 'shared' ? 'changeover' : way, setting);
  const plain = makeRequest(bytes);
  const { perSecond, loopDelayP99Ms } = await throughput(contender, {
    request: way === 'shared' || way === 'both' ? inSharedMemory(plain) : plain,
    outstanding,
    durationMs: durationIn(mode, durationMs),
  });
  await contender.close();
  return { perSecond, loopDelayP99Ms };
}

function inSharedMemory(bytes: Uint8Array): Uint8Array {
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  return shared;
}

/** What moving the bytes there and back takes at least: no thread, no promise, no fresh page. */
async function measureMemcpy({ bytes, durationMs }: Size, mode: Mode): Promise<Measurement> {
  const memcpy = koffi.load(null).func('memcpy', 'void', ['uint8_t *', 'uint8_t *', 'size_t']);
  const [request, inside, response] = [
    makeRequest(bytes),
    new Uint8Array(bytes),
    new Uint8Array(bytes),
  ];
  const loop = (forMs: number) => {
    const startedMs = performance.now();
    let done = 0;
    let nowMs = startedMs;
    while (nowMs - startedMs < forMs) {
      // A look at the clock costs as much as a small copy.
      for (let times = bytes < MIB ? 64 : 1; times > 0; times--) {
        memcpy(inside, request, bytes);
        memcpy(response, inside, bytes);
        done += 1;
      }
      nowMs = performance.now();
    }
    return (done / (nowMs - startedMs)) * 1000;
  };
  const forMs = durationIn(mode, durationMs);
  loop(forMs / 2);
  return { perSecond: loop(forMs) };
}

function tableOf(
  results: Results,
  title: string,
  cell: (trial: Trial, size: Size) => string,
): Table {
  return {
    title,
    columns: ['', ...SIZES.map(({ label }) => label)],
    rows: ways.map(({ way, label }) => [
      label,
      ...SIZES.map((size) => {
        const trial = { way, bytes: size.bytes };
        return results.spread(trial, 'perSecond') === null ? 'failed' : cell(trial, size);
      }),
    ]),
  };
}

function rateTable(results: Results): Table {
  return {
    ...tableOf(results, 'Requests a second by payload size, one lane', (trial) =>
      withSpread(results.spread(trial, 'perSecond')),
    ),
    note: `${SIZES.map(({ label, outstanding }) => `${label}: ${outstanding} outstanding`).join('; ')}. Medians, with the lowest and highest round.`,
  };
}

/**
 * Counted in src/request.ts, workers/server.ts and src/response.ts; for the pools, what structured clone does: it
 * writes into a message, and reads out of it.
 */
const COPIES: Omit<Table, 'note'> = {
  title:
    'Copies of the payload that each way makes, beside the one that is the function’s own work',
  columns: ['', 'in', 'out', 'fresh memory a request'],
  rows: [
    ['changeover, up to 4 KiB', '1: to the slot', '2: window to slot, slot to caller', 'response'],
    [
      'changeover, up to 120 KiB',
      '1: to a region',
      '2: window to outbox, outbox to caller',
      'response',
    ],
    [
      'changeover, larger',
      '1: to a region',
      '1: window to a buffer that is handed over',
      'response',
    ],
    ['changeover, release()', '1: to a region', 'as above, to memory in use', 'none'],
    ['changeover, SharedArrayBuffer', '0', 'as above', 'response, or none with release()'],
    ['pools, default', '2: clone', '2: clone', 'request, response, two messages, response'],
    [
      'Piscina, tinypool, workerpool, configured, from 16 KiB',
      '1: the caller keeps its own',
      '0: handed over',
      'request, response',
    ],
    [
      'poolifier, configured, from 16 KiB',
      '1: the caller keeps its own',
      '2: clone',
      'request, response, message, response',
    ],
    ['koffi on main, koffi .async', '0', '0', 'response'],
  ],
};

/** With what this run says of a copy into fresh memory: koffi on main makes one, the limit two into memory in use. */
function copiesTable(results: Results): Table {
  const ratios = LARGE.map(({ bytes, label }) => {
    const fresh = 1 / results.median({ way: 'koffiOnMain', bytes }, 'perSecond');
    const inUse = 0.5 / results.median({ way: 'memcpy', bytes }, 'perSecond');
    return `${amount(fresh / inUse)}x for ${label}`;
  });
  return {
    ...COPIES,
    note: `One call that copies into fresh memory (koffi on main: allocation, cleared pages, garbage collection) takes as long as this many copies into memory in use: ${ratios.join(', ')}.`,
  };
}

function levelsOf(results: Results): Level[] {
  const rate = (way: string, bytes: number) => results.median({ way, bytes }, 'perSecond');
  return LARGE.flatMap(({ bytes, label }) => {
    const peers = peerNames
      .map((peer) => rate(peer, bytes))
      .filter((value) => !Number.isNaN(value));
    const best = Math.max(...peers);
    return [
      {
        what: `${label} in and out, of the best pool, configured or not`,
        value: rate('changeover', bytes) / best,
        atLeast: 1.5,
        unit: 'x',
      },
      {
        what: `${label} in and out with release(), of the best pool`,
        value: rate('released', bytes) / best,
        atLeast: 2,
        unit: 'x',
      },
      {
        what: `${label}, shared request and release(), of koffi’s own threads`,
        value: rate('both', bytes) / rate('koffiAsync', bytes),
        atLeast: 0.8,
        unit: 'x',
      },
    ];
  });
}
