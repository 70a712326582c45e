/**
 * One endpoint with its versions, dispatchers, rings and supervisors of lanes, all real; what is around them (threads,
 * processes, timers, the clock, copies, the kernel's mappings) does only what it is told to, one event at a time.
 */

import { strict as assert } from 'node:assert';
import { basename } from 'node:path';
import * as bufferPool from '../../src/buffer-pool.js';
import * as deadlineWheel from '../../src/deadline-wheel.js';
import type { TimeLimit } from '../../src/deferred.js';
import * as deferredModule from '../../src/deferred.js';
import type { DrainReport } from '../../src/drain-report.js';
import type { Endpoint } from '../../src/endpoint.js';
import * as errors from '../../src/errors.js';
import type * as laneMachine from '../../src/lane-machine.js';
import type { Fleet } from '../../src/lane-machine.js';
import type { LaneMessage, ProcessEnd } from '../../src/lane-protocol.js';
import * as latency from '../../src/latency.js';
import { plainPlan } from '../../src/library/load-plan.js';
import type { Prepared } from '../../src/library/prepare/prepare.js';
import * as systemErrors from '../../src/library/system-errors.js';
import * as loadError from '../../src/load-error.js';
import { LoadQueue } from '../../src/load-queue.js';
import * as options from '../../src/options.js';
import * as pendingQueue from '../../src/pending-queue.js';
import * as regions from '../../src/regions.js';
import * as request from '../../src/request.js';
import * as requestErrors from '../../src/request-errors.js';
import * as response from '../../src/response.js';
import { NOTHING, RingConsumer } from '../../src/ring/consumer.js';
import * as layout from '../../src/ring/layout.js';
import * as producer from '../../src/ring/producer.js';
import type { Version } from '../../src/version.js';
import * as versionState from '../../src/version-state.js';
import { type Change, changed, compiledSource, runModule } from '../support/compiled.js';

const { deferred } = deferredModule;
const { CONTROL, SLOT, SLOT_DOUBLE, STATUS, slotAt, slotDoubleAt } = layout;
const NO_SLOT = -1;
const MAX_IN_FLIGHT = 2;
const LOAD_TIMEOUT_MS = 10_000;
const RECYCLE_AFTER_MS = 7000;
/** Whose timers they are, and those that limit how long a lane may take. */
const LANES = 'lanes: ';
const LIMIT = 'limit';

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
  /** Replacements of lanes that may be refused. */
  readonly refusals?: number;
  /** Whether native calls never return. */
  readonly hangs?: boolean;
  /** Whether callers may give up. */
  readonly givesUp?: boolean;
  /** Whether lanes may take too long to start, or to end. */
  readonly slow?: boolean;
  /** Whether lanes are processes. */
  readonly isProcess?: boolean;
  /** Whether processes cannot be killed. */
  readonly unkillable?: boolean;
  /** Whether lanes grow old. */
  readonly recycles?: boolean;
  /** Default 1. */
  readonly threads?: number;
  /** Default 0. */
  readonly maxStuckLanes?: number;
  /** Default 5. */
  readonly crashLoopAfter?: number;
}

export interface Event {
  readonly name: string;
  happen(): void;
}

const sources = {
  version: compiledSource('version.js'),
  endpoint: compiledSource('endpoint.js'),
  dispatcher: compiledSource('dispatcher.js'),
  lanes: compiledSource('lanes.js'),
  'lane-machine': compiledSource('lane-machine.js'),
};

/** A change to the compiled text of one module. */
export interface Mutation extends Change {
  readonly module: keyof typeof sources;
}

function sourceOf(module: keyof typeof sources, mutation: Mutation | undefined): string {
  return mutation?.module === module ? changed(sources[module], mutation) : sources[module];
}

/** The end of a lane's port that its supervisor has. What is posted arrives at once. */
class Port {
  #listener: ((message: LaneMessage) => void) | null = null;

  on(_event: string, listener: (message: LaneMessage) => void): void {
    this.#listener = listener;
  }

  unref(): void {}
  postMessage(): void {}

  close(): void {
    this.#listener = null;
  }

  deliver(message: LaneMessage): void {
    this.#listener?.(message);
  }
}

/** Stands in for a thread, and for its process if it has one. */
class LaneThread {
  readonly port = new Port();
  readonly outbox = null;
  readonly #end = deferred<void>();
  readonly ended = this.#end.promise;
  readonly ring: RingConsumer;
  phase: 'loading' | 'serving' | 'over' = 'loading';
  running = NO_SLOT;
  /** Whether its process was killed and has not ended yet. */
  isKilled = false;
  readonly #isProcess: boolean;

  constructor(
    { memory, layout }: producer.RingProducer,
    readonly index: number,
    isProcess: boolean,
  ) {
    const ringDoorbell = () => this.port.deliver(null);
    this.ring = new RingConsumer(memory, layout, index, ringDoorbell);
    this.#isProcess = isProcess;
    if (isProcess) this.ring.noteProcess(index + 1);
  }

  // ---- What the scenario does with it ----

  becomeReady(): void {
    this.phase = 'serving';
    this.port.deliver({ type: 'ready', info: { name: null, version: null, description: null } });
  }

  beRefused(): void {
    this.port.deliver({ type: 'refused', failure: { kind: 'loader', message: 'refused' } });
    this.leave();
  }

  take(): void {
    this.running = this.ring.take();
    if (this.running === NOTHING) this.port.deliver(null);
  }

  complete(): void {
    const { words, doubles, layout } = this.ring;
    words[slotAt(layout, this.running) + SLOT.STATUS] = STATUS.OK;
    doubles[slotDoubleAt(layout, this.running) + SLOT_DOUBLE.RESPONSE_LENGTH] = 0;
    this.ring.complete(this.running);
    this.running = NO_SLOT;
  }

  leave(): void {
    this.#finish();
    this.#end.resolve();
  }

  /** Its thread ends wherever it is, or its process does and the thread says so. */
  die(signal: string): void {
    this.#finish();
    const end: ProcessEnd = { exitCode: null, signal, reason: null };
    if (this.#isProcess) this.port.deliver({ type: 'ended', end });
    this.#end.reject(new Error('died'));
  }

  #finish(): void {
    this.phase = 'over';
    this.running = NO_SLOT;
    this.isKilled = false;
    if (this.#isProcess) this.ring.noteProcess(0);
  }

  get isBusy(): boolean {
    return this.running !== NO_SLOT;
  }

  get hasWork(): boolean {
    const { words } = this.ring;
    return words[CONTROL.HEAD] !== words[CONTROL.TAIL];
  }

  get fingerprint(): string {
    return `${this.index}${this.phase}${this.running}${this.isKilled}${this.ring.leaving}`;
  }
}

/** Stands in for what a version is made of: the ring is real, the threads are not. */
class Crew {
  readonly ring: producer.RingProducer;
  readonly cancelFlags: { descriptor: number; byteLength: number } | null;
  /** All that were ever started, in their order. */
  readonly threads: LaneThread[] = [];
  isDestroyed = false;
  readonly #isProcess: boolean;

  constructor({
    threads,
    maxStuckLanes,
    recycleAfterMs,
    isolation,
  }: options.ResolvedEndpointOptions) {
    const recycles = recycleAfterMs !== Number.POSITIVE_INFINITY;
    const lanes = threads + maxStuckLanes + (recycles ? 1 : 0);
    this.ring = new producer.RingProducer({ slots: 32, lanes }, MAX_IN_FLIGHT);
    this.#isProcess = isolation === 'process';
    this.cancelFlags = this.#isProcess ? { descriptor: 3, byteLength: 128 } : null;
  }

  take(index: number): LaneThread {
    assert(this.at(index) === undefined, 'a lane starts where another still is');
    this.ring.prepareLane(index);
    const thread = new LaneThread(this.ring, index, this.#isProcess);
    this.threads.push(thread);
    return thread;
  }

  open(): void {
    this.ring.announceMail();
  }

  destroy(): Promise<void> {
    assert(this.present.length === 0, 'destroyed before its lanes have left');
    this.isDestroyed = true;
    return Promise.resolve();
  }

  get present(): LaneThread[] {
    return this.threads.filter(({ phase }) => phase !== 'over');
  }

  at(index: number): LaneThread | undefined {
    return this.present.find((thread) => thread.index === index);
  }

  get fingerprint(): string {
    const { words, layout, inFlight } = this.ring;
    const slots = [0, 1].map((slot) => words[slotAt(layout, slot) + SLOT.STATE]);
    const hasWork = words[CONTROL.HEAD] !== words[CONTROL.TAIL];
    const threads = this.present.map(({ fingerprint }) => fingerprint);
    return `${threads}/${slots}/${inFlight}/${hasWork}/${this.isDestroyed}`;
  }
}

/** All of a supervisor that is looked at here. */
interface SeenLanes {
  readonly $fleet: Fleet;
  readonly $timers: ReadonlyMap<string, unknown>;
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

interface Timer {
  readonly name: string;
  readonly fire: () => void;
  unref(): Timer;
}

interface Request {
  outcome: string | null;
  settled: number;
  version: Version;
  readonly controller: AbortController;
}

/** What the modules call of the world that they are in. */
type Surroundings = Pick<
  World,
  | 'setTimeout'
  | 'clearTimeout'
  | 'inTime'
  | 'settledWithin'
  | 'newCrew'
  | 'kill'
  | 'keepPrepareThread'
  | 'clock'
  | 'stepped'
  | 'violated'
>;

/** The modules, compiled once for all runs of one exploration: one world at a time is theirs. */
export class Code {
  readonly Endpoint: typeof Endpoint;
  readonly #versions: { made: Version[] } = { made: [] };
  #world: Surroundings | null = null;

  constructor(mutation?: Mutation) {
    const world = () => {
      assert(this.#world !== null, 'the modules are in a world');
      return this.#world;
    };
    const clearTimeout = (timer: Timer) => world().clearTimeout(timer);
    const globals = (owner: string) => ({
      setTimeout: (fire: () => void, delayMs: number) => world().setTimeout(fire, delayMs, owner),
      clearTimeout,
      performance: { now: () => 0 },
      process: { emitWarning: () => undefined },
    });
    /** One alarm is like another, but for its owner's timers. */
    class Alarm {
      #atMs = Number.POSITIVE_INFINITY;
      #timer: Timer | null = null;
      constructor(readonly onDue: (nowMs: number) => void) {}

      set(atMs: number): void {
        if (atMs >= this.#atMs) return;
        this.clear();
        this.#atMs = atMs;
        this.#timer = world().setTimeout(() => this.#fire(), 0, 'alarm: ');
      }

      clear(): void {
        if (this.#timer !== null) world().clearTimeout(this.#timer);
        this.#timer = null;
        this.#atMs = Number.POSITIVE_INFINITY;
      }

      #fire(): void {
        const { clock } = world();
        clock.nowMs = Math.max(clock.nowMs, this.#atMs);
        this.#timer = null;
        this.#atMs = Number.POSITIVE_INFINITY;
        this.onDue(clock.nowMs);
      }
    }
    const modules: Record<string, object> = {
      'node:assert': { strict: assert },
      'node:events': { setMaxListeners: () => undefined },
      'node:os': { uptime: () => 0 },
      'node:path': { basename },
      'node:timers/promises': { setImmediate: () => Promise.resolve() },
      'node:worker_threads': { receiveMessageOnPort: () => undefined },
      './alarm.js': { Alarm },
      './buffer-pool.js': bufferPool,
      './child-env.js': { childEnv: () => ({}) },
      './clock.js': { monotonicMs: () => world().clock.nowMs },
      './deadline-wheel.js': deadlineWheel,
      './deferred.js': {
        deferred,
        settledWithin: (work: Promise<unknown>, ms: number) => world().settledWithin(work, ms),
        inTime: <T>(work: Promise<T>, limit: TimeLimit) => world().inTime(work, limit),
      },
      './end-lane-process.js': {
        endLaneProcess: (ring: producer.RingProducer, lane: number) => world().kill(ring, lane),
        cutLifeline: () => true,
      },
      './errors.js': errors,
      './latency.js': latency,
      './library/mappings.js': { readMaps: () => Promise.resolve(''), listsFile: () => false },
      './library/prepare/prepare.js': { prepareLibrary: () => Promise.resolve(PREPARED) },
      './library/prepare/prepare-thread.js': {
        startAhead: () => undefined,
        keep: () => world().keepPrepareThread(),
      },
      './library/system-errors.js': systemErrors,
      './load-error.js': loadError,
      './native-functions.js': { bindNativeFunctions: () => Promise.resolve() },
      './options.js': options,
      './pending-queue.js': pendingQueue,
      './permission.js': { checkChildAllowed: () => undefined, permissionError: () => null },
      './preflight/child.js': {},
      './preflight/preflight.js': { preflight: null },
      './regions.js': regions,
      './request-errors.js': requestErrors,
      './request.js': request,
      './response.js': response,
      './ring/layout.js': layout,
      './ring/outbox.js': { Outbox: class {} },
      './ring/producer.js': producer,
      './standby.js': {
        Standby: {
          create: async (resolved: options.ResolvedEndpointOptions) => world().newCrew(resolved),
        },
      },
      './start-child.js': { reapOrphan: () => Promise.resolve() },
      './version-state.js': versionState,
      './watch-policy.js': {
        WatchPolicy: class {
          allows = () => false;
        },
      },
    };
    const run = (module: keyof typeof sources, owner = '') => {
      const text = sourceOf(module, mutation);
      modules[`./${module}.js`] = runModule(text, { globals: globals(owner), modules });
    };
    run('lane-machine');
    const machine = modules['./lane-machine.js'] as typeof laneMachine;
    // Looked at after each step, in the middle of a supervisor's turn. What is found is told once that is over.
    const step: typeof machine.step = (fleet, event) => {
      try {
        const next = machine.step(fleet, event);
        world().stepped(fleet, next.fleet);
        return next;
      } catch (error) {
        world().violated(error);
        return { fleet, effects: [] };
      }
    };
    modules['./lane-machine.js'] = { ...machine, step };
    run('lanes', LANES);
    run('dispatcher');
    run('version');
    const { Version: Base } = modules['./version.js'] as { Version: typeof Version };
    const versions = this.#versions;
    class Known extends Base {
      constructor(parts: ConstructorParameters<typeof Version>[0]) {
        super(parts);
        versions.made.push(this);
      }
    }
    modules['./version.js'] = { Version: Known };
    run('endpoint');
    ({ Endpoint: this.Endpoint } = modules['./endpoint.js'] as { Endpoint: typeof Endpoint });
  }

  /** From now on, they are in `world`; returns the versions that they will have made there. */
  enter(world: Surroundings): Version[] {
    this.#world = world;
    this.#versions.made = [];
    return this.#versions.made;
  }
}

export class World {
  readonly clock = { nowMs: 0 };
  readonly #scenario: Scenario;
  readonly #timers = new Set<Timer>();
  readonly #crews: Crew[] = [];
  readonly #versions: Version[];
  readonly #requests: Request[] = [];
  readonly #dropsAllowed = new Set<Version>();
  readonly #reports: (DrainReport | null)[] = [];
  readonly #outcomes: (string | null)[] = [];
  readonly #closing = new AbortController();
  readonly #endpoint: Endpoint & { $draining: Set<Version>; $hanging: Set<Version> };
  /** Versions that refused requests after the last event. */
  #refusing = new Set<Version>();
  /** What was found to be wrong in the middle of something. */
  #violation: unknown = null;
  /** Who wants the thread that looks into libraries to stay. */
  readonly #threadHolds = new Set<object>();
  #operations = 0;
  #deaths = 0;
  #refusals = 0;
  #copies = 0;
  #held = 0;

  constructor(scenario: Scenario, code: Code) {
    this.#scenario = scenario;
    this.#versions = code.enter(this);
    const { threads = 1, maxStuckLanes = 0, crashLoopAfter = 5, isProcess, recycles } = scenario;
    this.#endpoint = new code.Endpoint({
      id: 'it',
      options: options.resolveRegistryOptions({
        threads,
        maxStuckLanes,
        crashLoopAfter,
        isolation: isProcess ? 'process' : 'thread',
        recycleAfterMs: recycles ? RECYCLE_AFTER_MS : Number.POSITIVE_INFINITY,
        loadTimeoutMs: LOAD_TIMEOUT_MS,
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

  newCrew(resolved: options.ResolvedEndpointOptions): Crew {
    const crew = new Crew(resolved);
    this.#crews.push(crew);
    return crew;
  }

  keepPrepareThread(): () => void {
    const hold = {};
    this.#threadHolds.add(hold);
    return () => void this.#threadHolds.delete(hold);
  }

  kill(ring: producer.RingProducer, lane: number): void {
    const thread = this.#crews.find((crew) => crew.ring === ring)?.at(lane);
    if (thread === undefined || ring.processOf(lane) === 0) return;
    if (this.#scenario.unkillable)
      throw Object.assign(new Error('not permitted'), { code: 'EPERM' });
    thread.isKilled = true;
  }

  /** A lane whose thread has ended never serves, not even until what it has completed is collected. */
  stepped(before: Fleet, after: Fleet): void {
    // Which version's it is, is not said: that of the only one that was in this state, if there is one.
    const owners = this.#versions.filter(
      (version) => hasLanes(version) && lanesOf(version).$fleet === before,
    );
    const [owner] = owners;
    if (owner === undefined || owners.length > 1) return;
    const crew = this.#crews[this.#versions.indexOf(owner)];
    for (const [index, lane] of after.lanes.entries()) {
      if (lane?.state !== 'serving') continue;
      assert(crew?.at(index) !== undefined, 'a lane that is dead serves');
    }
  }

  violated(error: unknown): void {
    this.#violation ??= error;
  }

  #copy() {
    this.#copies += 1;
    const mine = this.#crews.length;
    const remove = () => {
      assert(this.#crews[mine]?.isDestroyed, 'a copy is removed before its lanes are gone');
      this.#copies -= 1;
      return Promise.resolve();
    };
    return { path: '/copy', sha256: '', remove };
  }

  setTimeout(fire: () => void, delayMs: number, owner: string): Timer {
    const name = owner === LANES ? `${owner}${nameOfLanesTimer(delayMs)}` : `${owner}${delayMs} ms`;
    const timer: Timer = { name, fire, unref: () => timer };
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(timer: Timer): void {
    this.#timers.delete(timer);
  }

  inTime<T>(work: Promise<T>, { timeoutMs, signal, late }: TimeLimit): Promise<T> {
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
      work.then(resolve, reject);
      // Loads may only take too long where they may fail.
      if (this.#scenario.failures ?? false) this.#limit(work, timeoutMs, () => reject(late()));
    });
  }

  settledWithin(work: Promise<unknown>, timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      work.then(() => resolve(), reject);
      this.#limit(work, timeoutMs, resolve);
    });
  }

  /** A timer that ends with `work`. */
  #limit(work: Promise<unknown>, timeoutMs: number, fire: () => void): void {
    const timer = this.setTimeout(fire, timeoutMs, '');
    const clear = () => this.clearTimeout(timer);
    work.then(clear, clear);
  }

  // ---- Events --------------------------------------------------------------------------------------

  /** The first version, active. */
  async begin(): Promise<void> {
    const loading = this.#replace(true);
    await settle();
    for (const thread of this.#crews[0]?.threads ?? []) thread.becomeReady();
    await loading;
    await settle();
  }

  events(): Event[] {
    const { operations, requests, givesUp } = this.#scenario;
    const events: Event[] = [];
    const add = (name: string, happen: () => void) => events.push({ name, happen });
    const operation = operations[this.#operations];
    if (operation !== undefined) add(operation, () => this.#operate(operation));
    if (this.#requests.length < requests && this.#endpoint.active !== null) {
      add('request', () => this.#request());
    }
    for (const [index, { settled, controller }] of this.#requests.entries()) {
      if (!givesUp || settled > 0) continue;
      add(`caller ${index} gives up`, () => {
        controller.abort(Object.assign(new Error('given up'), { code: 'GIVEN_UP' }));
      });
    }
    for (const [index, crew] of this.#crews.entries()) {
      for (const thread of crew.present) {
        const name = `version ${index + 1}, lane ${thread.index}`;
        this.#addThreadEvents(thread, operation, (what, happen) => add(`${name} ${what}`, happen));
      }
    }
    for (const timer of this.#timers) {
      if (timer.name === `${LANES}${LIMIT}` && !this.#scenario.slow) continue;
      add(`${timer.name} pass`, () => {
        this.#timers.delete(timer);
        timer.fire();
      });
    }
    return events;
  }

  #addThreadEvents(
    thread: LaneThread,
    operation: Operation | undefined,
    add: (what: string, happen: () => void) => void,
  ): void {
    const { failures, deaths = 0, refusals = 0, hangs } = this.#scenario;
    if (thread.isKilled) {
      add('has ended', () => thread.die('SIGKILL'));
      return;
    }
    const { leaving } = thread.ring;
    if (thread.phase === 'loading' && !leaving) {
      add('is ready', () => thread.becomeReady());
      for (let turns = 0; operation === 'close' && turns < 10; turns++) {
        add(`is ready, and ${turns} microtasks later it closes`, () => {
          this.#operations += 1;
          thread.becomeReady();
          void microtasks(turns).then(() => this.#close());
        });
      }
      if (failures) add('is refused', () => thread.beRefused());
      else if (this.#refusals < refusals) {
        add('is refused', () => {
          this.#refusals += 1;
          thread.beRefused();
        });
      }
    }
    if (thread.isBusy && !hangs) {
      add('completes', () => thread.complete());
      if (this.#deaths < deaths) {
        add('completes and dies', () => {
          this.#deaths += 1;
          thread.complete();
          thread.die('SIGSEGV');
        });
      }
    }
    const isIdle = !thread.isBusy;
    if (thread.phase === 'serving' && isIdle && !leaving && thread.hasWork) {
      add('takes', () => thread.take());
    }
    if (this.#deaths < deaths) {
      add('dies', () => {
        this.#deaths += 1;
        thread.die('SIGSEGV');
      });
    }
    if (leaving && isIdle) add('leaves', () => thread.leave());
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
    const controller = new AbortController();
    const request: Request = { outcome: null, settled: 0, version, controller };
    this.#requests.push(request);
    version.execute({}, 'x', { signal: controller.signal }).then(
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
    if (this.#violation !== null) throw this.#violation;
    assert(this.#held >= 0, 'released more often than held');
    if (this.#endpoint.active !== null) assert.equal(this.#endpoint.active.state, 'active');
    const refusing = new Set<Version>();
    for (const [index, version] of this.#versions.entries()) {
      const crew = this.#crews[index] as Crew;
      const { state, activeRequests } = version;
      if (crew.present.some(({ isBusy }) => isBusy)) {
        assert(activeRequests > 0, 'running and not in flight');
      }
      const owed = this.#requests.some((r) => r.version === version && r.settled === 0);
      if (state === 'draining')
        assert(activeRequests > 0 || owed, 'draining, and nothing to wait for');
      if (state === 'drained' || state === 'retired') assert.equal(activeRequests, 0);
      if (state === 'retired') assert(crew.isDestroyed, 'retired, and its lanes are there');
      // The drain timeout is the one thing that takes requests from a version that drains gracefully.
      if (fired === '500 ms pass' || fired === `${version.options.drainTimeoutMs} ms pass`) {
        if (version.draining) this.#dropsAllowed.add(version);
      }
      if (state === 'active' && this.#checkLanes(version, crew, fired)) refusing.add(version);
    }
    this.#refusing = refusing;
    for (const { outcome, settled, version } of this.#requests) {
      assert(settled <= 1, 'a request is answered once');
      const allowed = [null, 'ok'];
      const { slow, hangs, givesUp, isProcess, crashLoopAfter = 5 } = this.#scenario;
      if (this.#deaths > 0) allowed.push('ERR_HANDLER_LANE_EXITED');
      if (givesUp) allowed.push('GIVEN_UP');
      if (hangs && (!isProcess || this.#scenario.unkillable)) allowed.push('ERR_HANDLER_STUCK');
      const lost = this.#deaths + this.#refusals;
      if (lost >= crashLoopAfter || slow) allowed.push('ERR_HANDLER_CRASH_LOOP');
      if (this.#dropsAllowed.has(version)) allowed.push('ERR_HANDLER_DROPPED');
      assert(allowed.includes(outcome), `a request ended with ${outcome}`);
    }
  }

  /** The lanes of an active version, as they are and as its supervisor sees them; returns whether it refuses requests. */
  #checkLanes(version: Version, { present }: Crew, fired: string): boolean {
    const { $fleet: fleet, $timers: timers } = lanesOf(version);
    const stateAt = (index: number) => fleet.lanes[index]?.state;
    const serving = present.filter(
      ({ index, phase }) => phase === 'serving' && stateAt(index) === 'serving',
    );
    for (const [index, lane] of fleet.lanes.entries()) {
      const thread = present.find((each) => each.index === index);
      assert(lane === null || thread !== undefined, `a lane that is gone counts as ${lane?.state}`);
      assert(lane !== null || thread === undefined, 'a lane that is there has been forgotten');
      if (lane?.state === 'killed') assert(thread?.isKilled, 'a lane counts as killed');
      if (lane?.state !== 'serving') continue;
      assert.equal(thread?.phase, 'serving', 'a lane counts as serving');
      assert(!thread?.ring.leaving, 'a lane that was told to leave counts as serving');
    }
    const isComing = present.some(({ phase, isKilled }) => phase === 'loading' || isKilled);
    const mayReturn = present.some(({ index }) => stateAt(index) === 'stuck');
    if (fleet.refusal === null) {
      const leaving = present.some(({ index }) => stateAt(index) === 'leaving');
      const comes = isComing || timers.size > 0 || leaving;
      assert(serving.length > 0 || comes, 'active, no lane serves, and none will');
    } else {
      const ends = timers.size > 0 || isComing || mayReturn;
      assert(ends, 'requests are refused, and nothing will end that');
      const startFailed = /is refused|lanes: limit/.test(fired);
      const isNew = !this.#refusing.has(version);
      assert(!(startFailed && isNew && serving.length > 0), 'refused although a lane serves');
    }
    return fleet.refusal !== null;
  }

  /** Nothing more can happen. */
  checkEnd(): void {
    for (const { settled } of this.#requests) assert.equal(settled, 1, 'a request is unanswered');
    assert(!this.#outcomes.includes(null), 'an operation is not done');
    assert(!this.#reports.includes(null), 'a report is missing');
    const { active } = this.#endpoint;
    if (active !== null) {
      const { threads = 1 } = this.#scenario;
      const { $fleet: fleet } = lanesOf(active);
      const states = fleet.lanes.flatMap((lane) => (lane === null ? [] : [lane.state]));
      const isHung = states.includes('stuck');
      const serving = states.filter((state) => state === 'serving').length;
      // After a crash loop, the others come back with the first answer.
      const wanted = fleet.circuit.state === 'half-open' ? 1 : threads;
      if (!isHung) assert.equal(fleet.refusal, null, 'at the end requests are refused');
      if (!isHung) assert(serving >= wanted, 'at the end lanes are missing');
    }
    if (active !== null) {
      for (const thread of this.#crews[this.#versions.indexOf(active)]?.present ?? []) {
        const isStuck = lanesOf(active).$fleet.lanes[thread.index]?.state === 'stuck';
        // Whoever has called has given up: every request has been answered.
        assert(isStuck || !thread.isBusy, 'at the end a call runs, and nobody has noticed');
        const hangs = thread.isBusy || thread.phase === 'loading' || this.#scenario.unkillable;
        assert(hangs || !isStuck, 'at the end a lane counts as stuck');
      }
    }
    if (this.#crews.some(({ present }) => present.some(({ isBusy }) => isBusy))) return;
    // Not compared by `equal`: newer Nodes describe what differs, of a whole version with its memory, in all memory there is.
    if (this.#closing.signal.aborted) assert(active === null, 'active after closing');
    for (const version of this.#versions) {
      const over = version.state === 'retired' || version.state === 'failed';
      assert(over || version === active, `at the end a version is ${version.state}`);
    }
    assert.equal(this.#copies, active === null ? 0 : 1, 'copies');
    assert.equal(this.#held, 0, 'the process is kept alive');
    assert.equal(this.#threadHolds.size, 0, 'the thread that looks into libraries is kept');
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
      this.#refusals,
      this.#crews.map(({ fingerprint }) => fingerprint),
      this.#versions.map((version) => (hasLanes(version) ? fleetOf(version) : null)),
      [...this.#timers].map(({ name }) => name),
      this.#endpoint.active?.version ?? null,
    ]);
  }
}

function hasLanes(version: Version): boolean {
  return (version as unknown as { $machinery: object | null }).$machinery !== null;
}

function lanesOf(version: Version): SeenLanes {
  return (version as unknown as { $machinery: { lanes: SeenLanes } }).$machinery.lanes;
}

/** All of its fleet that can change. How often something was lost counts as far as it decides anything but a pause's length. */
function fleetOf(version: Version): unknown {
  const { phase, lanes, circuit, spares, owed, refusal, limits } = lanesOf(version).$fleet;
  const lostInRow = Math.min(circuit.lostInRow, limits.crashLoopAfter);
  const failures = Math.min(spares.failures, 1);
  return [phase, lanes, { ...circuit, lostInRow }, { ...spares, failures }, owed, refusal?.why];
}

/** Not by how long it is: pauses grow. */
function nameOfLanesTimer(delayMs: number): string {
  if (delayMs === LOAD_TIMEOUT_MS) return LIMIT;
  return delayMs === RECYCLE_AFTER_MS ? 'age' : 'pause';
}

async function microtasks(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await null;
}

/** Lets everything run that is due. */
export async function settle(): Promise<void> {
  await new Promise(setImmediate);
}
