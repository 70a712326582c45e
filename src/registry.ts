/** The registry: the public face of the library. Finds the endpoint, the endpoint does the work. */

import { setMaxListeners } from 'node:events';
import { join } from 'node:path';
import { settledWithin } from './deferred.js';
import type { DrainReport } from './drain-report.js';
import {
  Endpoint,
  type EndpointStats,
  notLoaded,
  type Replacement,
  type SwapResult,
} from './endpoint.js';
import { type HandlerError, RegistryClosedError } from './errors.js';
import { RegistryEmitter, type Report } from './events.js';
import { KeepAlive } from './keep-alive.js';
import { assertHandlerId, libraryFileName } from './library/name.js';
import { LibraryStore } from './library/store.js';
import { LoadQueue } from './load-queue.js';
import {
  checkDuration,
  checkPath,
  type LoadOptions,
  onlyOption,
  type RegistryOptions,
  type ResolvedRegistryOptions,
  resolveRegistryOptions,
  splitLoadOptions,
} from './options.js';
import { RegionBudget } from './regions.js';
import type { RequestContext, RequestPayload } from './request.js';
import type { HandlerResponse } from './response.js';
import type { ExecuteOptions, LoadedHandler, Version } from './version.js';

/** How an endpoint is unloaded. */
export interface UnloadOptions {
  /** Milliseconds to let requests finish; 0 drops them at once. Default: the endpoint's. */
  drainTimeoutMs?: number;
}

/** How a registry is closed. */
export interface CloseOptions {
  /** Milliseconds until `close` settles, whatever the handlers do. Default: `closeTimeoutMs`. */
  timeoutMs?: number;
}

/** A version that `close` had to leave behind. */
export interface LeftBehind {
  endpoint: string;
  version: number;
  path: string;
  /** Why, such as a native call that still runs. */
  reason: string;
}

/** How closing went. */
export interface CloseReport {
  tookMs: number;
  /** Requests that were dropped because they had not finished in time. */
  dropped: number;
  /**
   * What could not be taken down because native code is still running. While there is any, `process.exit()` hangs:
   * use `exitProcess`.
   */
  leftBehind: LeftBehind[];
}

/** A registry's statistics. */
export interface RegistryStats {
  /** Endpoints with an active version. */
  loadedCount: number;
  /** Versions that take no more requests and are not retired. */
  drainingCount: number;
  /** Failed loads whose native code has not come back: their threads are still there. */
  hangingLoads: number;
  /** Requests in flight on active versions. */
  activeRequests: number;
  /** Requests in flight on draining versions. */
  drainingRequests: number;
  endpoints: EndpointStats[];
}

/** A handle bound to one endpoint id; it follows swaps. */
export interface EndpointHandle {
  readonly id: string;
  /** The active version, if there is one. */
  get(): LoadedHandler | undefined;
  isLoaded(): boolean;
  load(options?: LoadOptions): Promise<LoadedHandler>;
  loadFrom(path: string, options?: LoadOptions): Promise<LoadedHandler>;
  execute(
    context: RequestContext | undefined,
    request: RequestPayload,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse>;
  executeWithTimeout(
    context: RequestContext | undefined,
    request: RequestPayload,
    timeoutMs: number,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse>;
  swap(path: string, options?: LoadOptions): Promise<SwapResult>;
  swapGraceful(path: string, drainTimeoutMs?: number, options?: LoadOptions): Promise<SwapResult>;
  unload(options?: UnloadOptions): Promise<DrainReport>;
  /** The endpoint's part of `stats()`. */
  stats(): EndpointStats | undefined;
}

/** The rest of the time is for calls that were told to cancel, and for unloading. */
const CLOSE_DRAIN_SHARE = 0.75;
/** Then processes that are left are killed, which leaves them the rest of the time to end. */
const CLOSE_KILL_SHARE = 0.85;
/** How long removing the directory may take when there is no time left: it is but a few system calls. */
const STORE_CLOSE_MS = 500;

/**
 * Loads native handlers, executes requests on them off the main thread, and replaces them while requests run.
 *
 * An emitter of `RegistryEvents`. A listener that throws costs a process warning, and listeners after it that one event; the
 * engine does not notice.
 */
export class HandlerRegistry extends RegistryEmitter {
  readonly #options: ResolvedRegistryOptions;
  readonly #store: LibraryStore;
  readonly #keepAlive = new KeepAlive();
  readonly #loads: LoadQueue;
  readonly #regionBudget: RegionBudget;
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #sweep: NodeJS.Timeout | null;
  /** Aborted when closing begins: loads that are going on give up. */
  readonly #closing = new AbortController();
  #closed: Promise<CloseReport> | null = null;
  /**
   * Events are delivered in a microtask of their own, in order. So a listener that swaps, aborts or closes never does it in
   * the middle of a transition.
   */
  readonly #report: Report = (event, ...details) => {
    if (this.listenerCount(event) === 0) return;
    // The emitter's own types do not survive being generic over the event's name.
    const emit = this.emit as (event: string, ...details: unknown[]) => boolean;
    queueMicrotask(() => emit.call(this, event, ...details));
  };

  /** @throws {InvalidOptionError} for an unknown option or a value out of range. */
  constructor(options: RegistryOptions = {}) {
    super();
    this.#options = resolveRegistryOptions(options);
    // Every load that is going on listens.
    setMaxListeners(0, this.#closing.signal);
    const { cacheDir, cleanupIntervalMs, maxConcurrentLoads, maxRegionBytes } = this.#options;
    this.#store = new LibraryStore({ cacheDir });
    this.#loads = new LoadQueue(maxConcurrentLoads);
    this.#regionBudget = new RegionBudget(maxRegionBytes);
    this.#sweep =
      cleanupIntervalMs === 0
        ? null
        : setInterval(() => this.#sweepDrained(), cleanupIntervalMs).unref();
  }

  // ---- Loading and replacing -------------------------------------------------------------------

  /**
   * Loads `libraryFileName(id)` from `handlersDir`. If the endpoint is loaded already, this is a graceful swap with
   * the default drain timeout. Options given here replace the registry's for this endpoint, also in later loads, except `integrity`.
   *
   * @throws {InvalidIdError | InvalidOptionError | LoadError | RegistryClosedError} and nothing is changed.
   */
  async load(id: string, options?: LoadOptions): Promise<LoadedHandler> {
    const { handlersDir, allowOutsideLinks } = this.#options;
    const { version } = await this.#replace(id, this.#defaultPath(id), options, {
      graceful: true,
      within: allowOutsideLinks ? null : handlersDir,
    });
    return version;
  }

  /** As `load`, from any path. */
  async loadFrom(id: string, path: string, options?: LoadOptions): Promise<LoadedHandler> {
    const { version } = await this.#replace(id, path, options, { graceful: true });
    return version;
  }

  /**
   * Replaces the active version at once: requests in flight on it are answered with `DroppedError`. Loads the endpoint
   * if it is not loaded.
   *
   * @throws as `load`; the active version is then untouched and nothing is dropped.
   */
  async swap(id: string, path: string, options?: LoadOptions): Promise<SwapResult> {
    const { result } = await this.#replace(id, path, options, { graceful: false });
    return result;
  }

  /**
   * Replaces the active version: new requests go to the new one, those in flight finish on the old one. Resolves once
   * the new version is active; `drained` in the result tells how the old one ended. Requests that have not finished
   * after `drainTimeoutMs` are answered with `DroppedError`. Loads the endpoint if it is not loaded.
   *
   * @throws as `load`; the active version is then untouched.
   */
  async swapGraceful(
    id: string,
    path: string,
    drainTimeoutMs?: number,
    options?: LoadOptions,
  ): Promise<SwapResult> {
    const checked = checkDuration('drainTimeoutMs', drainTimeoutMs);
    const { result } = await this.#replace(id, path, options, {
      graceful: true,
      drainTimeoutMs: checked,
    });
    return result;
  }

  /**
   * Takes an endpoint out of service. Resolves when its version has retired, or when what is left of it are native
   * calls that outlive the drain timeout and their grace; the report says which. The id can be loaded again at once.
   *
   * @throws {NotLoadedError} if it is not loaded.
   * @throws {InvalidOptionError} for an unknown option, or if `drainTimeoutMs` is not a duration.
   */
  async unload(id: string, options?: UnloadOptions): Promise<DrainReport> {
    this.#assertOpen();
    assertHandlerId(id);
    const drainTimeoutMs = checkDuration('drainTimeoutMs', onlyOption(options, 'drainTimeoutMs'));
    const endpoint = this.#endpoints.get(id);
    if (endpoint === undefined) throw notLoaded(id);
    // What waits in line is taking it out of service; the drain itself holds nobody up.
    const started = await endpoint.enqueue(async () => ({
      drained: endpoint.retireActive('unload', drainTimeoutMs),
    }));
    return started.drained;
  }

  #defaultPath(id: string): string {
    assertHandlerId(id);
    return join(this.#options.handlersDir, libraryFileName(id));
  }

  async #replace(
    id: string,
    path: string,
    options: LoadOptions | undefined,
    replacement: Replacement,
  ): Promise<{ version: Version; result: SwapResult }> {
    this.#assertOpen();
    assertHandlerId(id);
    const library = checkPath(path);
    const { endpoint: overrides, integrity } = splitLoadOptions(options);
    const asked = { ...replacement, integrity };
    const endpoint = this.#endpointFor(id);
    return endpoint
      .enqueue(() => endpoint.replace(library, overrides, asked, this.#closing.signal))
      .finally(() => this.#forgetUnused());
  }

  #endpointFor(id: string): Endpoint {
    const known = this.#endpoints.get(id);
    if (known !== undefined) return known;
    const endpoint = new Endpoint({
      id,
      options: this.#options.endpoint,
      store: this.#store,
      loads: this.#loads,
      regionBudget: this.#regionBudget,
      keepAlive: this.#keepAlive,
      report: this.#report,
    });
    this.#endpoints.set(id, endpoint);
    return endpoint;
  }

  // ---- Executing -------------------------------------------------------------------------------

  /**
   * Executes a request on the endpoint's active version, with its default timeout.
   *
   * Rejects with the signal's reason if it is aborted, otherwise with a `HandlerError`: `NotLoadedError`,
   * `InvalidRequestError`, `PayloadTooLargeError`, `QueueFullError`, `EndpointStuckError`, `TimeoutError`,
   * `DroppedError`, `HandlerFailedError`, `ResponseTooLargeError`, `InvalidResponseError`, `LaneExitedError`, `CrashLoopError`.
   */
  execute(
    id: string,
    context: RequestContext | undefined,
    request: RequestPayload,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse> {
    // Looking up and acquiring happen in one tick, so that a swap cannot come between.
    const version = this.#endpoints.get(id)?.active;
    if (version === undefined || version === null) return Promise.reject(this.#whyNot(id));
    return version.execute(context, request, options);
  }

  /**
   * As `execute`, with a timeout in milliseconds, counted from this call; `Infinity` for none. When it has passed,
   * the caller gets a `TimeoutError`; a native call that has begun goes on, with its cancel flag raised.
   */
  executeWithTimeout(
    id: string,
    context: RequestContext | undefined,
    request: RequestPayload,
    timeoutMs: number,
    options?: ExecuteOptions,
  ): Promise<HandlerResponse> {
    const version = this.#endpoints.get(id)?.active;
    if (version === undefined || version === null) return Promise.reject(this.#whyNot(id));
    return version.executeWithTimeout(context, request, timeoutMs, options);
  }

  #whyNot(id: string): HandlerError {
    if (this.#closed !== null) return closedError();
    try {
      assertHandlerId(id);
    } catch (error) {
      return error as HandlerError;
    }
    return notLoaded(id);
  }

  /** A handle bound to `id`, which need not be loaded yet. */
  endpoint(id: string): EndpointHandle {
    assertHandlerId(id);
    return {
      id,
      get: () => this.get(id),
      isLoaded: () => this.isLoaded(id),
      load: (options) => this.load(id, options),
      loadFrom: (path, options) => this.loadFrom(id, path, options),
      execute: (context, request, options) => this.execute(id, context, request, options),
      executeWithTimeout: (context, request, timeoutMs, options) =>
        this.executeWithTimeout(id, context, request, timeoutMs, options),
      swap: (path, options) => this.swap(id, path, options),
      swapGraceful: (path, drainTimeoutMs, options) =>
        this.swapGraceful(id, path, drainTimeoutMs, options),
      unload: (options) => this.unload(id, options),
      stats: () => this.#endpoints.get(id)?.stats(),
    };
  }

  // ---- Looking ---------------------------------------------------------------------------------

  /** The active version of `id`, or undefined. */
  get(id: string): LoadedHandler | undefined {
    return this.#endpoints.get(id)?.active ?? undefined;
  }

  isLoaded(id: string): boolean {
    return this.get(id) !== undefined;
  }

  /** The active versions, in the order in which their endpoints were first loaded. */
  list(): LoadedHandler[] {
    return this.#active();
  }

  /** Endpoints with an active version. */
  get count(): number {
    return this.#active().length;
  }

  /** Versions that take no more requests and are not retired. */
  get drainingCount(): number {
    return this.#draining().length;
  }

  /** Everything there is to measure, as of now. Cheap enough to call every second. */
  stats(): RegistryStats {
    const inFlight = (versions: Version[]) => sumOf(versions, (version) => version.activeRequests);
    return {
      loadedCount: this.count,
      drainingCount: this.drainingCount,
      hangingLoads: sumOf(
        [...this.#endpoints.values()],
        (endpoint) => endpoint.hangingLoads.length,
      ),
      activeRequests: inFlight(this.#active()),
      drainingRequests: inFlight(this.#draining()),
      endpoints: [...this.#endpoints.values()].map((endpoint) => endpoint.stats()),
    };
  }

  #active(): Version[] {
    return [...this.#endpoints.values()].flatMap(({ active }) => (active === null ? [] : [active]));
  }

  #draining(): Version[] {
    return [...this.#endpoints.values()].flatMap(({ draining }) => [...draining]);
  }

  // ---- Cleaning up -----------------------------------------------------------------------------

  /**
   * Retires the versions that have drained and resolves with how many. A version retires by itself as soon as its last
   * request has left; this is for waiting until that is done. It does not wait for versions that still drain.
   */
  async cleanupDrained(): Promise<number> {
    const drained = this.#sweepDrained();
    const retired = drained.map((version) =>
      settledWithin(version.retired, version.options.loadTimeoutMs),
    );
    await this.#keepAlive.during(() => Promise.all(retired));
    return drained.filter((version) => version.state === 'retired').length;
  }

  /** Looks at every draining version once more, and returns those that have drained. */
  #sweepDrained(): Version[] {
    const draining = this.#draining();
    for (const version of draining) version.collect();
    this.#forgetUnused();
    return draining.filter((version) => version.state === 'drained' || version.state === 'retired');
  }

  /** Drops the records of ids that never loaded, so that they do not pile up. */
  #forgetUnused(): void {
    for (const [id, endpoint] of this.#endpoints) {
      if (endpoint.unused) this.#endpoints.delete(id);
    }
  }

  /**
   * Closes the registry: takes no more requests, lets those in flight finish, drops what has not finished in time, and
   * unloads everything. Settles by the deadline whatever the handlers do. Later calls get the first one's report.
   *
   * @throws {InvalidOptionError} for an unknown option, or if `timeoutMs` is not a duration; the registry stays as it is.
   */
  async close(options?: CloseOptions): Promise<CloseReport> {
    const timeoutMs =
      checkDuration('timeoutMs', onlyOption(options, 'timeoutMs')) ?? this.#options.closeTimeoutMs;
    this.#closed ??= this.#keepAlive.during(() => this.#close(timeoutMs));
    return this.#closed;
  }

  async #close(timeoutMs: number): Promise<CloseReport> {
    const startedMs = performance.now();
    const endpoints = [...this.#endpoints.values()];
    if (this.#sweep !== null) clearInterval(this.#sweep);
    this.#closing.abort(closedError());
    const drainMs = timeoutMs * CLOSE_DRAIN_SHARE;
    const versions = [...this.#active(), ...this.#draining()];
    const droppedBefore = sumOf(versions, (version) => version.totals.dropped);
    for (const endpoint of endpoints) {
      if (endpoint.active !== null) void endpoint.retireActive('close', timeoutMs);
    }
    const drop = setTimeout(() => {
      for (const version of versions) version.dropNow('close');
    }, drainMs);
    const kill = setTimeout(() => {
      const remaining = endpoints.flatMap((endpoint) => endpoint.remaining());
      for (const version of remaining) version.killProcesses();
    }, timeoutMs * CLOSE_KILL_SHARE);
    const allGone = async () => {
      await Promise.all(endpoints.map((endpoint) => endpoint.settled()));
      const remaining = endpoints.flatMap((endpoint) => endpoint.remaining());
      await Promise.all(remaining.map((version) => version.retired));
    };
    await settledWithin(allGone(), timeoutMs);
    clearTimeout(drop);
    clearTimeout(kill);
    // At once: while the directory is removed, one of them may retire.
    const leftBehind = endpoints
      .flatMap((endpoint) => endpoint.remaining())
      .map((version) => ({
        endpoint: version.id,
        version: version.version,
        path: version.path,
        reason: version.whatRemains(),
      }));
    const dropped = sumOf(versions, (version) => version.totals.dropped) - droppedBefore;
    // Goes now, or with the last copy that is removed later. A file system that hangs does not hold up
    // the end.
    const leftMs = timeoutMs - (performance.now() - startedMs);
    await settledWithin(this.#store.close(), Math.max(leftMs, STORE_CLOSE_MS));
    this.#keepAlive.close();
    return { tookMs: performance.now() - startedMs, dropped, leftBehind };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #assertOpen(): void {
    if (this.#closed !== null) throw closedError();
  }
}

function sumOf<T>(items: readonly T[], size: (item: T) => number): number {
  return items.reduce((sum, item) => sum + size(item), 0);
}

function closedError(): RegistryClosedError {
  return new RegistryClosedError('the registry is closed; create a new one');
}
