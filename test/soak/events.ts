/** What the registry reports, compared with what callers were told. */

import type { HandlerRegistry, RegistryEvents } from '../../src/index.js';
import type { Ledger } from './ledger.js';

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
  'shed',
] as const satisfies (keyof RegistryEvents)[];

export interface EventWatch {
  /** Lanes (worker threads) that were started. */
  readonly started: number;
  /** Compares events and statistics with the ledger, while nothing goes on. */
  audit(): void;
  /** Every version that was loaded is gone. */
  auditClosed(): void;
  done(): void;
}

export function watchEvents(registry: HandlerRegistry, ledger: Ledger): EventWatch {
  const { events, outcomes } = ledger;
  let started = 0;
  const onWorker = () => {
    started += 1;
  };
  process.on('worker', onWorker);
  for (const event of COUNTED) registry.on(event, () => events.add(event));

  const equal = (what: string, reported: number, known: number) => {
    if (reported !== known)
      ledger.problem('events', `${what}: ${reported} reported, ${known} seen`);
  };
  return {
    get started() {
      return started;
    },
    audit() {
      const timeouts =
        outcomes.of('ERR_HANDLER_TIMEOUT (queued)') + outcomes.of('ERR_HANDLER_TIMEOUT (running)');
      equal('timeouts', events.of('timeout'), timeouts);
      const atTheDoor = outcomes.of('ERR_HANDLER_QUEUE_FULL');
      // Requests that waited when the last lane got stuck are refused as well, but had been let in.
      const refused = atTheDoor + outcomes.of('ERR_HANDLER_STUCK');
      const shed = events.of('shed');
      equal('requests that were shed', shed, Math.min(refused, Math.max(atTheDoor, shed)));
      const { activeRequests, drainingRequests, drainingCount } = registry.stats();
      equal('requests in flight at the end', activeRequests + drainingRequests, 0);
      equal('versions draining at the end', drainingCount, 0);
    },
    auditClosed() {
      equal('versions retired', events.of('retired'), events.of('loaded'));
    },
    done: () => process.off('worker', onWorker),
  };
}
