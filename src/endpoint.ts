/**
 * One endpoint: its active version, its draining ones, and the order of what is done to it. Loads, swaps and
 * unloads of one endpoint run one after the other; different endpoints do not wait for each other.
 */

import { strict as assert } from 'node:assert';
import { inTime, settledWithin } from './deferred.js';
import type { DrainReport } from './drain-report.js';
import {
  concerning,
  DrainingLimitError,
  type DropReason,
  LoadError,
  LoadFailedError,
  LoadTimeoutError,
  NotLoadedError,
} from './errors.js';
import type { Report } from './events.js';
import type { KeepAlive } from './keep-alive.js';
import type { Integrity } from './library/integrity.js';
import { type Prepared, prepareLibrary } from './library/prepare/prepare.js';
import { keep as keepPrepareThread, startAhead } from './library/prepare/prepare-thread.js';
import type { CopyRules, LibraryStore, PrivateCopy } from './library/store.js';
import type { LoadQueue } from './load-queue.js';
import { bindNativeFunctions } from './native-functions.js';
import {
  checkPayloadFits,
  type EndpointOptions,
  type ResolvedEndpointOptions,
  resolveEndpointOptions,
} from './options.js';
import { checkChildAllowed, permissionError } from './permission.js';
import { endChild, startPreflightChild } from './preflight/child.js';
import { type PreflightReport, preflight } from './preflight/preflight.js';
import type { RegionBudget } from './regions.js';
import type { VersionIdentity } from './request-errors.js';
import { Standby } from './standby.js';
import type { StartedChild } from './start-child.js';
import { Version, type VersionStats } from './version.js';

/** What a swap did. */
export interface SwapResult {
  /** True: the new version is active. A swap that fails rejects. */
  swapped: true;
  /** Requests in flight on the old version when it was swapped out; 0 if there was none. */
  oldRequestsPending: number;
  /** Whether the old version still has requests. */
  draining: boolean;
  /** How the old version ended. Always settles, never rejects. Absent if there was no old version. */
  drained?: Promise<DrainReport>;
}

/** An endpoint's part of the statistics. */
export interface EndpointStats {
  id: string;
  /** The active version's number, or null. */
  activeVersion: number | null;
  /** Lanes that were started ahead and wait for the next version (option `standby`). */
  standbyLanes: number;
  /** The active version first, then the draining ones, then failed loads whose native code has not come back, newest first. */
  versions: VersionStats[];
}

export interface EndpointParts {
  id: string;
  options: ResolvedEndpointOptions;
  store: LibraryStore;
  /** Where loads wait for their turn. */
  loads: LoadQueue;
  /** What all versions of the registry share for request memory. */
  regionBudget: RegionBudget;
  keepAlive: KeepAlive;
  report: Report;
}

/** What the new version must be, and how the one that it replaces is to end. */
export interface Replacement {
  integrity?: Integrity | undefined;
  /** The directory that links to the library must not lead out of. */
  within?: string | null;
  graceful: boolean;
  /** Of a graceful one; default: the endpoint's. */
  drainTimeoutMs?: number | undefined;
}

/** The process that is to try a library. */
interface Trial {
  takeChild: () => Promise<StartedChild | null>;
  dismiss: () => Promise<void>;
}

export class Endpoint {
  readonly id: string;
  readonly #parts: EndpointParts;
  #options: ResolvedEndpointOptions;
  #active: Version | null = null;
  /** Versions that take no more requests and are not retired, oldest first. */
  readonly #draining = new Set<Version>();
  /** Versions that are being loaded, or whose load has failed and whose lanes have not left native code. */
  readonly #hanging = new Set<Version>();
  #lastVersion = 0;
  #everActive = false;
  /** Made ahead for the next version. */
  #standby: Standby | null = null;
  /** Resolves when every discarded standby has ended, or had the time to. */
  #discarded: Promise<unknown> = Promise.resolve();
  /**
   * Resolves when what was still being written for loads that were given up is removed, or had the
   * time to be.
   */
  #removed: Promise<unknown> = Promise.resolve();
  #pendingOperations = 0;
  #operations: Promise<void> = Promise.resolve();

  constructor(parts: EndpointParts) {
    this.id = parts.id;
    this.#parts = parts;
    this.#options = parts.options;
  }

  get active(): Version | null {
    return this.#active;
  }

  get draining(): ReadonlySet<Version> {
    return this.#draining;
  }

  /** Failed loads whose lanes have not left native code, oldest first. */
  get hangingLoads(): Version[] {
    return [...this.#hanging].filter(({ state }) => state === 'failed');
  }

  /** Whether it was never loaded and nobody is about to. */
  get unused(): boolean {
    return !this.#everActive && this.#pendingOperations === 0 && this.#hanging.size === 0;
  }

  /** Every version of which something is left. */
  remaining(): Version[] {
    const active = this.#active === null ? [] : [this.#active];
    return [...active, ...this.#draining, ...this.#hanging];
  }

  /**
   * Resolves when what has been asked of it so far is done, and nothing is left of what was made in
   * vain.
   */
  async settled(): Promise<void> {
    await this.#operations;
    await this.#discarded;
    await this.#removed;
  }

  /** Runs `operation` after those that were called before, whether they succeeded or not. */
  enqueue<T>(operation: () => Promise<T>): Promise<T> {
    this.#pendingOperations += 1;
    const result = this.#operations.then(operation).finally(() => {
      this.#pendingOperations -= 1;
    });
    // The caller gets the outcome; the next in line only waits for it.
    this.#operations = result.then(
      () => undefined,
      () => undefined,
    );
    return this.#parts.keepAlive.during(() => result);
  }

  /**
   * Loads a library, once the registry admits it, and makes it the active version; the one before drains.
   *
   * @throws {HandlerError} if it cannot be loaded. The active version is untouched.
   */
  async replace(
    path: string,
    overrides: EndpointOptions | undefined,
    replacement: Replacement,
    signal: AbortSignal,
  ): Promise<{ version: Version; result: SwapResult }> {
    // Before it waits: what is wrong with them is told at once.
    const options = resolveEndpointOptions(overrides, this.#options);
    checkPayloadFits(options, this.#parts.regionBudget.limitBytes);
    const replace = () => this.#replaceNow(path, options, replacement, signal);
    return this.#parts.loads.admit(replace, signal);
  }

  async #replaceNow(
    path: string,
    options: ResolvedEndpointOptions,
    { graceful, drainTimeoutMs, integrity, within = null }: Replacement,
    signal: AbortSignal,
  ): Promise<{ version: Version; result: SwapResult }> {
    const { report } = this.#parts;
    const rules = { integrity, within, allowUnsafePermissions: options.allowUnsafePermissions };
    const identity = { endpoint: this.id, version: this.#lastVersion + 1 };
    this.#lastVersion += 1;
    const startedMs = performance.now();
    report('loading', { ...identity, path });
    let next: Version;
    try {
      next = await this.#load(identity, path, rules, options, signal);
      if (signal.aborted) {
        // Closed in the very tick in which it became ready.
        void this.#startDrain(next, 'close', 0);
        throw signal.reason;
      }
    } catch (thrown) {
      const refused = permissionError(thrown, path, identity) ?? thrown;
      // The reason of the signal is everybody's.
      const error = refused instanceof LoadError ? concerning(refused, identity) : refused;
      report('loadFailed', { ...identity, path, error });
      this.#prepareNext(signal);
      throw error;
    }
    // From here to the end of the old version's admission there is no await: a caller gets one or the other.
    const previous = this.#active;
    this.#active = next;
    this.#everActive = true;
    this.#options = options;
    const result: SwapResult = { swapped: true, oldRequestsPending: 0, draining: false };
    if (previous !== null) {
      result.oldRequestsPending = previous.activeRequests;
      result.drained = this.#startDrain(
        previous,
        'swap',
        graceful ? (drainTimeoutMs ?? previous.options.drainTimeoutMs) : 0,
      );
      result.draining = previous.activeRequests > 0;
    }
    const { sha256, info } = next;
    report('loaded', { ...identity, path, sha256, info, tookMs: performance.now() - startedMs });
    if (previous !== null) report('swapped', { ...identity, from: previous.version, graceful });
    this.#prepareNext(signal);
    return { version: next, result };
  }

  async #load(
    identity: VersionIdentity,
    path: string,
    rules: CopyRules,
    options: ResolvedEndpointOptions,
    signal: AbortSignal,
  ): Promise<Version> {
    signal.throwIfAborted();
    this.#checkDrainingLimit(path, options);
    checkChildAllowed(options, path, identity);
    const { keepAlive, regionBudget, report } = this.#parts;
    const endMs = performance.now() + options.loadTimeoutMs;
    await bindNativeFunctions();
    // While the copy is written, the thread that looks into it starts; and while it does that, so does the process that tries it.
    if (process.platform === 'linux') startAhead();
    const copy = await this.#copy(identity, path, rules, options, signal);
    // A wait of 0 would be none at all.
    const leftMs = () => Math.max(1, endMs - performance.now());
    const trial = this.#startTrial(options);
    let prepared: Prepared;
    try {
      prepared = await this.#prepare(identity, copy, rules, options, leftMs(), signal);
    } catch (error) {
      await trial.dismiss();
      throw error;
    }
    const { plan } = prepared;
    for (const { name, path, kind, instead } of prepared.dependencies) {
      if (kind !== 'shadowed' || path === null || instead === undefined) continue;
      report('dependencyShadowed', { ...identity, name, path, instead });
    }
    const removeCopies = () => this.#removeLeft(path, options, prepared, copy);
    let tried: PreflightReport | null = null;
    let version: Version;
    let standby: Standby | null = null;
    try {
      if (options.preflight !== false) {
        const { takeChild } = trial;
        const parts = { path, plan, identity, options, takeChild, signal };
        tried = await preflight({ ...parts, timeoutMs: leftMs() });
      }
    } catch (error) {
      await trial.dismiss();
      await removeCopies();
      throw error;
    }
    try {
      standby = await this.#takeStandby(options);
      const parts = { identity, options, path, copy, prepared, preflight: tried, standby };
      version = new Version({ ...parts, regionBudget, keepAlive, report });
    } catch (cause) {
      await standby?.destroy();
      await removeCopies();
      throw new LoadFailedError(
        `no threads or memory could be had for ${path} (${cause}); load fewer versions, or lower threads, maxInFlight and maxPayloadBytes`,
        path,
        { ...identity, cause },
      );
    }
    this.#hanging.add(version);
    // While a constructor hangs, it holds the dynamic loader, and Node 24 cannot start a thread.
    const letPrepareThreadEnd = keepPrepareThread();
    const settled = () => {
      this.#hanging.delete(version);
      letPrepareThreadEnd();
    };
    void version.retired.then(settled);
    await version.load(leftMs(), signal);
    settled();
    return version;
  }

  /**
   * Starts the process that is to try a library, unless one waits. `takeChild` gives it away; `dismiss` ends it if nobody has
   * taken it, and waits for that no longer than `cancelGraceMs`.
   */
  #startTrial(options: ResolvedEndpointOptions): Trial {
    const isWanted = options.preflight !== false && this.#standby?.hasChild(options) !== true;
    // What is in the way of it is told by pre-flight, which then starts its own.
    let starting = isWanted ? startPreflightChild(options.env).catch(() => null) : null;
    const take = (): Promise<StartedChild | null> | null => {
      const taken = starting;
      starting = null;
      return taken;
    };
    return {
      takeChild: async () => (await take()) ?? this.#standby?.takeChild(options) ?? null,
      dismiss: async () => {
        const ended = async () => {
          const child = await take();
          if (child !== null) await endChild(child);
        };
        await settledWithin(ended(), options.cancelGraceMs);
      },
    };
  }

  /** What the next version is made of: what was made ahead, if it fits what is wanted now. */
  async #takeStandby(options: ResolvedEndpointOptions): Promise<Standby> {
    const ahead = this.#standby;
    if (ahead?.fits(options) !== true) {
      this.#discardStandby();
      return Standby.create(options);
    }
    this.#standby = null;
    return ahead;
  }

  #discardStandby(): void {
    const standby = this.#standby;
    if (standby === null) return;
    this.#standby = null;
    // Not for ever: if native code of another version hangs in the loader, so does a lane that loads koffi.
    const gone = this.#parts.keepAlive
      .during(() => settledWithin(standby.destroy(), this.#options.loadTimeoutMs))
      .catch((error: unknown) => {
        process.emitWarning(`what was made ahead for '${this.id}' left something behind: ${error}`);
      });
    this.#discarded = Promise.all([this.#discarded, gone]);
  }

  /** Begins to make what the next version's standby lacks, if the active version has the option. */
  #prepareNext(signal: AbortSignal): void {
    if (this.#active?.options.standby !== true) return;
    // In line with loads and unloads, so that each finds a standby or none.
    void this.enqueue(async () => {
      const options = this.#active?.options;
      if (options?.standby !== true || signal.aborted) return;
      try {
        this.#standby ??= await Standby.create(options);
      } catch (cause) {
        // It costs only the head start.
        process.emitWarning(`nothing could be made ready for the next '${this.id}': ${cause}`);
        return;
      }
      // Closing does not wait in line.
      if (signal.aborted) this.#discardStandby();
      else this.#standby.fill();
    });
  }

  /** The private copy, in time. A file system that hangs does not hold up the endpoint. */
  async #copy(
    identity: VersionIdentity,
    path: string,
    rules: CopyRules,
    options: ResolvedEndpointOptions,
    signal: AbortSignal,
  ): Promise<PrivateCopy> {
    const { loadTimeoutMs } = options;
    const copying = this.#parts.store.copy(path, `${this.id}-${identity.version}`, rules);
    try {
      return await inTime(copying, {
        timeoutMs: loadTimeoutMs,
        signal,
        late: () =>
          new LoadTimeoutError(
            loadTimeoutMs,
            `${path} could not be read within ${loadTimeoutMs} ms; look at the file system it is on, or raise loadTimeoutMs`,
            path,
            identity,
          ),
      });
    } catch (error) {
      // If it was the wait that failed, nobody wants the copy any more.
      this.#removeLater(path, options, copying);
      throw error;
    }
  }

  /**
   * Removes what a failed load has written. Not for ever: the file system may hang. The caller gets
   * the reason of the failed load; what cannot be removed is a leftover that a later process removes.
   */
  async #removeLeft(
    path: string,
    { cancelGraceMs }: ResolvedEndpointOptions,
    ...copies: { remove(): Promise<void> }[]
  ): Promise<void> {
    const removed = Promise.all(copies.map((copy) => copy.remove())).catch((error: unknown) => {
      process.emitWarning(`a failed load of ${path} left something behind: ${error}`);
    });
    await settledWithin(removed, cancelGraceMs);
  }

  /**
   * The same for what is still being written. Closing waits a moment for that, since the process
   * may end right after it.
   */
  #removeLater(
    path: string,
    options: ResolvedEndpointOptions,
    written: Promise<{ remove(): Promise<void> }>,
  ): void {
    const removed = written.then(
      (copies) => this.#removeLeft(path, options, copies),
      () => undefined,
    );
    const gone = settledWithin(removed, options.cancelGraceMs);
    this.#removed = Promise.all([this.#removed, gone]);
  }

  /** Makes the copy ready, in time. If that fails, nothing is left of it. */
  async #prepare(
    identity: VersionIdentity,
    copy: PrivateCopy,
    rules: CopyRules,
    options: ResolvedEndpointOptions,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<Prepared> {
    const { store } = this.#parts;
    const { isolation, env, binding, loadTimeoutMs } = options;
    const path = copy.sourcePath;
    const givenUp = new AbortController();
    const parts = { store, copy, isolation, env, binding, rules, signal: givenUp.signal };
    const preparing = prepareLibrary(parts);
    try {
      return await inTime(preparing, {
        timeoutMs,
        signal,
        late: () =>
          new LoadTimeoutError(
            loadTimeoutMs,
            `${path} and what it needs could not be read within ${loadTimeoutMs} ms; check the file systems that they are on and whether another handler hangs in the dynamic loader, or raise loadTimeoutMs`,
            path,
            identity,
          ),
      });
    } catch (error) {
      // If it was the wait that failed, nobody wants the copies any more.
      givenUp.abort(error);
      this.#removeLater(path, options, preparing);
      await this.#removeLeft(path, options, copy);
      throw error;
    }
  }

  #checkDrainingLimit(path: string, { maxDrainingVersions }: ResolvedEndpointOptions): void {
    const draining = this.#draining.size;
    const failed = this.hangingLoads.length;
    if (draining + failed < maxDrainingVersions) return;
    const also =
      failed === 0 ? '' : ` and ${failed} failed loads of it have not come back from native code`;
    throw new DrainingLimitError(
      `${draining} versions of '${this.id}' are still draining${also}, and maxDrainingVersions is ${maxDrainingVersions}; wait for one to retire, shorten drainTimeoutMs, or raise maxDrainingVersions`,
      path,
      { endpoint: this.id },
    );
  }

  /**
   * Takes the active version out of service.
   *
   * @throws {NotLoadedError} if there is none.
   */
  retireActive(reason: DropReason, drainTimeoutMs: number | undefined): Promise<DrainReport> {
    const version = this.#active;
    if (version === null) throw notLoaded(this.id);
    this.#active = null;
    this.#discardStandby();
    const drained = this.#startDrain(
      version,
      reason,
      drainTimeoutMs ?? version.options.drainTimeoutMs,
    );
    return Promise.all([drained, this.#discarded]).then(([report]) => report);
  }

  #startDrain(version: Version, reason: DropReason, drainTimeoutMs: number): Promise<DrainReport> {
    assert(!this.#draining.has(version), 'a version drains once');
    this.#draining.add(version);
    void version.retired.then(() => this.#draining.delete(version));
    return version.drain(reason, drainTimeoutMs);
  }

  stats(): EndpointStats {
    const versions = [...[...this.#draining].reverse(), ...this.hangingLoads.reverse()];
    if (this.#active !== null) versions.unshift(this.#active);
    return {
      id: this.id,
      activeVersion: this.#active?.version ?? null,
      standbyLanes: this.#standby?.waiting ?? 0,
      versions: versions.map((version) => version.stats()),
    };
  }
}

export function notLoaded(id: string): NotLoadedError {
  return new NotLoadedError(`no handler '${id}' is loaded; call load('${id}') and await it first`, {
    endpoint: id,
  });
}
