/**
 * Load by arrivals on a schedule, as from many users who do not know of each other. A request's time counts from when it
 * was meant to be sent: if the sender or the pool falls behind, the wait is part of what is measured (no coordinated
 * omission).
 */

import { build, type Histogram } from 'hdr-histogram-js';
import type { Contender } from '../contenders/contender.js';
import { type EventLoopReport, watchEventLoop } from './event-loop.js';
import { type LatencyReport, latencyReport } from './latency-report.js';
import { randomFrom } from './random.js';
import { checkResponse } from './requests.js';

export interface OpenLoop {
  /** Requests a second on average; gaps are exponential (a Poisson process), from a seed. */
  ratePerSecond: number;
  durationMs: number;
  /** The request number `index`. */
  request(index: number): Uint8Array;
  /**
   * How the sender waits for the next arrival. `poll` looks at the clock in every turn of the event loop: exact to
   * microseconds, and keeps the main thread busy. `timer` sleeps and sends what has become due: exact to a
   * millisecond, and shows how busy the main thread is.
   */
  pacing: 'poll' | 'timer';
  /** Called with each outcome, if the caller wants more than the histogram. */
  settled?(outcome: Outcome): void;
  /** Asked when the duration is over: whether the load goes on all the same. */
  goesOn?(): boolean;
  /** Whether a response must be the request. Default true. */
  check?: boolean;
  /** Leaves out the first requests, which warm up. Default 0. */
  warmUpMs?: number;
  seed?: number;
}

/** How one request ended. */
export interface Outcome {
  index: number;
  /** When it was meant to be sent, from the start of the load. */
  intendedMs: number;
  /** From when it was meant to be sent. */
  latencyMs: number;
  /** From when it was sent. */
  sinceSentMs: number;
  /** Undefined if it was answered. */
  error: unknown;
}

export interface OpenLoopReport {
  sent: number;
  /** Answered requests a second, from the first arrival to the last answer. */
  perSecond: number;
  latency: LatencyReport;
  histogram: Histogram;
  /** How many were rejected, by error code. */
  errors: Map<string, number>;
  loop: EventLoopReport;
}

const HIGHEST_NS = 600e9;

export async function openLoop(contender: Contender, load: OpenLoop): Promise<OpenLoopReport> {
  const {
    ratePerSecond,
    durationMs,
    request,
    pacing,
    settled,
    warmUpMs = 0,
    seed = 1,
    check = true,
    goesOn = () => false,
  } = load;
  const random = randomFrom(seed);
  const gapMs = () => (-Math.log(1 - random()) * 1000) / ratePerSecond;
  const histogram = build({ highestTrackableValue: HIGHEST_NS, numberOfSignificantValueDigits: 3 });
  const errors = new Map<string, number>();
  const startMs = performance.now();
  let dueMs = startMs + gapMs();
  let sent = 0;
  let answered = 0;
  let outstanding = 0;
  let lastAnswerMs = startMs;
  let allSent = false;
  let done: () => void = () => undefined;
  const finished = new Promise<void>((resolve) => {
    done = resolve;
  });
  let watched = watchEventLoop();

  const send = async (index: number, intendedMs: number) => {
    const bytes = request(index);
    const measured = intendedMs - startMs >= warmUpMs;
    outstanding += 1;
    let error: unknown;
    const sentMs = performance.now();
    try {
      const response = await contender.call(bytes);
      if (check) checkResponse(bytes, response);
    } catch (reason) {
      error = reason;
    }
    const nowMs = performance.now();
    outstanding -= 1;
    if (measured) {
      if (error === undefined) {
        answered += 1;
        lastAnswerMs = nowMs;
        histogram.recordValue(Math.max(1, Math.round((nowMs - intendedMs) * 1e6)));
      } else {
        const code = codeOf(error);
        errors.set(code, (errors.get(code) ?? 0) + 1);
      }
    }
    settled?.({
      index,
      intendedMs: intendedMs - startMs,
      latencyMs: nowMs - intendedMs,
      sinceSentMs: nowMs - sentMs,
      error,
    });
    if (allSent && outstanding === 0) done();
  };

  let warm = warmUpMs === 0;
  const isDue = () => dueMs - startMs < durationMs || goesOn();
  const tick = async () => {
    const nowMs = performance.now();
    if (!warm && nowMs - startMs >= warmUpMs) {
      warm = true;
      watched();
      watched = watchEventLoop();
    }
    while (dueMs <= nowMs && isDue()) {
      void send(sent++, dueMs);
      dueMs += gapMs();
      // A server's requests come in callbacks of their own, after each of which promises have their turn: who is refused at once
      // hears of it before the next request is there.
      await null;
    }
    if (!isDue()) {
      allSent = true;
      if (outstanding === 0) done();
    } else if (pacing === 'poll') setImmediate(tick);
    else setTimeout(tick, 0);
  };
  void tick();
  await finished;
  const loop = watched();
  return {
    sent,
    perSecond: (answered / (lastAnswerMs - startMs - warmUpMs)) * 1000,
    latency: latencyReport(histogram),
    histogram,
    errors,
    loop,
  };
}

/** What kind of error: its code, or else its name. */
export function codeOf(error: unknown): string {
  if (error instanceof Error) {
    return 'code' in error && typeof error.code === 'string' ? error.code : error.name;
  }
  return String(error);
}
