/** One soak, from the baseline to the verdict. */

import { mkdir, mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fixturesDir } from '../../fixtures/paths.js';
import { HandlerRegistry, type LeftBehind } from '../../src/index.js';
import { brokenLibraries } from './broken.js';
import { type EventWatch, watchEvents } from './events.js';
import { Fickle } from './fickle.js';
import { Forks } from './forks.js';
import { kinds } from './kinds.js';
import { Ledger } from './ledger.js';
import { showLive } from './live.js';
import { type MemoryPoint, memoryGrowth, memoryNow, roundsIn } from './memory.js';
import { Model } from './model.js';
import type { SoakOptions } from './options.js';
import { LARGEST_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES, Payloads } from './payloads.js';
import { Random } from './random.js';
import { type Comparison, leftOver, measureSettled, type Resources } from './resources.js';
import { type Plan, type RoundReport, runRound, sumOf } from './round.js';
import { Versions } from './versions.js';

/** For two of the largest requests, each of which takes a power of two; others have to wait. */
const MAX_REGION_BYTES = 32 * 1024 * 1024;

export interface SoakResult extends RoundReport {
  seed: number;
  patienceSeconds: number;
  endpoints: readonly string[];
  ledger: Ledger;
  /** Requests that were sent and never settled. */
  lost: number;
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

/** A registry, from its opening to its closing. */
interface Life {
  readonly registry: HandlerRegistry;
  readonly model: Model;
  readonly events: EventWatch;
}

function open(cacheDir: string, ledger: Ledger): Life {
  const registry = new HandlerRegistry({
    handlersDir: fixturesDir,
    cacheDir,
    maxPayloadBytes: MAX_PAYLOAD_BYTES,
    maxRegionBytes: Math.max(MAX_REGION_BYTES, LARGEST_PAYLOAD_BYTES),
    loadTimeoutMs: 60_000,
    drainTimeoutMs: 60_000,
    // A request without a timeout of its own must not time out.
    defaultTimeoutMs: Number.POSITIVE_INFINITY,
    closeTimeoutMs: 60_000,
  });
  const model = new Model();
  return { registry, model, events: watchEvents(registry, model, ledger) };
}

/** Ends a registry in which nothing goes on, and says what it has left behind. */
async function end({ registry, events }: Life, ledger: Ledger): Promise<LeftBehind[]> {
  events.audit();
  const { leftBehind, dropped } = await registry.close();
  events.auditClosed();
  events.done();
  for (const { endpoint, reason } of leftBehind) ledger.problem(endpoint, `left behind: ${reason}`);
  if (dropped > 0) ledger.problem('close', `${dropped} requests dropped, and none was sent`);
  return leftBehind;
}

/**
 * One round with a crowd, one that is closed in the middle, one plain, and so on. The crowd is in the first one, which is
 * where memory gets the size that it has from then on; a soak of one round is short, and has none.
 */
function planOf(round: number, rounds: number, durationMs: number): Plan {
  return { round, durationMs, crowd: rounds > 1 && round % 3 === 0, closes: round % 3 === 1 };
}

async function soak(
  options: SoakOptions,
  interrupted: AbortSignal,
  directory: string,
  cacheDir: string,
): Promise<SoakResult> {
  const { seed, minutes, only, changeEverySeconds, patienceSeconds } = options;
  const ledger = new Ledger();
  const payloads = new Payloads(new Random(seed, 'payloads'));
  const broken = await brokenLibraries(directory);
  const forksDir = join(directory, 'forks');
  await mkdir(forksDir);
  const forks = new Forks(forksDir);
  const fickle = new Fickle(join(directory, 'refuse'));
  const before = await measureSettled(cacheDir);
  let life = open(cacheDir, ledger);
  const taking = kinds.filter(({ id }) => only.includes(id));
  const startedMs = performance.now();
  const totalMs = minutes * 60_000;
  const registry = () => life.registry;
  const shown = showLive({ registry, ledger, totalMs, startedMs });
  const shared = {
    kinds: taking,
    seed,
    versions: new Versions(),
    ledger,
    payloads,
    forks,
    fickle,
    broken,
    changeEveryMs: changeEverySeconds * 1000,
    patienceMs: patienceSeconds * 1000,
  };
  const rounds: RoundReport[] = [];
  const memory: MemoryPoint[] = [];
  const count = roundsIn(totalMs);
  while (rounds.length < count && !interrupted.aborted && ledger.outstanding === 0) {
    const plan = planOf(rounds.length, count, totalMs / count);
    rounds.push(await runRound({ ...shared, ...life }, plan, interrupted));
    if (plan.closes) {
      // Closed it is already, and said then what it has left behind.
      life.events.audit();
      life.events.auditClosed();
      life.events.done();
      life = open(cacheDir, ledger);
    }
    const after = await measureSettled(cacheDir, before);
    judge(ledger, `after round ${rounds.length}`, leftOver(before, after));
    memory.push({
      ...(await memoryNow()),
      lanes: ledger.lanesStarted,
      requests: ledger.sent,
    });
  }
  shown();
  const lost = ledger.outstanding;
  if (lost > 0) ledger.problem('requests', `${lost} have not settled`);
  const leftBehind = await end(life, ledger);
  const after: Resources = await measureSettled(cacheDir, before);
  const resources = [...leftOver(before, after), ...memoryGrowth(memory)];
  judge(ledger, 'at the end', resources);
  return {
    seed,
    patienceSeconds,
    endpoints: taking.map(({ id }) => id),
    ...sumOf(rounds),
    ledger,
    lost,
    leftBehind,
    memory,
    resources,
  };
}

function judge(ledger: Ledger, when: string, resources: readonly Comparison[]): void {
  for (const { what, before, after, ok, names = [] } of resources) {
    const which = names.length === 0 ? '' : ` (${names.join(', ')})`;
    if (!ok) ledger.problem(what, `${after}${which} ${when}, ${before} at the beginning`);
  }
}
