/** What the load test found out: as numbers, and as text. */

import type { DrainReport } from '../../src/index.js';
import type { EventLoopReport } from '../harness/event-loop.js';
import { type LatencyReport, latencyReport } from '../harness/latency-report.js';
import { short } from '../harness/units.js';
import type { LoadOptions } from './options.js';
import type { Tally } from './tally.js';

/** How the swap went, or why it did not. */
export type Swapped = { activeMs: number; drain: DrainReport | undefined } | { error: string };

/** Rates are a second, memory is bytes. Without an answer there is no latency. */
export interface LoadReport {
  library: string;
  load: LoadOptions['load'];
  payloadBytes: number;
  /** All requests, those of the warm-up included. */
  requests: number;
  answered: number;
  failed: number;
  errors: { code: string; count: number; first: string }[];
  perSecond: number;
  latency: LatencyReport | null;
  eventLoop: EventLoopReport;
  /** How many requests each version answered. */
  versions: { version: number; answered: number }[];
  swap: SwapReport | undefined;
  residentBytes: { before: number; highest: number; after: number };
}

export type SwapReport =
  | { error: string }
  | {
      library: string;
      /** From the call until the new version served. */
      activeMs: number;
      /** Requests that got an error because their version went away. */
      lost: number;
      /** Before the swap, in the second that begins with it, and afterwards. */
      p99Ms: { before: number | null; around: number | null; after: number | null };
      drain: DrainReport | undefined;
    };

/** What a request can only be told if a swap went wrong. */
const SWAP_ERRORS = ['ERR_HANDLER_DROPPED', 'ERR_HANDLER_NOT_LOADED', 'ERR_HANDLER_CLOSED'];

export function reportOf(run: {
  options: LoadOptions;
  tally: Tally;
  loop: EventLoopReport;
  versions: ReadonlyMap<number, number>;
  swap: Swapped | undefined;
  rss: LoadReport['residentBytes'];
}): LoadReport {
  const { options, tally, loop, versions, swap, rss } = run;
  const { library, load, payload } = options;
  return {
    library,
    load,
    payloadBytes: payload.length,
    requests: tally.answered + tally.failed,
    answered: tally.answered,
    failed: tally.failed,
    errors: [...tally.errors].map(([code, count]) => ({
      code,
      count,
      first: tally.messages.get(code) ?? '',
    })),
    perSecond: tally.perSecond,
    latency: tally.measured === 0 ? null : latencyReport(tally.all),
    eventLoop: loop,
    versions: [...versions].map(([version, answered]) => ({ version, answered })),
    swap: swap === undefined ? undefined : swapReport(swap, options, tally),
    residentBytes: rss,
  };
}

function swapReport(swap: Swapped, options: LoadOptions, tally: Tally): SwapReport {
  if ('error' in swap) return swap;
  return {
    library: options.swapTo ?? '',
    ...swap,
    lost: SWAP_ERRORS.reduce((sum, code) => sum + (tally.errors.get(code) ?? 0), 0),
    p99Ms: {
      before: tally.p99Ms(tally.before),
      around: tally.p99Ms(tally.around),
      after: tally.p99Ms(tally.after),
    },
  };
}

/** Whether every request was answered, and the swap went through. */
export function hasPassed({ failed, swap }: LoadReport): boolean {
  return failed === 0 && !(swap !== undefined && 'error' in swap);
}

const LABEL_WIDTH = 14;

export function reportText(report: LoadReport): string {
  const { library, latency, eventLoop, residentBytes, load } = report;
  const lines: [label: string, text: string][] = [
    ['library', library],
    [
      'load',
      `${load.kind === 'rate' ? `${short(load.perSecond)} requests a second` : `${load.callers} callers`}, ${short(report.payloadBytes, 'bytes')} each`,
    ],
    ['requests', `${whole(report.requests)}, ${whole(report.failed)} failed`],
    ...report.errors.map(({ code, count, first }): [string, string] => [
      '',
      `${whole(count)} ${code}: ${oneLine(first)}`,
    ]),
    ['rate', `${short(report.perSecond)} answered a second`],
    ['latency', latency === null ? 'nothing was answered' : latencyText(latency)],
    [
      'main thread',
      `${short(eventLoop.loopBusy * 100, '%')} busy; late by p50 ${short(eventLoop.loopDelayP50Ms, 'ms')}, p99 ${short(eventLoop.loopDelayP99Ms, 'ms')}, at most ${short(eventLoop.loopDelayMaxMs, 'ms')}`,
    ],
    ...swapLines(report),
    [
      'memory',
      `${mib(residentBytes.before)} before, ${mib(residentBytes.highest)} at most, ${mib(residentBytes.after)} after`,
    ],
  ];
  return lines.map(([label, text]) => `${label.padEnd(LABEL_WIDTH)}${text}`).join('\n');
}

function latencyText({ p50Us, p90Us, p99Us, p999Us, maxUs }: LatencyReport): string {
  const us = (value: number) => short(value, 'us');
  return `p50 ${us(p50Us)}, p90 ${us(p90Us)}, p99 ${us(p99Us)}, p99.9 ${us(p999Us)}, at most ${us(maxUs)}`;
}

function swapLines({ swap, versions }: LoadReport): [string, string][] {
  if (swap === undefined) return [];
  if ('error' in swap) return [['swap', `failed: ${swap.error}`]];
  const { library, p99Ms, drain } = swap;
  const ms = (value: number | null) => (value === null ? '–' : short(value, 'ms'));
  const ratio =
    p99Ms.around === null || p99Ms.before === null || p99Ms.before === 0
      ? ''
      : `, ${short(p99Ms.around / p99Ms.before)} times`;
  return [
    ['swap', `${short(swap.activeMs, 'ms')} until ${library} served; ${whole(swap.lost)} lost`],
    [
      '',
      `p99 ${ms(p99Ms.before)} before, ${ms(p99Ms.around)} in the second of the swap${ratio}, ${ms(p99Ms.after)} after`,
    ],
    ['versions', versions.map((each) => `v${each.version} ${whole(each.answered)}`).join(', ')],
    ...(drain === undefined ? [] : [['old version', drainText(drain)] as [string, string]]),
  ];
}

function drainText({ tookMs, library, reason }: DrainReport): string {
  return `gone after ${short(tookMs, 'ms')}, library ${library}${reason === undefined ? '' : `: ${reason}`}`;
}

const LONGEST_MESSAGE = 200;

/** A handler's message can be anything: here it has no business with the terminal. */
function oneLine(message: string): string {
  return message.replace(/\p{C}+/gu, ' ').slice(0, LONGEST_MESSAGE);
}

const whole = (value: number) => value.toLocaleString('en-US');
const mib = (bytes: number) => short(bytes, 'bytes');
