/**
 * One endpoint with its versions, dispatchers and rings, all real; what is around them (threads, timers, copies, the
 * kernel's mappings) does only what it is told to, one event at a time.
 */

import { strict as assert } from 'node:assert';
import { basename } from 'node:path';
import * as deferredModule from '../../src/deferred.js';
import * as dispatcherModule from '../../src/dispatcher.js';
import type { DrainReport } from '../../src/drain-report.js';
import type { Endpoint } from '../../src/endpoint.js';
import * as errors from '../../src/errors.js';
import type { LanesParts } from '../../src/lanes.js';
import { plainPlan } from '../../src/library/load-plan.js';
import type { Prepared } from '../../src/library/prepare/prepare.js';
import * as systemErrors from '../../src/library/system-errors.js';
import { LoadQueue } from '../../src/load-queue.js';
import * as options from '../../src/options.js';
import * as permission from '../../src/permission.js';
import * as regions from '../../src/regions.js';
import * as requestErrors from '../../src/request-errors.js';
import { NOTHING, RingConsumer } from '../../src/ring/consumer.js';
import { CONTROL, SLOT, SLOT_DOUBLE, STATUS, slotAt, slotDoubleAt } from '../../src/ring/layout.js';
import * as producer from '../../src/ring/producer.js';
import type { Version } from '../../src/version.js';
import * as versionState from '../../src/version-state.js';
import { type Change, changed, compiledSource, runModule } from '../support/compiled.js';

const { deferred } = deferredModule;
const NO_SLOT = -1;
const MAX_IN_FLIGHT = 2;

/** What someone asks of the endpoint. */
export type Operation = 'swap' | 'swapGraceful' | 'unload' | 'unloadGraceful' | 'close';

export interface Scenario {
  readonly name: string;
  /** In this order, each at any time after the one before. A first version is active already. */
  readonly operations: readonly Operation[];
  readonly requests: number;
  /** Whether loads may fail. */
  readonly failures?: boolean;
  /** Lanes that may die. */
  readonly deaths?: number;
  /** Whether native calls never return. */
  readonly hangs?: boolean;
}

export interface Event {
  readonly name: string;
  happen(): void;
}

const sources = { version: compiledSource('version.js'), endpoint: compiledSource('endpoint.js') };

/** A change to the compiled text of one module. */
export interface Mutation extends Change {
  readonly module: keyof typeof sources;
}

function sourceOf(module: keyof typeof sources, mutation: Mutation | undefined): string {
  return mutation?.module === module ? changed(sources[module], mutation) : sources[module];
}

/** Stands in for the threads of a version: one lane, which the scenario moves. */
class Lane {
  readonly started = deferred<object>();
  readonly gone = deferred<void>();
  /** Nothing is kept mapped. */
  readonly kept: never[] = [];
  readonly ring: RingConsumer;
  readonly #parts: LanesParts;
  phase: 'starting' | 'serving' | 'stopping' | 'gone' | 'destroyed' | 'dead' = 'starting';
  stopWanted = false;
  running = NO_SLOT;

  constructor(parts: LanesParts) {
    this.#parts = parts;
    const { memory, layout } = parts.standby.ring;
    this.ring = new RingConsumer(memory, layout, 0, () => undefined);
    this.started.promise.catch(() => undefined);
  }

  start(): Promise<object> {
    return this.started.promise;
  }

  stop(): Promise<void> {
    if (this.phase === 'serving')
      assert(this.#parts.standby.ring.inFlight === 0, 'stopped with requests');
    this.stopWanted = true;
    return this.gone.promise;
  }

  destroy(): Promise<void> {
    assert(this.phase === 'gone', 'destroyed before it has left');
    this.phase = 'destroyed';
    return Promise.resolve();
  }

  announce(): void {}
  callStuck(): void {}
  callReturned(): void {}
  requestAnswered(): void {}
  counts() {
    return { starting: 0, serving: 1, stuck: 0 };
  }

  // ---- What the scenario does with it ----

  take(): void {
    this.running = this.ring.take();
    if (this.running === NOTHING) this.#parts.hooks.doorbell();
  }

  complete(): void {
    const { words, doubles, layout } = this.ring;
    words[slotAt(layout, this.running) + SLOT.STATUS] = STATUS.OK;
    doubles[slotDoubleAt(layout, this.running) + SLOT_DOUBLE.RESPONSE_LENGTH] = 0;
    this.ring.complete(this.running);
    this.running = NO_SLOT;
    this.#parts.hooks.doorbell();
  }

  /** Its thread ends, and another takes its place. */
  die(): void {
    this.#parts.hooks.collect();
    const slot = this.#parts.standby.ring.bury(0);
    this.running = NO_SLOT;
    const cause = new Error('died');
    this.#parts.hooks.laneExited({ lane: 0, slot, cause, end: null, expected: false });
  }

  get hasWork(): boolean {
    const { words } = this.ring;
    return words[CONTROL.HEAD] !== words[CONTROL.TAIL];
  }

  get fingerprint(): string {
    const { words, layout } = this.ring;
    const slots = [0, 1].map((slot) => words[slotAt(layout, slot) + SLOT.STATE]);
    const ledger = this.#parts.standby.ring.inFlight;
    return `${this.phase}${this.stopWanted}${this.running}/${slots}/${ledger}/${this.hasWork}`;
  }
}

/** A library that needs nothing, and is loaded as it is. */
const PREPARED: Prepared = {
  plan: plainPlan('/copy'),
  binding: { mode: 'default', reason: '', symbols: [], symbolCount: 0 },
  dependencies: [],
  patches: [],
  sharedStatics: null,
  obstacle: null,
  ownLibraries: [],
  whyMapped: new Map(),
  lasting: [],
  remove: () => Promise.resolve(),
};

const newRing = () => new producer.RingProducer({ slots: 32, lanes: 1 }, MAX_IN_FLIGHT);

interface Timer {
  readonly name: string;
  readonly fire: () => void;
  unref(): Timer;
}

interface Request {
  outcome: string | null;
  settled: number;
  version: Version;
}

export class World {
  readonly #scenario: Scenario;
  readonly #timers = new Set<Timer>();
  readonly #lanes: Lane[] = [];
  readonly #versions: Version[] = [];
  readonly #requests: Request[] = [];
  readonly #dropsAllowed = new Set<Version>();
  readonly #reports: (DrainReport | null)[] = [];
  readonly #outcomes: (string | null)[] = [];
  readonly #closing = new AbortController();
  readonly #endpoint: Endpoint & { $draining: Set<Version>; $hanging: Set<Version> };
  #operations = 0;
  #deaths = 0;
  #copies = 0;
  #held = 0;

  constructor(scenario: Scenario, mutation?: Mutation) {
    this.#scenario = scenario;
    const globals = {
      setTimeout: this.#setTimeout,
      clearTimeout: this.#clearTimeout,
      performance: { now: () => 0 },
    };
    const real = {
      'node:assert': { strict: assert },
      'node:path': { basename },
      './dispatcher.js': dispatcherModule,
      './errors.js': errors,
      './library/system-errors.js': systemErrors,
      './options.js': options,
      './permission.js': permission,
      './regions.js': regions,
      './request-errors.js': requestErrors,
      './ring/producer.js': producer,
      './version-state.js': versionState,
    };
    const around = {
      'p-timeout': { default: this.#pTimeout },
      './deferred.js': { deferred, settledWithin: this.#settledWithin },
      './native-functions.js': { bindNativeFunctions: () => Promise.resolve() },
      './permission.js': { checkChildAllowed: () => undefined, permissionError: () => null },
      './library/mappings.js': { readMaps: () => Promise.resolve(''), listsFile: () => false },
      './library/prepare/prepare.js': { prepareLibrary: () => Promise.resolve(PREPARED) },
      './library/prepare/prepare-thread.js': { startAhead: () => undefined },
      './preflight/child.js': {},
      './lanes.js': { Lanes: this.#laneClass() },
      './standby.js': { Standby: { create: async () => ({ ring: newRing() }) } },
      './preflight/preflight.js': { preflight: null },
    };
    const modules = { ...real, ...around };
    const { Version: Base } = runModule(sourceOf('version', mutation), { globals, modules }) as {
      Version: typeof Version;
    };
    const versions = this.#versions;
    class Known extends Base {
      constructor(parts: ConstructorParameters<typeof Version>[0]) {
        super(parts);
        versions.push(this);
      }
    }
    const { Endpoint: EndpointClass } = runModule(sourceOf('endpoint', mutation), {
      globals,
      modules: { ...modules, './version.js': { Version: Known } },
    }) as { Endpoint: typeof Endpoint };
    this.#endpoint = new EndpointClass({
      id: 'it',
      options: options.resolveRegistryOptions({
        threads: 1,
        maxInFlight: MAX_IN_FLIGHT,
        defaultTimeoutMs: Number.POSITIVE_INFINITY,
        preflight: false,
      }).endpoint,
      store: { copy: () => Promise.resolve(this.#copy()) } as never,
      loads: new LoadQueue(1),
      regionBudget: new regions.RegionBudget(2 ** 28),
      keepAlive: {
        hold: () => void this.#held++,
        release: () => void this.#held--,
        during: async <T>(work: () => Promise<T>) => {
          this.#held++;
          return work().finally(() => void this.#held--);
        },
      } as never,
      report: () => undefined,
    }) as never;
  }

  // ---- What is around ----------------------------------------------------------------------------

  #laneClass() {
    const lanes = this.#lanes;
    return class extends Lane {
      constructor(parts: LanesParts) {
        super(parts);
        lanes.push(this);
      }
    };
  }

  #copy() {
    this.#copies += 1;
    const lanes = this.#lanes;
    const mine = lanes.length;
    const remove = () => {
      assert(lanes[mine]?.phase === 'destroyed', 'a copy is removed before its lanes are gone');
      this.#copies -= 1;
      return Promise.resolve();
    };
    return { path: '/copy', sha256: '', remove };
  }

  readonly #setTimeout = (fire: () => void, delayMs: number): Timer => {
    const timer: Timer = { name: `${delayMs} ms`, fire, unref: () => timer };
    this.#timers.add(timer);
    return timer;
  };

  readonly #clearTimeout = (timer: Timer): void => {
    this.#timers.delete(timer);
  };

  readonly #pTimeout = <T>(
    work: Promise<T>,
    more: { milliseconds: number; signal?: AbortSignal; message?: Error; fallback?: () => T },
  ): Promise<T> => {
    const { milliseconds, signal, message, fallback } = more;
    return new Promise((resolve, reject) => {
      // Loads may only take too long where they may fail.
      const mayFire = fallback !== undefined || (this.#scenario.failures ?? false);
      const fire = () => (fallback === undefined ? reject(message) : resolve(fallback()));
      const timer = mayFire ? this.#setTimeout(fire, milliseconds) : null;
      signal?.addEventListener('abort', () => reject(signal.reason));
      work.then(resolve, reject).finally(() => {
        if (timer !== null) this.#clearTimeout(timer);
      });
    });
  };

  readonly #settledWithin = async (work: Promise<unknown>, milliseconds: number): Promise<void> => {
    await this.#pTimeout(work, { milliseconds, fallback: () => undefined });
  };

  // ---- Events --------------------------------------------------------------------------------------

  /** The first version, active. */
  async begin(): Promise<void> {
    const loading = this.#replace(true);
    await settle();
    this.#ready(this.#lanes[0] as Lane);
    await loading;
    await settle();
  }

  events(): Event[] {
    const { operations, requests, failures, deaths = 0, hangs } = this.#scenario;
    const events: Event[] = [];
    const add = (name: string, happen: () => void) => events.push({ name, happen });
    const operation = operations[this.#operations];
    if (operation !== undefined) add(operation, () => this.#operate(operation));
    if (this.#requests.length < requests && this.#endpoint.active !== null) {
      add('request', () => this.#request());
    }
    for (const [index, lane] of this.#lanes.entries()) {
      const name = (what: string) => `lane ${index} ${what}`;
      if (lane.phase === 'starting' && !lane.stopWanted) {
        add(name('is ready'), () => this.#ready(lane));
        for (let turns = 0; operation === 'close' && turns < 10; turns++) {
          add(name(`is ready, and ${turns} microtasks later it closes`), () => {
            this.#operations += 1;
            this.#ready(lane);
            void microtasks(turns).then(() => this.#close());
          });
        }
        if (failures) add(name('is refused'), () => this.#refuse(lane));
      }
      const works = lane.phase === 'serving';
      if (works && lane.running !== NO_SLOT && !hangs) {
        add(name('completes'), () => lane.complete());
      }
      if (works && lane.running === NO_SLOT && lane.hasWork) add(name('takes'), () => lane.take());
      if (works && this.#deaths < deaths && !lane.stopWanted) {
        add(name('dies'), () => {
          this.#deaths += 1;
          lane.die();
        });
      }
      if (
        lane.stopWanted &&
        lane.phase !== 'gone' &&
        lane.phase !== 'destroyed' &&
        lane.running === NO_SLOT
      ) {
        add(name('leaves'), () => {
          lane.phase = 'gone';
          lane.gone.resolve();
        });
      }
    }
    for (const timer of this.#timers) {
      add(`${timer.name} pass`, () => {
        this.#timers.delete(timer);
        timer.fire();
      });
    }
    return events;
  }

  #ready(lane: Lane): void {
    lane.phase = 'serving';
    lane.started.resolve({ name: null, version: null, description: null });
  }

  #refuse(lane: Lane): void {
    lane.started.reject(new errors.LoadFailedError('refused', '/path', { endpoint: 'it' }));
  }

  #replace(graceful: boolean): Promise<unknown> {
    const endpoint = this.#endpoint;
    const index = this.#outcomes.push(null) - 1;
    const result = endpoint.enqueue(async () => {
      const before = endpoint.active;
      try {
        const replaced = await endpoint.replace(
          '/path',
          undefined,
          { graceful },
          this.#closing.signal,
        );
        if (before !== null && !graceful) this.#dropsAllowed.add(before);
        assert(endpoint.active === replaced.version, 'what was loaded is not active');
        this.#follow(replaced.result.drained);
      } catch (error) {
        assert(endpoint.active === before, 'a failed load changed what is active');
        throw error;
      }
    });
    return result.then(
      () => {
        this.#outcomes[index] = 'done';
      },
      (error: unknown) => {
        this.#outcomes[index] = `failed: ${(error as { code?: string }).code}`;
      },
    );
  }

  #operate(operation: Operation): void {
    this.#operations += 1;
    const endpoint = this.#endpoint;
    switch (operation) {
      case 'swap':
      case 'swapGraceful':
        void this.#replace(operation === 'swapGraceful');
        return;
      case 'close':
        this.#close();
        return;
      default: {
        const index = this.#outcomes.push(null) - 1;
        const unloading = endpoint.enqueue(async () => {
          const version = endpoint.active;
          if (version !== null && operation === 'unload') this.#dropsAllowed.add(version);
          this.#follow(endpoint.retireActive('unload', operation === 'unload' ? 0 : 500));
        });
        unloading.then(
          () => {
            this.#outcomes[index] = 'done';
          },
          (error: unknown) => {
            this.#outcomes[index] = `failed: ${(error as { code?: string }).code}`;
          },
        );
      }
    }
  }

  #close(): void {
    const endpoint = this.#endpoint;
    this.#closing.abort(new errors.RegistryClosedError('closed'));
    for (const version of this.#versions) this.#dropsAllowed.add(version);
    if (endpoint.active !== null) this.#follow(endpoint.retireActive('close', 1000));
    for (const version of endpoint.draining) version.dropNow('close');
  }

  #follow(drained: Promise<DrainReport> | undefined): void {
    if (drained === undefined) return;
    const index = this.#reports.push(null) - 1;
    drained.then((report) => {
      assert(this.#reports[index] === null, 'a report settles once');
      this.#reports[index] = report;
    });
  }

  #request(): void {
    const version = this.#endpoint.active as Version;
    const request: Request = { outcome: null, settled: 0, version };
    this.#requests.push(request);
    version.execute({}, 'x').then(
      () => {
        request.settled += 1;
        request.outcome = 'ok';
      },
      (error: { code?: string }) => {
        request.settled += 1;
        request.outcome = error.code ?? String(error);
      },
    );
  }

  // ---- What must hold ---------------------------------------------------------------------------------

  check(fired: string): void {
    assert(this.#held >= 0, 'released more often than held');
    if (this.#endpoint.active !== null) assert.equal(this.#endpoint.active.state, 'active');
    for (const [index, version] of this.#versions.entries()) {
      const lane = this.#lanes[index] as Lane;
      const { state, activeRequests } = version;
      if (lane.running !== NO_SLOT) assert(activeRequests > 0, 'running and not in flight');
      const owed = this.#requests.some((r) => r.version === version && r.settled === 0);
      if (state === 'draining')
        assert(activeRequests > 0 || owed, 'draining, and nothing to wait for');
      if (state === 'active') assert(lane.phase === 'serving', `active while ${lane.phase}`);
      if (state === 'drained' || state === 'retired') assert.equal(activeRequests, 0);
      if (state === 'retired') assert.equal(lane.phase, 'destroyed');
      // The drain timeout is the one thing that takes requests from a version that drains gracefully.
      if (fired === '500 ms pass' || fired === `${version.options.drainTimeoutMs} ms pass`) {
        if (version.draining) this.#dropsAllowed.add(version);
      }
    }
    for (const { outcome, settled, version } of this.#requests) {
      assert(settled <= 1, 'a request is answered once');
      const allowed = [null, 'ok'];
      if (this.#deaths > 0) allowed.push('ERR_HANDLER_LANE_EXITED');
      if (this.#dropsAllowed.has(version)) allowed.push('ERR_HANDLER_DROPPED');
      assert(allowed.includes(outcome), `a request ended with ${outcome}`);
    }
  }

  /** Nothing more can happen. */
  checkEnd(): void {
    for (const { settled } of this.#requests) assert.equal(settled, 1, 'a request is unanswered');
    assert(!this.#outcomes.includes(null), 'an operation is not done');
    assert(!this.#reports.includes(null), 'a report is missing');
    if (this.#lanes.some(({ running }) => running !== NO_SLOT)) return;
    const { active } = this.#endpoint;
    // Not compared by `equal`: newer Nodes describe what differs, of a whole version with its memory, in all memory there is.
    if (this.#closing.signal.aborted) assert(active === null, 'active after closing');
    for (const version of this.#versions) {
      const over = version.state === 'retired' || version.state === 'failed';
      assert(over || version === active, `at the end a version is ${version.state}`);
    }
    assert.equal(this.#copies, active === null ? 0 : 1, 'copies');
    assert.equal(this.#held, 0, 'the process is kept alive');
    assert.equal(this.#endpoint.$draining.size + this.#endpoint.$hanging.size, 0, 'left over');
  }

  /** All that decides what can happen from here. */
  fingerprint(): string {
    return JSON.stringify([
      this.#operations,
      this.#deaths,
      this.#copies,
      this.#held,
      this.#outcomes,
      this.#reports.map((report) => report?.library ?? null),
      this.#requests.map(({ outcome, version }) => [outcome, version.version]),
      this.#versions.map((version) => [version.state, this.#dropsAllowed.has(version)]),
      this.#lanes.map((lane) => lane.fingerprint),
      [...this.#timers].map(({ name }) => name),
      this.#endpoint.active?.version ?? null,
    ]);
  }
}

async function microtasks(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await null;
}

/** Lets everything run that is due. */
export async function settle(): Promise<void> {
  await new Promise(setImmediate);
}
