/**
 * Question: what does a process of its own for native code cost, and what does a crash cost then?
 *
 * Predicted: requests still go through memory, so 64 of them are answered at least 5 times as fast as through a pool that sends
 * messages between processes, and at about a fifth of what a thread does. Alone a round trip takes a few microseconds while
 * both sides watch, and some 50 when both sleep. A crash is told its caller in a few milliseconds and costs nobody else his
 * request; with one lane the next answer takes the start of a process, 40 to 100 ms, with two lanes the other one gives it at
 * once. A stuck call is killed when its grace is over; in a thread it goes on.
 */

import {
  type IsolatedName,
  isolated,
  isolatedNames,
  isolatedPeerNames,
  startIsolated,
} from './contenders/isolated.js';
import type { Plot } from './harness/plot.js';
import { slope } from './harness/process-state.js';
import type { Level, Measurement, Question, Results, Table, Trial } from './harness/question.js';
import { amount, withSpread } from './harness/text.js';
import {
  LARGE_BYTES,
  LARGE_OUTSTANDING,
  lanesOf,
  OUTSTANDING,
  REQUEST_BYTES,
  speed,
  WARM_REQUESTS,
} from './isolation/cost.js';
import { crash, crashOfHost, OTHER_US, OTHERS } from './isolation/crash.js';
import { LIMIT_MS, stuck, TIMEOUT_MS } from './isolation/stuck.js';
import { buildNative } from './native/library.js';

const CRASH_LANES = [1, 2] as const;
const MEMORY_LANES = [1, 4] as const;
const KIB_OF_MIB = 1024;

/** How long after its grace of a second a stuck call may have the CPU, and no other request may be lost. */
const GRACE_MS = 1000;
const AFTER_GRACE_MS = 100;

export const isolation: Question = {
  name: 'isolation',
  question: 'What does a process of its own for native code cost, and what does a crash cost then?',
  predicted:
    'At least 5 times the best pool of processes, a fifth of a thread. A crash fails one request, and the next is answered in 40 to 100 ms with one lane, at once with two; a stuck call is killed when its grace is over.',
  rounds: 2,
  trials: (mode) => [
    ...isolatedNames.map((contender) => ({ contender, what: 'speed', lanes: 1 })),
    ...isolatedNames.flatMap((contender) =>
      CRASH_LANES.filter(
        (lanes) => lanes === 1 || (mode !== 'quick' && isolated[contender].inProcesses),
      ).map((lanes) => ({ contender, what: 'crash', lanes })),
    ),
    ...isolatedNames.map((contender) => ({ contender, what: 'stuck', lanes: 1 })),
    ...isolatedNames.flatMap((contender) =>
      MEMORY_LANES.filter((lanes) => lanes === 1 || mode !== 'quick').map((lanes) => ({
        contender,
        what: 'lanes',
        lanes,
      })),
    ),
  ],
  measure: async (trial, mode): Promise<Measurement> => {
    const name = trial['contender'] as IsolatedName;
    const { inProcesses } = isolated[name];
    const what = trial['what'];
    const threads = trial['lanes'] as number;
    await buildNative();
    if (what === 'crash' && !inProcesses) return crashOfHost(trial, mode);
    const start = () => startIsolated(name, { threads });
    if (what === 'lanes') return lanesOf(start, threads, inProcesses);
    const contender = await start();
    if (what === 'stuck') return stuck(contender, mode);
    if (what === 'speed') return speed(contender, mode);
    return crash(contender, inProcesses ? threads : 0, mode);
  },
  compared: [
    {
      trial: { contender: 'engineProcesses', what: 'speed', lanes: 1 },
      figures: [
        { key: 'perSecond', label: `${OUTSTANDING} outstanding, /s`, better: 'higher' },
        { key: 'aloneP50Us', label: 'alone p50, µs', better: 'lower' },
        { key: 'perSecondLarge', label: `${LARGE_BYTES / 1024} KiB, /s`, better: 'higher' },
      ],
    },
    {
      trial: crashTrial('engineProcesses', 1),
      figures: [{ key: 'nextMs', label: 'next answer after a crash, ms', better: 'lower' }],
    },
  ],
  answer: (results) => ({
    headline: headlineOf(results),
    tables: [speedTable(results), crashTable(results), stuckTable(results), lanesTable(results)],
    plots: [plotOf(results)],
    levels: levelsOf(results),
  }),
};

function crashTrial(contender: IsolatedName, lanes: number): Trial {
  return { contender, what: 'crash', lanes };
}

/** Those that were told of no success and those that were told nothing. */
function lostOf(results: Results, contender: IsolatedName, lanes: number): number {
  const trial = crashTrial(contender, lanes);
  const most = (key: string) => results.spread(trial, key)?.max ?? Number.NaN;
  return most('lost') + most('stranded');
}

function headlineOf(results: Results): string {
  const rate = (contender: IsolatedName) =>
    results.median({ contender, what: 'speed' }, 'perSecond');
  const engine = rate('engineProcesses');
  const best = Math.max(...isolatedPeerNames.map(rate).filter(Number.isFinite));
  const aloneUs = results.median({ contender: 'engineProcesses', what: 'speed' }, 'aloneP50Us');
  const after = (lanes: number, key: string) =>
    amount(results.median(crashTrial('engineProcesses', lanes), key));
  const lost = Math.max(...CRASH_LANES.map((lanes) => lostOf(results, 'engineProcesses', lanes)));
  return (
    `With \`isolation: 'process'\` one lane answers ${amount(engine)} requests a second with ${OUTSTANDING} outstanding: ${amount(engine / best)} times the best pool of processes, ` +
    `${amount(engine / rate('engineThreads'))} times a thread; alone one takes ${amount(aloneUs)} µs. ` +
    `After a crash its caller is told in ${after(1, 'toldMs')} ms, the next request is answered in ${after(1, 'nextMs')} ms with one lane and ${after(2, 'nextMs')} ms with two, and ${lostText(lost)}.`
  );
}

function lostText(lost: number): string {
  return lost === 0 ? 'no other request is lost' : `${count(lost)} other requests are lost`;
}

/** A whole number; none if nothing was measured. */
function count(value: number): string {
  return Number.isNaN(value) ? amount(value) : String(value);
}

function speedTable(results: Results): Table {
  const keys = ['aloneP50Us', 'aloneP99Us', 'perSecond1', 'perSecond'];
  const perSecond = (contender: IsolatedName) =>
    results.median({ contender, what: 'speed' }, 'perSecond');
  return {
    title: `${REQUEST_BYTES} bytes and ${LARGE_BYTES / 1024} KiB in and out, one lane`,
    columns: [
      '',
      'alone p50, µs',
      'alone p99, µs',
      '1 outstanding, /s',
      `${OUTSTANDING} outstanding, /s`,
      'of threads',
      `${LARGE_BYTES / 1024} KiB, ${LARGE_OUTSTANDING} outstanding, /s`,
    ],
    rows: isolatedNames.map((contender) => {
      const cell = (key: string) => withSpread(results.spread({ contender, what: 'speed' }, key));
      return [
        isolated[contender].label,
        ...keys.map(cell),
        `${amount(perSecond(contender) / perSecond('engineThreads'))}x`,
        cell('perSecondLarge'),
      ];
    }),
  };
}

/** A time, or that what it should end with did not happen. */
function timeOrNever(results: Results, trial: Trial, key: string, ran: boolean): string {
  const spread = results.spread(trial, key);
  return spread === null && ran ? 'never' : withSpread(spread);
}

function crashTable(results: Results): Table {
  const cells = (contender: IsolatedName, lanes: number): string[] => {
    const trial = crashTrial(contender, lanes);
    const ran = results.spread(trial, 'lost') !== null;
    return [
      ...['toldMs', 'nextMs', 'allMs'].map((key) => timeOrNever(results, trial, key, ran)),
      ran ? count(lostOf(results, contender, lanes)) : 'failed',
    ];
  };
  const rows = isolatedNames.flatMap((contender) => {
    const { label, inProcesses } = isolated[contender];
    if (!inProcesses) {
      const ends = results.spread(crashTrial(contender, 1), 'endsHost') !== null;
      return [[label, ends ? 'the host ends' : 'failed', '', '', '']];
    }
    return CRASH_LANES.map((lanes) => [
      `${label}, ${lanes} ${lanes === 1 ? 'lane' : 'lanes'}`,
      ...cells(contender, lanes),
    ]);
  });
  return {
    title: `A call that crashes (SIGSEGV), with ${OTHERS} calls of ${OTHER_US / 1000} ms right behind it, ms from when it was sent`,
    columns: ['', 'its caller is told', 'next answer', 'all answered', 'other requests lost'],
    rows,
    note: 'When the caller has been told, one more request is sent. Lost: the most of all rounds that failed or were not answered within 2.5 s.',
  };
}

function stuckTable(results: Results): Table {
  return {
    title: `A call that does not return, with a timeout of ${TIMEOUT_MS} ms, one lane, ms`,
    columns: ['', 'told late by', 'next request answered after', 'CPU back after'],
    rows: isolatedNames.map((contender) => {
      const trial = { contender, what: 'stuck' };
      const ran = results.spread(trial, 'lateMs') !== null;
      return [
        isolated[contender].label,
        ...['lateMs', 'nextMs', 'cpuBackMs'].map((key) => timeOrNever(results, trial, key, ran)),
      ];
    }),
    note: `After its caller was told. By default, the engine and workerpool give a call ${GRACE_MS / 1000} s to return, tinypool none. Never: not within ${LIMIT_MS.full / 1000} s.`,
  };
}

function perLaneMiB(results: Results, contender: IsolatedName, key: string): number {
  const points = MEMORY_LANES.map((lanes): [number, number] => [
    lanes,
    results.median({ contender, what: 'lanes', lanes }, key),
  ]);
  return slope(points) / KIB_OF_MIB;
}

function lanesTable(results: Results): Table {
  const [one] = MEMORY_LANES;
  return {
    title: 'Start-up, and memory of the host and its processes',
    columns: [
      '',
      'one lane started and first answer, ms',
      'one lane, resident, MiB',
      'one more lane, resident, MiB',
      'one more lane, private, MiB',
    ],
    rows: isolatedNames.map((contender) => {
      const trial = { contender, what: 'lanes', lanes: one };
      return [
        isolated[contender].label,
        withSpread(results.spread(trial, 'startMs')),
        amount(results.median(trial, 'rssKiB') / KIB_OF_MIB),
        ...['rssKiB', 'privateKiB'].map((key) => amount(perLaneMiB(results, contender, key))),
      ];
    }),
    note: `After ${WARM_REQUESTS} requests a lane. Resident memory counts pages that processes share (of the Node program, above all) once for each; private is what a lane would give back. The engine's start includes pre-flight.`,
  };
}

function plotOf(results: Results): Plot {
  const columns = [
    { category: 'crashing caller told', lanes: 1, key: 'toldMs' },
    { category: 'next answer, one lane', lanes: 1, key: 'nextMs' },
    { category: 'next answer, two lanes', lanes: 2, key: 'nextMs' },
  ];
  const engine = (lanes: number) =>
    amount(results.median(crashTrial('engineProcesses', lanes), 'nextMs'));
  const lost = Math.max(...CRASH_LANES.map((lanes) => lostOf(results, 'engineProcesses', lanes)));
  return {
    name: 'isolation-crash',
    title: `After a crash the next request is answered in ${engine(1)} ms with one lane, ${engine(2)} ms with two; ${lostText(lost)}`,
    caption: `Lanes that are processes; from when the crashing call was sent, with ${OTHERS} calls of ${OTHER_US / 1000} ms right behind it; shorter is better. In a thread, a crash ends the host.`,
    kind: 'bar',
    x: { label: '', scale: 'category', categories: columns.map(({ category }) => category) },
    y: { label: 'time', unit: 'ms' },
    series: isolatedNames
      .filter((contender) => isolated[contender].inProcesses)
      .map((contender) => ({
        // All that are drawn are processes.
        name: isolated[contender].label.split(',')[0] ?? isolated[contender].label,
        role: isolated[contender].role,
        points: columns.map(({ category, lanes, key }) => [
          category,
          results.median(crashTrial(contender, lanes), key),
        ]),
      })),
  };
}

function levelsOf(results: Results): Level[] {
  return [
    ...CRASH_LANES.map((lanes) => ({
      what: `other requests lost by a crash, ${lanes} ${lanes === 1 ? 'lane' : 'lanes'}`,
      value: lostOf(results, 'engineProcesses', lanes),
      atMost: 0,
      unit: '',
    })),
    {
      what: 'CPU of a stuck call back, after the grace',
      value:
        results.median({ contender: 'engineProcesses', what: 'stuck' }, 'cpuBackMs') - GRACE_MS,
      atMost: AFTER_GRACE_MS,
      unit: 'ms',
    },
  ];
}
