/**
 * A registry and the model that it is compared with: which version of which endpoint is active, what each request may be answered
 * with, and what runs at this moment.
 */

import { inspect } from 'node:util';
import type { Worker } from 'node:worker_threads';
import { fixture } from '../../fixtures/paths.js';
import type {
  DrainReport,
  HandlerRegistry,
  HandlerResponse,
  LoadedHandler,
} from '../../src/index.js';
import { isPrepareThread } from '../../src/library/prepare/prepare-thread.js';
import { copiesIn } from '../support/files.js';
import { Gate } from '../support/gate.js';
import { eventually } from '../support/polling.js';
import { mappedIn } from '../support/process.js';

export type Library = 'version_a' | 'version_b' | 'gate';

/** Libraries that cannot be loaded, and what is said of them. */
export const BROKEN = {
  wrong_abi: 'ERR_HANDLER_ABI_MISMATCH',
  failing_init: 'ERR_HANDLER_INIT_FAILED',
  missing_entry: 'ERR_HANDLER_MISSING_SYMBOL',
} as const;

export const MAX_DRAINING = 4;
export const LANES = 2;

/** A version as the model knows it. */
interface KnownVersion {
  readonly handler: LoadedHandler;
  readonly library: Library;
  guards: number;
  /** Whether its requests may be dropped from now on. */
  dropped: boolean;
  report: DrainReport | null;
}

/** A request that was made, and how it may end. */
interface Request {
  readonly version: KnownVersion;
  readonly gate: Gate | null;
  readonly payload: string;
  readonly controller: AbortController;
  readonly hasTimeout: boolean;
  aborted: boolean;
  outcome: string | null;
  settled: number;
}

export class World {
  readonly registry: HandlerRegistry;
  readonly #cacheDir: string;
  readonly #active = new Map<string, KnownVersion>();
  readonly #versions: KnownVersion[] = [];
  readonly requests: Request[] = [];
  readonly #guards: (() => void)[] = [];
  readonly #workers: Worker[] = [];
  #closed = false;
  #names = 0;

  constructor(registry: HandlerRegistry, cacheDir: string) {
    this.registry = registry;
    this.#cacheDir = cacheDir;
    process.on('worker', this.#onWorker);
  }

  readonly #onWorker = (worker: Worker): void => {
    if (isPrepareThread(worker)) return;
    this.#workers.push(worker);
    worker.once('exit', () => this.#workers.splice(this.#workers.indexOf(worker), 1));
  };

  // ---- What is done ------------------------------------------------------------------------------

  isLoaded(id: string): boolean {
    return this.#active.has(id);
  }

  drainingOf(id: string): number {
    return this.#versions.filter(({ handler }) => handler.id === id && handler.draining).length;
  }

  async replace(
    id: string,
    library: Library,
    how: 'load' | 'swap' | 'swapGraceful',
  ): Promise<void> {
    const before = this.#active.get(id);
    if (before !== undefined && how === 'swap') before.dropped = true;
    const path = fixture(library);
    const refused = this.drainingOf(id) >= MAX_DRAINING;
    let drained: Promise<DrainReport> | undefined;
    try {
      if (how === 'load') await this.registry.loadFrom(id, path);
      else ({ drained } = await this.registry[how](id, path));
    } catch (error) {
      // Versions may have retired meanwhile, so that it was not refused after all; but not the other way round.
      if (refused && codeOf(error) === 'ERR_HANDLER_DRAINING_LIMIT') return;
      throw error;
    }
    const handler = this.registry.get(id);
    if (handler === undefined) throw new Error(`'${id}' was loaded and is not there`);
    if (before !== undefined && handler === before.handler) throw new Error('nothing was swapped');
    if (before !== undefined) this.#follow(before, drained);
    const known = { handler, library, guards: 0, dropped: false, report: null };
    this.#active.set(id, known);
    this.#versions.push(known);
  }

  async failToLoad(id: string, library: keyof typeof BROKEN): Promise<void> {
    const before = this.registry.get(id);
    const allowed: string[] = [BROKEN[library]];
    if (this.drainingOf(id) >= MAX_DRAINING) allowed.push('ERR_HANDLER_DRAINING_LIMIT');
    const code = await this.registry.loadFrom(id, fixture(library)).then(
      () => 'loaded',
      (error: unknown) => codeOf(error),
    );
    if (!allowed.includes(code)) throw new Error(`loading ${library} gave ${code}`);
    if (this.registry.get(id) !== before) throw new Error('a failed load changed what is active');
  }

  unload(id: string, drainTimeoutMs: number | undefined): void {
    const version = this.#active.get(id);
    if (version === undefined) throw new Error('not loaded');
    if (drainTimeoutMs === 0) version.dropped = true;
    this.#active.delete(id);
    const options = drainTimeoutMs === undefined ? {} : { drainTimeoutMs };
    this.#follow(version, this.registry.unload(id, options));
  }

  #follow(version: KnownVersion, drained: Promise<DrainReport> | undefined): void {
    drained?.then((report) => {
      version.report = report;
    });
  }

  execute(id: string, timeoutMs: number | undefined): void {
    const version = this.#active.get(id);
    if (version === undefined) throw new Error('not loaded');
    this.#names += 1;
    const gate = version.library === 'gate' ? new Gate() : null;
    const request: Request = {
      version,
      gate,
      payload: `request ${this.#names}`,
      controller: new AbortController(),
      hasTimeout: timeoutMs !== undefined,
      aborted: false,
      outcome: null,
      settled: 0,
    };
    const body = gate?.request ?? request.payload;
    const { signal } = request.controller;
    const answer =
      timeoutMs === undefined
        ? this.registry.execute(id, {}, body, { signal })
        : this.registry.executeWithTimeout(id, {}, body, timeoutMs, { signal });
    this.requests.push(request);
    answer.then(
      (response) => this.#settle(request, this.#checkResponse(request, response)),
      (error: unknown) => this.#settle(request, codeOf(error)),
    );
  }

  #checkResponse({ version, gate, payload }: Request, response: HandlerResponse): string {
    const text = response.text();
    const tag = version.library === 'version_a' ? 'A' : 'B';
    const expected = gate === null ? `${tag}:${payload}` : 'released';
    if (text !== expected) return `'${text}' instead of '${expected}'`;
    if (response.version !== version.handler.version) return `version ${response.version}`;
    return 'ok';
  }

  #settle(request: Request, outcome: string): void {
    request.settled += 1;
    request.outcome = outcome;
  }

  abort(request: Request): void {
    request.aborted = true;
    request.controller.abort(Object.assign(new Error('given up'), { code: 'GIVEN_UP' }));
  }

  acquire(id: string): void {
    const version = this.#active.get(id);
    const guard = version?.handler.acquireRequest() ?? null;
    if (version === undefined || guard === null) throw new Error('an active version gave no guard');
    version.guards += 1;
    this.#guards.push(() => {
      guard.release();
      version.guards -= 1;
    });
  }

  release(): void {
    this.#guards.shift()?.();
  }

  get holdsGuards(): boolean {
    return this.#guards.length > 0;
  }

  /** Gates that hold a native call, or would. */
  closedGates(): Gate[] {
    return this.requests.flatMap(({ gate }) => (gate !== null && !isOpen(gate) ? [gate] : []));
  }

  /** Whether every lane there is sleeps or is about to. */
  get idle(): boolean {
    const { activeRequests, drainingRequests, endpoints } = this.registry.stats();
    const versions = endpoints.flatMap((endpoint) => endpoint.versions);
    const busy = versions.some(({ state, lanes }) => state !== 'active' || lanes.serving !== LANES);
    return activeRequests + drainingRequests === 0 && !busy;
  }

  /** Ends a thread that sleeps. Its lane is replaced in time, and nothing is lost. */
  async crash(which: number): Promise<void> {
    const worker = this.#workers[which % this.#workers.length];
    if (worker === undefined) return;
    const exited = new Promise((resolve) => this.registry.once('laneExited', resolve));
    await worker.terminate();
    await exited;
  }

  // ---- What must hold -------------------------------------------------------------------------------

  /** What must hold after every step. */
  async check(): Promise<void> {
    for (const request of this.requests) this.#checkRequest(request);
    for (const version of this.#versions) this.#checkVersion(version);
    for (const [id, { handler }] of this.#active) {
      const active = this.registry.get(id);
      if (active !== handler)
        throw new Error(`the active version of '${id}' is ${active?.version}`);
      if (handler.state !== 'active') throw new Error(`it is ${handler.state}`);
    }
    if (this.registry.count !== this.#active.size) throw new Error(`count ${this.registry.count}`);
    await this.#checkReports();
  }

  #checkRequest(request: Request): void {
    const { version, outcome, settled, payload, aborted, hasTimeout, gate } = request;
    if (settled > 1) throw new Error(`${payload} was answered ${settled} times`);
    const allowed = ['ok', null];
    if (aborted) allowed.push('GIVEN_UP');
    if (hasTimeout) allowed.push('ERR_HANDLER_TIMEOUT');
    if (version.dropped || this.#closed) allowed.push('ERR_HANDLER_DROPPED');
    if (!allowed.includes(outcome)) {
      throw new Error(`${payload} ended with ${outcome}; allowed: ${inspect(allowed)}`);
    }
    if (outcome === 'ok' && gate !== null && !isOpen(gate)) throw new Error('it has not returned');
  }

  /** In flight is what executes: also what nobody waits for any more. */
  #checkVersion({ handler, guards }: KnownVersion): void {
    const running = this.requests.filter(
      ({ version, gate }) => version.handler === handler && gate?.entered && !isOpen(gate),
    ).length;
    if (handler.activeRequests < running + guards) {
      throw new Error(
        `${handler.activeRequests} in flight, but ${running} calls run and ${guards} guards are held`,
      );
    }
    const gone = handler.state === 'drained' || handler.state === 'retired';
    if (gone && running + guards > 0) throw new Error(`${handler.state} with calls running`);
  }

  /** What is said to be unloaded is not mapped. */
  async #checkReports(): Promise<void> {
    const unloaded = this.#versions.filter(({ report }) => report?.library === 'unloaded');
    if (unloaded.length === 0 || process.platform !== 'linux') return;
    const mapped = await mappedIn(this.#cacheDir);
    for (const { handler } of unloaded) {
      const mine = mapped.filter((path) => path.includes(`${handler.id}-${handler.version}-`));
      if (mine.length > 0) throw new Error(`said to be unloaded: ${mine}`);
    }
  }

  /** Closes the registry with everything let go, and checks that nothing is left. */
  async end(): Promise<void> {
    try {
      for (const gate of this.closedGates()) gate.open();
      while (this.holdsGuards) this.release();
      this.#closed = true;
      const { leftBehind } = await this.registry.close();
      if (leftBehind.length > 0) throw new Error(`left behind: ${inspect(leftBehind)}`);
      await eventually(
        () => this.requests.filter(({ settled }) => settled !== 1).map(({ payload }) => payload),
        (unsettled) => unsettled.length === 0,
        'every request has been answered',
      );
      for (const request of this.requests) this.#checkRequest(request);
      for (const { handler } of this.#versions) {
        if (handler.state !== 'retired') throw new Error(`closed, and ${handler.state}`);
      }
      const copies = await copiesIn(this.#cacheDir);
      if (copies.length > 0) throw new Error(`left in the cache: ${copies}`);
    } finally {
      for (const gate of this.closedGates()) gate.open();
      await this.registry.close();
      process.off('worker', this.#onWorker);
    }
  }
}

function isOpen(gate: Gate): boolean {
  return Atomics.load(gate.request, 1) === 1;
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? error);
}
