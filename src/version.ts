/**
 * One loaded version of a library, from its private copy to its retirement. Ties together the ring, the lanes and
 * the requests, and owns the version's state (see version-state.ts).
 */

import { strict as assert } from 'node:assert';
import { basename } from 'node:path';
import { deferred, inTime, settledWithin } from './deferred.js';
import { Dispatcher, type DispatcherStats, type OutcomeTotals } from './dispatcher.js';
import type { DrainReport, LibraryFate } from './drain-report.js';
import { concerning, type DropReason, LoadTimeoutError } from './errors.js';
import type { Report } from './events.js';
import type { KeepAlive } from './keep-alive.js';
import type { HandlerInfo, HostMessage } from './lane-protocol.js';
import { type LaneCounts, type LaneExit, Lanes, type Refusal } from './lanes.js';
import type { BindingReport } from './library/binding/decide.js';
import { listsFile, readMaps } from './library/mappings.js';
import type { OwnLibrary, Prepared } from './library/prepare/prepare.js';
import type { HandlerDependency, LibraryPatch, SharedStatics } from './library/prepare/report.js';
import type { PrivateCopy } from './library/store.js';
import { messageOf } from './library/system-errors.js';
import {
  type Isolation,
  MAX_TIMER_MS,
  onlyOption,
  type ResolvedEndpointOptions,
} from './options.js';
import type { PreflightReport } from './preflight/preflight.js';
import { type RegionBudget, RegionTable } from './regions.js';
import type { RequestContext, RequestPayload } from './request.js';
import {
  crashLoop,
  endpointStuck,
  laneExited,
  notServing,
  type VersionIdentity,
} from './request-errors.js';
import type { HandlerResponse } from './response.js';
import { NO_SLOT, type RingProducer } from './ring/producer.js';
import type { Standby } from './standby.js';
import { step, type VersionState } from './version-state.js';

/** How one request is executed. */
export interface ExecuteOptions {
  /** Gives the request up when aborted; the caller then gets the signal's reason. */
  signal?: AbortSignal;
}

/** One caller's hold on a version: while it is held, the library is not unloaded. */
export interface RequestGuard {
  /** Lets go. Only the first call counts. */
  release(): void;
  /** The same, for `using`. */
  [Symbol.dispose](): void;
}

/** A loaded version of a handler. It stays readable after it was retired. */
export interface LoadedHandler {
  readonly id: string;
  /** 1 for the first load of the endpoint, one more for each later one. */
  readonly version: number;
  /** The library's absolute path. What was loaded is a private copy of it. */
  readonly path: string;
  /** SHA-256 of what was deployed, before anything was changed in the copy: 64 lower-case hexadecimal digits. */
  readonly sha256: string;
  /** What was changed in the private copies; empty if nothing was. */
  readonly patches: readonly LibraryPatch[];
  /** Why nothing could be changed in them, although something may have had to be; null if nothing was in the way. */
  readonly patchObstacle: string | null;
  /** C++ statics that this version shares with others; null if there are none. */
  readonly sharedStatics: SharedStatics | null;
  /** Whose symbols come first for it, and why. */
  readonly binding: BindingReport;
  /** The libraries that it needs, directly or not. Empty where they are not known: only ELF files tell. */
  readonly dependencies: readonly HandlerDependency[];
  /** What the library says of itself. */
  readonly info: HandlerInfo;
  /** What was learned when it was tried in a child process; null if `preflight` was false. */
  readonly preflight: PreflightReport | null;
  readonly loadedAt: Date;
  /** Where its code runs. */
  readonly isolation: Isolation;
  readonly state: VersionState;
  /** Whether it takes no more requests and has not been retired. */
  readonly draining: boolean;
  /** Requests and guards in flight: executing, not merely unanswered. */
  readonly activeRequests: number;
  /** Holds the version, or null if it is not active. */
  acquireRequest(): RequestGuard | null;
  /**
   * Executes a request on this very version, with the endpoint's default timeout. Rejects with
   * `NotLoadedError` once the version is draining.
   */
  execute(
    context: RequestContext | undefined,
    request: RequestPayload,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse>;
  /** The same with a timeout in milliseconds; `Infinity` for none. */
  executeWithTimeout(
    context: RequestContext | undefined,
    request: RequestPayload,
    timeoutMs: number,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse>;
}

/** A version's part of the statistics. */
export interface VersionStats extends DispatcherStats {
  version: number;
  state: VersionState;
  path: string;
  isolation: Isolation;
  /** Requests and guards in flight. */
  activeRequests: number;
  lanes: LaneCounts;
  /** Process ids of the lanes' processes; none with `isolation: 'thread'`. */
  processIds: number[];
  /** Why requests are refused, if they are: every lane is stuck, or lanes crash again and again. */
  refusing: Refusal['why'] | null;
}

export interface VersionParts {
  identity: VersionIdentity;
  options: ResolvedEndpointOptions;
  /** The library as the caller named it. */
  path: string;
  copy: PrivateCopy;
  /** How the copy is opened, and with what. */
  prepared: Prepared;
  preflight: PreflightReport | null;
  /** What the version is made of, and destroys in the end. */
  standby: Standby;
  /** Of the registry, for request memory. */
  regionBudget: RegionBudget;
  keepAlive: KeepAlive;
  report: Report;
}

/** A drain in progress. */
interface Drain {
  readonly sinceMs: number;
  /** Answered by the handler before the drain began. */
  readonly answeredBefore: number;
  readonly droppedBefore: number;
  readonly settle: (report: DrainReport) => void;
  timer: NodeJS.Timeout | null;
  reported: boolean;
}

/** What executes requests. */
interface Machinery {
  readonly ring: RingProducer;
  readonly regions: RegionTable;
  readonly lanes: Lanes;
  readonly dispatcher: Dispatcher;
}

export class Version implements LoadedHandler {
  readonly id: string;
  readonly version: number;
  readonly path: string;
  readonly options: ResolvedEndpointOptions;
  readonly preflight: PreflightReport | null;
  loadedAt = new Date();
  info: HandlerInfo = { name: null, version: null, description: null };
  readonly #identity: VersionIdentity;
  readonly #copy: PrivateCopy;
  readonly #prepared: Prepared;
  readonly #keepAlive: KeepAlive;
  readonly #report: Report;
  /** Null once it has retired: what it takes is megabytes, and a caller may keep the handle for ever. */
  #machinery: Machinery | null;
  #state: VersionState = 'loading';
  #drain: Drain | null = null;
  readonly #totals: Readonly<OutcomeTotals>;
  readonly #retired = deferred<void>();

  constructor(parts: VersionParts) {
    const { identity, options, copy, standby, keepAlive, report } = parts;
    this.id = identity.endpoint;
    this.version = identity.version;
    this.path = parts.path;
    this.preflight = parts.preflight;
    this.options = options;
    this.#identity = identity;
    this.#copy = copy;
    this.#prepared = parts.prepared;
    this.#keepAlive = keepAlive;
    this.#report = report;
    const { ring } = standby;
    // A caller's buffer may be collected in the very turn of the event loop in which the version retires, and no lane is left to tell.
    const announce = (message: HostMessage) => this.#machinery?.lanes.announce(message);
    const regions = new RegionTable(announce, parts.regionBudget);
    const dispatcher = new Dispatcher({
      identity,
      options,
      ring,
      regions,
      keepAlive,
      hooks: {
        timedOut: (phase, timeoutMs) => report('timeout', { ...identity, phase, timeoutMs }),
        abandoned: (lane) => report('abandoned', { ...identity, lane }),
        shed: (error) => report('shed', { ...identity, error }),
        callStuck: (lane, slot) => this.#lanes.callStuck(lane, slot),
        callReturned: (lane) => this.#lanes.callReturned(lane),
        handlerAnswered: () => this.#lanes.requestAnswered(),
        takePosted: (lane, slot) => this.#lanes.takePosted(lane, slot),
        recycle: (lane, memory) => this.#machinery?.lanes.recycle(lane, memory),
        outboxOf: (lane) => this.#lanes.outboxOf(lane),
        requestLeft: () => this.#requestLeft(),
      },
    });
    const lanes = new Lanes({
      identity,
      options,
      standby,
      regions,
      sourcePath: parts.path,
      plan: parts.prepared.plan,
      hooks: {
        doorbell: () => this.#dispatcher.doorbellRang(),
        collect: () => this.#dispatcher.collect(),
        laneExited: (exit) => this.#laneExited(exit),
        laneStuck: (lane, fate) => report('laneStuck', { ...identity, lane, ...fate }),
        laneReplaced: (lane, by) => report('laneReplaced', { ...identity, lane, by }),
        laneRecycled: (lane, by, reason) =>
          report('laneRecycled', { ...identity, lane, by, reason }),
        crashLoop: (crashes, retryMs, error) =>
          report('crashLoop', { ...identity, crashes, retryMs, error }),
        crashLoopEnded: () => report('crashLoopEnded', { ...identity }),
        refusalChanged: (refusal) => this.#refuse(refusal),
      },
    });
    this.#machinery = { ring, regions, lanes, dispatcher };
    this.#totals = dispatcher.totals;
  }

  get #running(): Machinery {
    const machinery = this.#machinery;
    if (machinery === null) assert.fail('what has retired is not asked to do anything');
    return machinery;
  }

  get #ring(): RingProducer {
    return this.#running.ring;
  }

  get #lanes(): Lanes {
    return this.#running.lanes;
  }

  get #dispatcher(): Dispatcher {
    return this.#running.dispatcher;
  }

  #laneExited({ lane, slot, cause, end, expected }: LaneExit): void {
    const makeError = () => laneExited(this.#identity, cause, end);
    if (slot !== NO_SLOT) this.#dispatcher.buried(slot, makeError);
    if (expected) return;
    const error = end === null ? cause : makeError();
    this.#report('laneExited', { ...this.#identity, lane, error });
  }

  #refuse(refusal: Refusal | null): void {
    if (refusal === null) {
      this.#dispatcher.accept();
      return;
    }
    this.#dispatcher.refuse(() =>
      refusal.why === 'stuck'
        ? endpointStuck(this.#identity, this.options, refusal.stuckLanes)
        : crashLoop(this.#identity, refusal.crashes, refusal.cause),
    );
  }

  // ---- loading → active | failed ---------------------------------------------------------------

  /**
   * Starts the lanes and waits until all have loaded the library, `timeoutMs` at most.
   *
   * @throws {LoadError} if they could not, or the reason of `signal`. Everything is undone, in the background
   * where native code hangs.
   */
  async load(timeoutMs: number, signal: AbortSignal): Promise<void> {
    const { loadTimeoutMs } = this.options;
    try {
      this.info = await inTime(this.#lanes.start(), {
        timeoutMs,
        signal,
        late: () =>
          new LoadTimeoutError(
            loadTimeoutMs,
            `not every lane had loaded ${this.path} after ${loadTimeoutMs} ms; look for a constructor or handler_init that hangs, or raise loadTimeoutMs`,
            this.path,
            this.#identity,
          ),
      });
    } catch (error) {
      this.#state = step(this.#state, 'failed');
      await this.#undo();
      throw error;
    }
    this.loadedAt = new Date();
    this.#state = step(this.#state, 'active');
  }

  /** Ends what a failed load has started. Waits for the lanes, but not for one that hangs. */
  async #undo(): Promise<void> {
    const undone = this.#dismantle()
      .catch((error: unknown) => {
        // The caller gets the reason of the failed load; this one is about leftovers.
        process.emitWarning(`a failed load of ${this.path} left something behind: ${error}`);
      })
      .then(this.#retired.resolve);
    await settledWithin(undone, this.options.cancelGraceMs);
  }

  /** Stops the lanes, ends the threads, removes the copy. Takes as long as native code takes. */
  async #dismantle(): Promise<void> {
    this.#dispatcher.dispose();
    await this.#lanes.stop();
    this.#running.regions.dispose();
    try {
      await this.#lanes.destroy();
    } finally {
      await Promise.all([this.#copy.remove(), this.#prepared.remove()]);
    }
  }

  // ---- active ----------------------------------------------------------------------------------

  get state(): VersionState {
    return this.#state;
  }

  get isolation(): Isolation {
    return this.options.isolation;
  }

  get sha256(): string {
    return this.#copy.sha256;
  }

  get patches(): readonly LibraryPatch[] {
    return this.#prepared.patches;
  }

  get patchObstacle(): string | null {
    return this.#prepared.obstacle;
  }

  get sharedStatics(): SharedStatics | null {
    return this.#prepared.sharedStatics;
  }

  get binding(): BindingReport {
    return this.#prepared.binding;
  }

  get dependencies(): readonly HandlerDependency[] {
    return this.#prepared.dependencies;
  }

  get draining(): boolean {
    return this.#state === 'draining' || this.#state === 'drained';
  }

  get activeRequests(): number {
    return this.#machinery?.ring.inFlight ?? 0;
  }

  acquireRequest(): RequestGuard | null {
    if (this.#state !== 'active' || !this.#ring.acquire()) return null;
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      this.#ring.release();
      this.#dispatcher.collect();
    };
    return { release, [Symbol.dispose]: release };
  }

  execute(
    context: RequestContext | undefined,
    request: RequestPayload,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse> {
    return this.executeWithTimeout(context, request, this.options.defaultTimeoutMs, options);
  }

  executeWithTimeout(
    context: RequestContext | undefined,
    request: RequestPayload,
    timeoutMs: number,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse> {
    if (this.#state !== 'active') return Promise.reject(notServing(this.#identity));
    let signal: AbortSignal | undefined;
    try {
      signal = onlyOption(options, 'signal');
    } catch (error) {
      return Promise.reject(concerning(error, this.#identity));
    }
    return this.#dispatcher.execute(context, request, timeoutMs, signal);
  }

  // ---- active → draining → drained → retired ---------------------------------------------------

  /**
   * Takes no more requests from now on, and drops those that are left after `drainTimeoutMs` (at once if it is
   * 0, saying `reason`). The version retires as soon as the last one has returned.
   *
   * The report settles at the latest when the calls that are dropped have had their grace and the lanes their time
   * to stop; if native code is still running then, the version goes on draining and retires later.
   */
  drain(reason: DropReason, drainTimeoutMs: number): Promise<DrainReport> {
    assert(this.#drain === null, 'a version drains once');
    this.#state = step(this.#state, 'draining');
    const { promise: settled, resolve: settle } = deferred<DrainReport>();
    const { succeeded, failed, badResponse, dropped } = this.#totals;
    this.#drain = {
      sinceMs: performance.now(),
      answeredBefore: succeeded + failed + badResponse,
      droppedBefore: dropped,
      settle,
      timer: null,
      reported: false,
    };
    this.#ring.closeLedger();
    this.#keepAlive.hold();
    this.#report('draining', { ...this.#identity, activeRequests: this.activeRequests, reason });
    if (drainTimeoutMs === 0) this.#dropRest(this.#drain, reason);
    else
      this.#after(this.#drain, drainTimeoutMs, (drain) => this.#dropRest(drain, 'drain-timeout'));
    this.#requestLeft();
    return settled;
  }

  /** Drops what is left of a drain that is going on, now. */
  dropNow(reason: DropReason): void {
    if (this.#drain !== null && this.#state === 'draining') this.#dropRest(this.#drain, reason);
  }

  /** Kills the processes that are left of it, whatever they do. What they were running has been answered or is now. */
  killProcesses(): void {
    this.#machinery?.lanes.killAll();
  }

  /** Resolves when nothing of this version is left: lanes, library, copy. May be never. */
  get retired(): Promise<void> {
    return this.#retired.promise;
  }

  #dropRest(drain: Drain, reason: DropReason): void {
    this.#dispatcher.dropAll(reason);
    if (this.#state !== 'draining') return;
    const { cancelGraceMs, loadTimeoutMs, isolation } = this.options;
    // A process that runs a dropped call is killed when its grace is over, and is gone a moment later.
    const killMs = isolation === 'process' ? loadTimeoutMs : 0;
    this.#after(drain, cancelGraceMs + killMs, () => {
      this.#settleReport(drain, 'resident', this.#whatRuns());
    });
  }

  #after(drain: Drain, delayMs: number, action: (drain: Drain) => void): void {
    if (drain.timer !== null) clearTimeout(drain.timer);
    drain.timer = setTimeout(() => action(drain), Math.min(delayMs, MAX_TIMER_MS));
    // The process is kept alive by the drain itself until it has reported.
    drain.timer.unref();
  }

  /** What keeps this version from retiring, in words. */
  whatRemains(): string {
    switch (this.#state) {
      case 'loading':
      case 'failed':
        return 'its lanes have not come back from the dynamic loader or handler_init';
      case 'drained':
        return 'its lanes have not come back from handler_shutdown or the dynamic loader';
      default:
        return this.#whatRuns();
    }
  }

  #whatRuns(): string {
    const calls = this.#dispatcher.abandoned;
    const guards = this.activeRequests - calls;
    const parts = [
      calls > 0 ? `${calls} native call${calls === 1 ? ' is' : 's are'} still running` : '',
      guards > 0 ? `${guards} request guard${guards === 1 ? ' is' : 's are'} not released` : '',
    ].filter((part) => part !== '');
    return `${parts.join(' and ')}; the library is unloaded when that ends`;
  }

  /** The one place where a drain is found to be over. */
  #requestLeft(): void {
    if (this.#state !== 'draining' || !this.#dispatcher.idle) return;
    assert(this.#drain !== null, 'a draining version has a drain');
    this.#state = step(this.#state, 'drained');
    this.#report('drained', { ...this.#identity });
    void this.#retire(this.#drain);
  }

  /** Never rejects: what goes wrong is in the report. */
  async #retire(drain: Drain): Promise<void> {
    const { loadTimeoutMs } = this.options;
    this.#after(drain, loadTimeoutMs, () => {
      this.#settleReport(drain, 'resident', this.whatRemains());
    });
    let reason: string | undefined;
    try {
      await this.#dismantle();
    } catch (error) {
      reason = messageOf(error);
    }
    const maps = await readMaps();
    this.#state = step(this.#state, 'retired');
    const own = { name: basename(this.path), path: this.#copy.path };
    const handler = fateOf(own, maps, this.#whyResident());
    const library = handler.fate;
    const said = library === 'unloaded' ? reason : handler.reason;
    const { ownLibraries, lasting } = this.#prepared;
    const libraries = [
      handler,
      ...ownLibraries.map((each) => fateOf(each, maps, this.#whyMapped(each.path))),
      ...this.#keptOfSystem().map((each) => fateOf(each, maps, each.reason)),
      // In a process of its own, it has gone with that.
      ...lasting.map((each) => fateOf(each, maps, KEPT_MAPPED)),
    ];
    // First those who keep count of versions, then those who listen and those who wait for the report.
    this.#retired.resolve();
    const report = this.#reportNow(drain, library, said, libraries);
    this.#report('retired', { ...this.#identity, report });
    this.#settleReport(drain, library, said, libraries);
    this.#machinery = null;
  }

  /** Why a library was kept mapped although it could have been unloaded, if it was. */
  #whyKept(path: string): string | undefined {
    return this.#lanes.kept.find((kept) => kept.path === path)?.reason;
  }

  /** What is neither the handler nor comes along with it, and was kept mapped because threads are in it. */
  #keptOfSystem(): (OwnLibrary & { reason: string })[] {
    const own = [this.#copy.path, ...this.#prepared.ownLibraries.map(({ path }) => path)];
    return this.#lanes.kept
      .filter(({ path }) => !own.includes(path))
      .map(({ path, reason }) => ({ name: basename(path), path, reason }));
  }

  #whyMapped(path: string): string {
    return this.#whyKept(path) ?? this.#prepared.whyMapped.get(path) ?? STILL_MAPPED;
  }

  /** Why the library itself is still mapped after its last lane has unloaded it. */
  #whyResident(): string {
    const kept = this.#whyKept(this.#copy.path);
    if (kept !== undefined) return kept;
    const { sharedStatics, obstacle } = this.#prepared;
    if (sharedStatics !== null) {
      const { count, libraries } = sharedStatics;
      return `it shares ${count} unique symbol${count === 1 ? '' : 's'} (C++ inline or template statics) with ${libraries.join(', ')}`;
    }
    const told = this.#prepared.whyMapped.get(this.#copy.path);
    if (told !== undefined) return told;
    if (obstacle !== null) return `${STILL_MAPPED} (its copy was not changed: ${obstacle})`;
    return STILL_MAPPED;
  }

  #settleReport(
    drain: Drain,
    library: DrainReport['library'],
    reason?: string,
    libraries?: LibraryFate[],
  ): void {
    if (drain.timer !== null) clearTimeout(drain.timer);
    if (drain.reported) return;
    drain.reported = true;
    drain.settle(this.#reportNow(drain, library, reason, libraries));
    this.#keepAlive.release();
  }

  /** Without `libraries`, its own have the fate of the handler, which holds them. */
  #reportNow(
    drain: Drain,
    library: DrainReport['library'],
    reason?: string,
    libraries?: LibraryFate[],
  ): DrainReport {
    const { ownLibraries, lasting } = this.#prepared;
    const why = reason === undefined ? {} : { reason };
    const held = [{ name: basename(this.path) }, ...ownLibraries];
    const { succeeded, failed, badResponse, dropped } = this.#totals;
    return {
      ...this.#identity,
      tookMs: performance.now() - drain.sinceMs,
      finished: succeeded + failed + badResponse - drain.answeredBefore,
      dropped: dropped - drain.droppedBefore,
      abandoned: this.#dispatcher.abandoned,
      library,
      ...why,
      libraries: libraries ?? [
        ...held.map(({ name }) => ({ name, fate: library, ...why })),
        ...lasting.map(({ name }) => ({ name, fate: 'resident' as const, reason: KEPT_MAPPED })),
      ],
    };
  }

  /** Takes in what the lanes have completed, should a doorbell have been missed. */
  collect(): void {
    this.#machinery?.dispatcher.collect();
  }

  get totals(): Readonly<OutcomeTotals> {
    return this.#totals;
  }

  stats(): VersionStats {
    return {
      version: this.version,
      state: this.#state,
      path: this.path,
      isolation: this.isolation,
      activeRequests: this.activeRequests,
      lanes: this.#lanes.counts(),
      processIds: this.#lanes.processIds(),
      refusing: this.#lanes.refusal?.why ?? null,
      ...this.#dispatcher.stats(),
    };
  }
}

const STILL_MAPPED =
  'the library is still mapped after its last lane has unloaded it, and its file does not say why: something that it has opened or registered may hold it; see docs/abi.md';
const KEPT_MAPPED =
  'its threads or statics outlive their users, so it is mapped for good (runtime)';

/** What `maps`, the list of mappings, says of a library; `reason` is why it is still there, if it is. */
function fateOf({ name, path }: OwnLibrary, maps: string | undefined, reason: string): LibraryFate {
  if (maps === undefined) {
    return { name, fate: 'unverified', reason: 'this platform does not tell what is mapped' };
  }
  return listsFile(maps, path) ? { name, fate: 'resident', reason } : { name, fate: 'unloaded' };
}
