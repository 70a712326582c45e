/** What the registry reports, compared with what callers were told. */

import type { Worker } from 'node:worker_threads';
import type { HandlerRegistry, RegistryEvents } from '../../src/index.js';
import { isPrepareThread } from '../../src/library/prepare/prepare-thread.js';
import type { VersionIdentity } from '../../src/request-errors.js';
import { kinds } from './kinds.js';
import { Counts, type Ledger } from './ledger.js';
import type { Model } from './model.js';
import { hasFields } from './verdict.js';

const COUNTED = [
  'loaded',
  'loadFailed',
  'swapped',
  'drained',
  'retired',
  'timeout',
  'abandoned',
  'laneStuck',
  'laneExited',
  'laneReplaced',
  'laneRecycled',
  'crashLoop',
  'crashLoopEnded',
  'shed',
] as const satisfies (keyof RegistryEvents)[];

export interface EventWatch {
  /** Threads of lanes that have not ended. */
  readonly threads: ReadonlySet<Worker>;
  /** Lanes of an endpoint that were lost or got stuck, so far. */
  troublesOf(endpoint: string): number;
  /** Compares events and statistics with the ledger, while nothing goes on. */
  audit(): void;
  /** Every version that was loaded is gone, in this registry and the ones before. */
  auditClosed(): void;
  done(): void;
}

export function watchEvents(registry: HandlerRegistry, model: Model, ledger: Ledger): EventWatch {
  const { events, outcomes } = ledger;
  const troubles = new Counts();
  const threads = new Set<Worker>();
  const onWorker = (worker: Worker) => {
    if (isPrepareThread(worker)) return;
    ledger.lanesStarted += 1;
    threads.add(worker);
    worker.once('exit', () => threads.delete(worker));
  };
  process.on('worker', onWorker);
  const onWarning = (warning: Error) => ledger.problem('process', `warned: ${warning.message}`);
  process.on('warning', onWarning);
  for (const event of COUNTED) registry.on(event, () => events.add(event));
  for (const event of ['laneExited', 'laneStuck', 'crashLoop'] as const) {
    registry.on(event, ({ endpoint, version }: VersionIdentity) => {
      troubles.add(endpoint);
      ledger.step(`${endpoint}@${version}`, event);
    });
  }
  registry.on('laneExited', ({ endpoint, version, error }) => {
    const wasRefused = hasFields(error, { code: 'ERR_HANDLER_INIT_FAILED', handlerCode: 21 });
    if (!wasRefused && ledger.threadsEnding === 0) return;
    // No request has done that.
    ledger.crashing += 1;
    const known = model.of(endpoint).versions.get(version)?.known;
    if (known !== undefined) known.crashing += 1;
    if (wasRefused) return;
    ledger.threadsEnding -= 1;
    known?.countAnew();
  });
  registry.on('retired', ({ endpoint, version, report: { library, reason } }) => {
    if (library !== 'unloaded' || reason === undefined) return;
    ledger.problem(`${endpoint}@${version}`, `unloaded, but: ${reason}`);
  });
  registry.on('shed', ({ error }) => ledger.shed.add(error));
  registry.on('laneStuck', ({ endpoint, killed }) => {
    const inProcess = kinds.find(({ id }) => id === endpoint)?.options.isolation === 'process';
    if (killed) ledger.killed += 1;
    if (killed !== inProcess) ledger.problem(endpoint, `a stuck call, and killed is ${killed}`);
  });

  const equal = (what: string, reported: number, known: number) => {
    if (reported !== known)
      ledger.problem('events', `${what}: ${reported} reported, ${known} seen`);
  };
  const atMost = (what: string, number: number, most: number) => {
    if (number > most) ledger.problem('events', `${what}: ${number}, and at most ${most} can be`);
  };
  const exits = () => events.of('laneExited');
  return {
    threads,
    troublesOf: (endpoint) => troubles.of(endpoint),
    audit() {
      const timeouts =
        outcomes.of('ERR_HANDLER_TIMEOUT (queued)') + outcomes.of('ERR_HANDLER_TIMEOUT (running)');
      equal('timeouts', events.of('timeout'), timeouts);
      equal('requests that were shed', events.of('shed'), ledger.shedSeen);
      // Who had given up is not told, but the lane has ended all the same. Each takes a request that crashes.
      atMost('requests that ended a lane', outcomes.starting('ERR_HANDLER_LANE_EXITED'), exits());
      atMost('lanes that have ended', exits(), ledger.crashing);
      atMost('crash loops that were due', ledger.loopsDue, events.of('crashLoop'));
      const { activeRequests, drainingRequests, drainingCount } = registry.stats();
      equal('requests in flight at the end', activeRequests + drainingRequests, 0);
      equal('versions draining at the end', drainingCount, 0);
    },
    auditClosed() {
      equal('versions retired', events.of('retired'), events.of('loaded'));
    },
    done: () => {
      process.off('worker', onWorker);
      process.off('warning', onWarning);
    },
  };
}
