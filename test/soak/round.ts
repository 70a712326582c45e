/**
 * One round of the soak: every endpoint is loaded, used and changed for a while, and unloaded again. Between two rounds nothing goes
 * on, so what the process holds then can be compared.
 */

import { setMaxListeners } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { type EventLoopReport, watchEventLoop } from '../../bench/harness/event-loop.js';
import { settledWithin } from '../../src/deferred.js';
import type { HandlerRegistry, VersionStats } from '../../src/index.js';
import { audit } from './audit.js';
import { Operator } from './changes.js';
import { crowdKinds, runCrowd } from './crowd.js';
import { activeStatsOf, type SoakEndpoint } from './endpoint.js';
import type { EventWatch } from './events.js';
import { runKiller } from './kills.js';
import type { Kind } from './kinds.js';
import type { Model } from './model.js';
import { Random } from './random.js';
import { Caller, runCallers } from './traffic.js';
import { WedgeWatch } from './wedges.js';

/** Longest that what was begun may take when nothing new is begun any more: far more than any call, load or drain here. */
const LAST_ONES_MS = 120_000;
const QUIET_POLL_MS = 20;
const MOST_ENDED_THREADS = 3;
/** Far longer than a lane needs to look at its mail. */
const LOOKED_MS = 100;
/** How often the registry is compared with its model. */
export const PER_SECOND = 20;
/** Closing takes as long as what goes on, or is cut short. */
const CLOSE_MS = [150, 60_000];

export interface RoundReport {
  /** Of load: its beginning and its end not included. */
  seconds: number;
  cpuSeconds: number;
  loop: EventLoopReport;
}

/** What all rounds share, as long as the same registry is open. */
export interface Scene
  extends Omit<SoakEndpoint, 'kind' | 'random' | 'stop' | 'closing' | 'model'> {
  readonly kinds: readonly Kind[];
  readonly seed: number;
  readonly model: Model;
  readonly events: EventWatch;
  readonly patienceMs: number;
}

/** What is special about a round. */
export interface Plan {
  readonly round: number;
  readonly durationMs: number;
  /** Whether many endpoints are loaded at once. */
  readonly crowd: boolean;
  /** Whether the registry is closed in the middle of everything. */
  readonly closes: boolean;
}

/** `interrupted` ends its load early. */
export async function runRound(
  scene: Scene,
  { round, durationMs, crowd, closes }: Plan,
  interrupted: AbortSignal,
): Promise<RoundReport> {
  const { kinds, seed, ledger } = scene;
  const [stopping, closing] = [new AbortController(), new AbortController()];
  // Everybody who pauses listens.
  setMaxListeners(0, stopping.signal);
  const signals = { stop: stopping.signal, closing: closing.signal };
  const endpointOf = (kind: Kind): SoakEndpoint => ({
    ...scene,
    ...signals,
    kind,
    model: scene.model.of(kind.id),
    random: (part) => new Random(seed, `${round} ${kind.id} ${part}`),
  });
  const endpoints = kinds.map(endpointOf);
  const operators = endpoints.map((endpoint) => new Operator(endpoint));
  ledger.step('round', `${round + 1} begins`);
  await Promise.all(operators.map((operator) => operator.begin()));
  const startedMs = performance.now();
  const cpuBefore = process.cpuUsage();
  const watched = watchEventLoop();
  const unwatch = watchModel(scene, endpoints);
  const random = new Random(seed, `${round}`);
  const work = [
    ...endpoints.map(runCallers),
    ...endpoints.map(runKiller),
    ...endpoints.filter(({ kind }) => kind.fickle).map((each) => each.fickle.run(each)),
    ...operators.map((operator) => operator.run()),
  ];
  if (crowd) work.push(runCrowd(crowdKinds.map(endpointOf), random.int(0, durationMs / 2)));
  const done = Promise.all(work);
  await Promise.race([
    pause(durationMs, undefined, { signal: interrupted }).catch(() => undefined),
    // Only a mistake of the soak itself ends it early.
    done,
  ]);
  if (closes) await closeInTheMiddle(scene, closing, random.pick(CLOSE_MS));
  stopping.abort();
  const { user, system } = process.cpuUsage(cpuBefore);
  const report = {
    seconds: (performance.now() - startedMs) / 1000,
    cpuSeconds: (user + system) / 1e6,
    loop: watched(),
  };
  await settledWithin(done, LAST_ONES_MS);
  // What is left now are calls that nobody waits for.
  await until(() => scene.registry.stats().activeRequests === 0);
  if (!closes) {
    await Promise.all(endpoints.map((each) => untilWell(each, scene.patienceMs)));
    const isInProcess = ({ kind }: SoakEndpoint) => kind.options.isolation === 'process';
    const ends = operators.filter((_, index) => isInProcess(endpoints[index] as SoakEndpoint));
    await Promise.all(ends.map((operator) => operator.end()));
    await endThreads(
      scene,
      endpoints.filter((each) => !isInProcess(each)),
      random,
    );
  }
  await Promise.all(operators.map((operator) => operator.end()));
  scene.forks.endAll();
  await until(() => isQuiet(scene));
  unwatch();
  for (const { handler } of scene.model.versions()) {
    if (handler.state === 'retired') continue;
    ledger.problem(`${handler.id}@${handler.version}`, `${handler.state} at the end of a round`);
  }
  ledger.step('round', `${round + 1} has ended`);
  return report;
}

/** Looks at everything until the function that it returns is called, which looks once more. */
function watchModel(scene: Scene, endpoints: readonly SoakEndpoint[]): () => void {
  const { registry, model, ledger, patienceMs } = scene;
  const watches = endpoints.map((endpoint) => ({
    endpoint,
    watch: new WedgeWatch(patienceMs),
  }));
  const look = () => {
    audit(registry, model, ledger);
    for (const { endpoint, watch } of watches) lookAt(scene, endpoint, watch);
  };
  const timer = setInterval(look, 1000 / PER_SECOND);
  return () => {
    clearInterval(timer);
    look();
  };
}

function lookAt({ events }: Scene, endpoint: SoakEndpoint, watch: WedgeWatch) {
  const { kind, model, ledger } = endpoint;
  const active = activeStatsOf(endpoint);
  const known = model.active?.known;
  if (active === undefined || known === undefined) return;
  const found = watch.look({
    nowMs: performance.now(),
    version: active.version,
    threads: model.threads,
    lanes: active.lanes,
    refusing: active.refusing,
    unsettled: known.unsettled,
    ended: known.ended,
    troubles: events.troublesOf(kind.id),
    killed: known.killed,
  });
  for (const symptom of found) {
    ledger.problem(kind.id, `wedged, it ${symptom}: ${inWords(active)}`);
  }
}

/** What its lanes are doing. */
function inWords(active: VersionStats): string {
  const { version, lanes, refusing, queued, running, abandoned, processIds } = active;
  return JSON.stringify({ version, lanes, refusing, queued, running, abandoned, processIds });
}

/** Whatever has happened to it, an endpoint that is left in peace comes to answer with all its lanes. */
async function untilWell(endpoint: SoakEndpoint, patienceMs: number): Promise<void> {
  const { kind, model, ledger } = endpoint;
  const caller = new Caller(endpoint, endpoint.random('in peace'));
  const endMs = performance.now() + patienceMs;
  for (;;) {
    const active = activeStatsOf(endpoint);
    if (active === undefined) return;
    const { lanes, refusing } = active;
    if (refusing === null && lanes.serving === model.threads) return;
    if (performance.now() > endMs) {
      ledger.problem(kind.id, `left in peace, it does not recover: ${inWords(active)}`);
      return;
    }
    // The circuit of lanes that were lost in a row is closed by an answer.
    await settledWithin(caller.sendQuietly(), patienceMs);
    await pause(QUIET_POLL_MS);
  }
}

/**
 * Ends threads of lanes that sleep, and asks all endpoints in the same turn: nothing is lost. (A thread that may be in native code must
 * not be ended by anybody; that is why there is nothing else going on, and why threads that look after processes are left alone.)
 */
async function endThreads(
  scene: Scene,
  endpoints: readonly SoakEndpoint[],
  random: Random,
): Promise<void> {
  const { registry, events, ledger } = scene;
  for (let times = 0; times < MOST_ENDED_THREADS; times++) {
    const areAsleep = () => {
      const versions = registry.stats().endpoints.flatMap(({ versions }) => versions);
      const lanes = versions.reduce((sum, { lanes }) => sum + lanes.serving, 0);
      return lanes === events.threads.size;
    };
    await until(areAsleep);
    // A lane that was told of new memory looks at it, also if it has nothing to do with it. That is not to be seen from here.
    await pause(LOOKED_MS);
    const thread = random.pick([...events.threads]);
    if (thread === undefined) return;
    ledger.step('threads', `thread ${thread.threadId} is ended`);
    ledger.threadsEnded += 1;
    ledger.threadsEnding += 1;
    const ended = thread.terminate();
    const callers = endpoints.map((each) => new Caller(each, each.random(`after ${times}`)));
    await Promise.all(callers.map((caller) => caller.sendQuietly()));
    await ended;
    await until(() => ledger.threadsEnding === 0);
    if (ledger.threadsEnding > 0) ledger.problem('threads', 'the end of one was not told');
    await Promise.all(endpoints.map((each) => untilWell(each, scene.patienceMs)));
  }
}

async function closeInTheMiddle(
  { registry, model, ledger }: Scene,
  closing: AbortController,
  timeoutMs: number,
): Promise<void> {
  ledger.step('close', `within ${timeoutMs} ms`);
  const droppedBefore = ledger.dropped;
  const closed = registry.close({ timeoutMs });
  closing.abort();
  model.closed();
  const { dropped, leftBehind } = await closed;
  ledger.changes.add('closed in the middle');
  const known = ledger.dropped - droppedBefore;
  if (dropped !== known) ledger.problem('close', `${dropped} reported as dropped, ${known} were`);
  const cutShort = timeoutMs === CLOSE_MS[0];
  for (const { endpoint, reason } of cutShort ? [] : leftBehind) {
    ledger.problem(endpoint, `left behind: ${reason}`);
  }
}

/** Nothing is in flight, and every version has retired. */
function isQuiet({ registry, model }: Scene): boolean {
  const { activeRequests, drainingCount } = registry.stats();
  const isLeft = ({ handler }: { handler: HandlerState }) => handler.state !== 'retired';
  return activeRequests + drainingCount === 0 && !model.versions().some(isLeft);
}

type HandlerState = Pick<ReturnType<HandlerRegistry['list']>[number], 'state'>;

/** Waits for native calls that nobody waits for any more, and for what drains with them. */
async function until(isThere: () => boolean): Promise<void> {
  const endMs = performance.now() + LAST_ONES_MS;
  while (!isThere() && performance.now() < endMs) await pause(QUIET_POLL_MS);
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
