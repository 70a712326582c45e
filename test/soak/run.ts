/** One soak, from the baseline to the verdict. */

import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { type EventLoopReport, watchEventLoop } from '../../bench/harness/event-loop.js';
import { fixturesDir } from '../../fixtures/paths.js';
import { settledWithin } from '../../src/deferred.js';
import { HandlerRegistry, type LeftBehind } from '../../src/index.js';
import { brokenLibraries } from './broken.js';
import { Operator } from './changes.js';
import type { SoakEndpoint } from './endpoint.js';
import { watchEvents } from './events.js';
import { kinds } from './kinds.js';
import { Ledger } from './ledger.js';
import { showLive } from './live.js';
import type { SoakOptions } from './options.js';
import { MAX_PAYLOAD_BYTES, Payloads } from './payloads.js';
import { Random } from './random.js';
import { type Comparison, leftOver, measureSettled } from './resources.js';
import { runCallers } from './traffic.js';
import { Versions } from './versions.js';

/** Longest that what was begun may take when nothing new is begun any more: far more than any call, load or drain here. */
const LAST_ONES_MS = 120_000;
const QUIET_POLL_MS = 20;
const SAMPLES = 12;

export interface MemorySample {
  minute: number;
  rssKiB: number;
}

export interface SoakResult {
  seed: number;
  endpoints: readonly string[];
  /** Seconds of load, the end not included. */
  seconds: number;
  ledger: Ledger;
  /** Requests that were sent and never settled. */
  lost: number;
  lanesStarted: number;
  leftBehind: LeftBehind[];
  loop: EventLoopReport;
  cpuSeconds: number;
  memory: MemorySample[];
  resources: Comparison[];
}

export async function runSoak(options: SoakOptions, interrupted: AbortSignal): Promise<SoakResult> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'changeover-soak-'));
  const cacheDir = await mkdtemp(join(directory, 'cache-'));
  try {
    await warmUp(cacheDir);
    return await soak(options, interrupted, directory, cacheDir);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** What the first load, call and close leave for ever (thread pool, koffi, compiled code) is not the soak's. */
async function warmUp(cacheDir: string): Promise<void> {
  const registry = new HandlerRegistry({ handlersDir: fixturesDir, cacheDir, threads: 2 });
  await registry.load('echo');
  await registry.execute('echo', {}, new Uint8Array(MAX_PAYLOAD_BYTES / 2));
  await registry.close();
}

async function soak(
  options: SoakOptions,
  interrupted: AbortSignal,
  directory: string,
  cacheDir: string,
): Promise<SoakResult> {
  const { seed, minutes, only } = options;
  const ledger = new Ledger();
  const payloads = new Payloads(new Random(seed, 'payloads'));
  const broken = await brokenLibraries(directory);
  const before = await measureSettled(cacheDir);
  const registry = new HandlerRegistry({
    handlersDir: fixturesDir,
    cacheDir,
    maxPayloadBytes: MAX_PAYLOAD_BYTES,
    loadTimeoutMs: 60_000,
    drainTimeoutMs: 60_000,
    // A request without a timeout of its own must not time out.
    defaultTimeoutMs: Number.POSITIVE_INFINITY,
    closeTimeoutMs: 60_000,
  });
  const lanes = watchEvents(registry, ledger);
  const stopping = new AbortController();
  const stop = stopping.signal;
  const versions = new Versions();
  const taking = kinds.filter(({ id }) => only.includes(id));
  const endpoints = taking.map(
    (kind): SoakEndpoint => ({ kind, seed, registry, versions, ledger, payloads, broken, stop }),
  );
  const operators = endpoints.map((endpoint) => new Operator(endpoint));
  await Promise.all(operators.map((operator) => operator.begin()));

  const startedMs = performance.now();
  const cpuBefore = process.cpuUsage();
  const loop = watchEventLoop();
  const totalMs = minutes * 60_000;
  const shown = showLive({ registry, ledger, totalMs, startedMs });
  const work = [...endpoints.map(runCallers), ...operators.map((operator) => operator.run())];
  const memory: MemorySample[] = [];
  const sampling = setInterval(() => {
    const minute = (performance.now() - startedMs) / 60_000;
    memory.push({ minute, rssKiB: Math.round(process.memoryUsage.rss() / 1024) });
  }, totalMs / SAMPLES);
  const failed = Promise.all(work);
  await Promise.race([
    pause(totalMs, undefined, { signal: interrupted }).catch(() => undefined),
    // Only a mistake of the soak itself ends it early.
    failed,
  ]);
  clearInterval(sampling);
  stopping.abort();
  const seconds = (performance.now() - startedMs) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  const loopReport = loop();
  await settledWithin(failed, LAST_ONES_MS);
  await untilQuiet(registry);
  shown();
  const lost = ledger.outstanding;
  if (lost > 0) ledger.problem('requests', `${lost} have not settled`);
  lanes.audit();
  const { leftBehind, dropped } = await registry.close();
  for (const { endpoint, reason } of leftBehind) ledger.problem(endpoint, `left behind: ${reason}`);
  if (dropped > 0) ledger.problem('close', `${dropped} requests dropped, and none was sent`);
  lanes.auditClosed();
  const after = await measureSettled(cacheDir, before);
  const resources = leftOver(before, after, lanes.started);
  lanes.done();
  for (const { what, before: from, after: to, ok } of resources) {
    if (!ok) ledger.problem(what, `${to} at the end, ${from} at the beginning`);
  }
  return {
    seed,
    endpoints: taking.map(({ id }) => id),
    seconds,
    ledger,
    lost,
    lanesStarted: lanes.started,
    leftBehind,
    loop: loopReport,
    cpuSeconds: (user + system) / 1e6,
    memory,
    resources,
  };
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
