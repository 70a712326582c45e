/**
 * One round of the soak: every endpoint is loaded, used and changed for a while, and unloaded again. Between two rounds nothing goes
 * on, so what the process holds then can be compared.
 */

import { setTimeout as pause } from 'node:timers/promises';
import { type EventLoopReport, watchEventLoop } from '../../bench/harness/event-loop.js';
import { settledWithin } from '../../src/deferred.js';
import type { HandlerRegistry } from '../../src/index.js';
import { Operator } from './changes.js';
import type { SoakEndpoint } from './endpoint.js';
import type { Kind } from './kinds.js';
import { Random } from './random.js';
import { runCallers } from './traffic.js';

/** Longest that what was begun may take when nothing new is begun any more: far more than any call, load or drain here. */
const LAST_ONES_MS = 120_000;
const QUIET_POLL_MS = 20;

export interface RoundReport {
  /** Of load: its beginning and its end not included. */
  seconds: number;
  cpuSeconds: number;
  loop: EventLoopReport;
}

/** What all rounds share. */
export interface Scene extends Omit<SoakEndpoint, 'kind' | 'random' | 'stop'> {
  readonly kinds: readonly Kind[];
  readonly seed: number;
}

/** The round with this number; `interrupted` ends its load early. */
export async function runRound(
  { kinds, seed, ...shared }: Scene,
  round: number,
  durationMs: number,
  interrupted: AbortSignal,
): Promise<RoundReport> {
  const stopping = new AbortController();
  const endpoints = kinds.map(
    (kind): SoakEndpoint => ({
      ...shared,
      kind,
      random: (part) => new Random(seed, `${round} ${kind.id} ${part}`),
      stop: stopping.signal,
    }),
  );
  const operators = endpoints.map((endpoint) => new Operator(endpoint));
  await Promise.all(operators.map((operator) => operator.begin()));
  const startedMs = performance.now();
  const cpuBefore = process.cpuUsage();
  const watched = watchEventLoop();
  const work = [...endpoints.map(runCallers), ...operators.map((operator) => operator.run())];
  const done = Promise.all(work);
  await Promise.race([
    pause(durationMs, undefined, { signal: interrupted }).catch(() => undefined),
    // Only a mistake of the soak itself ends it early.
    done,
  ]);
  stopping.abort();
  const { user, system } = process.cpuUsage(cpuBefore);
  const report = {
    seconds: (performance.now() - startedMs) / 1000,
    cpuSeconds: (user + system) / 1e6,
    loop: watched(),
  };
  await settledWithin(done, LAST_ONES_MS);
  await Promise.all(operators.map((operator) => operator.end()));
  await untilQuiet(shared.registry);
  return report;
}

/** Waits for native calls that nobody waits for any more, and for what drains with them. */
async function untilQuiet(registry: HandlerRegistry): Promise<void> {
  const endMs = performance.now() + LAST_ONES_MS;
  for (;;) {
    const { activeRequests, drainingCount } = registry.stats();
    if (activeRequests + drainingCount === 0 || performance.now() > endMs) return;
    await pause(QUIET_POLL_MS);
  }
}

/** The whole, from its parts: how busy on average, how late at worst. */
export function sumOf(rounds: readonly RoundReport[]): RoundReport {
  const seconds = total(rounds, (round) => round.seconds);
  const worst = (field: keyof EventLoopReport) =>
    Math.max(...rounds.map(({ loop }) => loop[field]).filter((value) => !Number.isNaN(value)));
  return {
    seconds,
    cpuSeconds: total(rounds, (round) => round.cpuSeconds),
    loop: {
      loopDelayP50Ms: worst('loopDelayP50Ms'),
      loopDelayP99Ms: worst('loopDelayP99Ms'),
      loopDelayMaxMs: worst('loopDelayMaxMs'),
      loopBusy: total(rounds, (round) => round.loop.loopBusy * round.seconds) / seconds,
    },
  };
}

function total(rounds: readonly RoundReport[], of: (round: RoundReport) => number): number {
  return rounds.reduce((sum, round) => sum + of(round), 0);
}
