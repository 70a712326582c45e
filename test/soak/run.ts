/** One soak, from the baseline to the verdict. */

import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fixturesDir } from '../../fixtures/paths.js';
import { HandlerRegistry, type LeftBehind } from '../../src/index.js';
import { brokenLibraries } from './broken.js';
import { watchEvents } from './events.js';
import { kinds } from './kinds.js';
import { Ledger } from './ledger.js';
import { showLive } from './live.js';
import { type MemoryPoint, memoryGrowth, memoryNow, roundsIn } from './memory.js';
import type { SoakOptions } from './options.js';
import { MAX_PAYLOAD_BYTES, Payloads } from './payloads.js';
import { Random } from './random.js';
import { type Comparison, leftOver, measureSettled } from './resources.js';
import { type RoundReport, runRound, sumOf } from './round.js';
import { Versions } from './versions.js';

export interface SoakResult extends RoundReport {
  seed: number;
  endpoints: readonly string[];
  ledger: Ledger;
  /** Requests that were sent and never settled. */
  lost: number;
  lanesStarted: number;
  leftBehind: LeftBehind[];
  /** After each round. */
  memory: MemoryPoint[];
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
  const taking = kinds.filter(({ id }) => only.includes(id));
  const startedMs = performance.now();
  const totalMs = minutes * 60_000;
  const shown = showLive({ registry, ledger, totalMs, startedMs });
  const scene = {
    kinds: taking,
    seed,
    registry,
    versions: new Versions(),
    ledger,
    payloads,
    broken,
  };
  const rounds: RoundReport[] = [];
  const memory: MemoryPoint[] = [];
  const count = roundsIn(totalMs);
  while (rounds.length < count && !interrupted.aborted && ledger.outstanding === 0) {
    rounds.push(await runRound(scene, rounds.length, totalMs / count, interrupted));
    memory.push({ ...(await memoryNow()), lanes: lanes.started, requests: ledger.sent });
  }
  shown();
  const lost = ledger.outstanding;
  if (lost > 0) ledger.problem('requests', `${lost} have not settled`);
  lanes.audit();
  const { leftBehind, dropped } = await registry.close();
  for (const { endpoint, reason } of leftBehind) ledger.problem(endpoint, `left behind: ${reason}`);
  if (dropped > 0) ledger.problem('close', `${dropped} requests dropped, and none was sent`);
  lanes.auditClosed();
  const after = await measureSettled(cacheDir, before);
  const resources = [...leftOver(before, after), ...memoryGrowth(memory)];
  lanes.done();
  for (const { what, before: from, after: to, ok } of resources) {
    if (!ok) ledger.problem(what, `${to} at the end, ${from} at the beginning`);
  }
  return {
    seed,
    endpoints: taking.map(({ id }) => id),
    ...sumOf(rounds),
    ledger,
    lost,
    lanesStarted: lanes.started,
    leftBehind,
    memory,
    resources,
  };
}
