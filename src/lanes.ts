/**
 * The lanes of one version: starting them, hearing from them, replacing those that are stuck or have died,
 * and stopping them.
 *
 *   starting ──ready──► serving ──► stuck ──its call returned──► serving
 *      │                  │   │       │
 *      │            told to leave:    │
 *      │             dismissed        │
 *      └──── refused, left, died ─────┴──► gone
 *
 * One rule keeps their number: while fewer serve or start than there should be, another is started, as far as there are
 * records; a lane that comes to serve when there are enough is dismissed.
 */

import { strict as assert } from 'node:assert';
import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { deferred } from './deferred.js';
import { type LoadError, LoadFailedError } from './errors.js';
import { LanePool } from './lane-pool.js';
import type {
  HandlerInfo,
  HostMessage,
  LaneMessage,
  LaneTask,
  LoadFailure,
} from './lane-protocol.js';
import { loadErrorFor } from './load-error.js';
import type { ResolvedEndpointOptions } from './options.js';
import type { RegionTable } from './regions.js';
import type { VersionIdentity } from './request-errors.js';
import { NO_SLOT, type RingProducer } from './ring/producer.js';

const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 5000;

/** What the lanes tell the version they belong to. */
export interface LanesHooks {
  /** Some requests have been completed. */
  doorbell(): void;
  /** A lane's thread has ended by itself; `slot` is the request it was running, or `NO_SLOT`. */
  laneExited(lane: number, slot: number, cause: unknown): void;
  laneStuck(lane: number, replaced: boolean): void;
  laneReplaced(lane: number, by: number): void;
  /** Every lane is stuck and none will be replaced. */
  allStuck(stuckLanes: number): void;
  /** After `allStuck`: a lane serves again. */
  recovered(): void;
}

/** Lanes by what they are doing. */
export interface LaneCounts {
  starting: number;
  serving: number;
  stuck: number;
}

type LaneState = 'starting' | 'serving' | 'stuck' | 'dismissed' | 'gone';

interface Lane {
  readonly index: number;
  readonly port: MessagePort;
  state: LaneState;
  /** The stuck lane that this one stands in for. */
  readonly replaces: Lane | null;
  /** Settles once the lane has loaded the library; rejects with a LoadError. */
  readonly ready: Promise<HandlerInfo>;
  /** Resolves once the lane's task has ended, however it did. */
  gone: Promise<void>;
  readonly loaded: (info: HandlerInfo) => void;
  readonly refused: (error: LoadError) => void;
}

export interface LanesParts {
  identity: VersionIdentity;
  options: ResolvedEndpointOptions;
  ring: RingProducer;
  regions: RegionTable;
  /** The library as the caller named it, for messages. */
  sourcePath: string;
  /** The private copy, which is what is loaded. */
  libraryPath: string;
  hooks: LanesHooks;
}

export class Lanes {
  readonly #parts: LanesParts;
  readonly #pool: LanePool;
  /** By lane index; gone lanes leave their place to the next. */
  readonly #lanes: (Lane | undefined)[];
  /** Large responses that were posted and whose slots have not been collected yet. */
  readonly #posted = new Map<number, ArrayBuffer>();
  /** Lost lanes are replaced only while serving: before, they fail the load; after, they are not missed. */
  #phase: 'loading' | 'serving' | 'stopping' = 'loading';
  #exhausted = false;
  #failedStarts = 0;
  #retry: NodeJS.Timeout | null = null;

  constructor(parts: LanesParts) {
    const { threads, maxStuckLanes, resourceLimits, env } = parts.options;
    this.#parts = parts;
    this.#lanes = new Array(parts.ring.layout.lanes).fill(undefined);
    const maxThreads = threads + maxStuckLanes;
    this.#pool = new LanePool({ threads, maxThreads, resourceLimits, env });
  }

  /**
   * Starts all lanes. Resolves with what the library says of itself when every one is ready; rejects as soon
   * as one is refused. The caller must `stop` in both cases.
   */
  async start(): Promise<HandlerInfo> {
    const { threads } = this.#parts.options;
    const ready = Array.from({ length: threads }, (_, index) => this.#startLane(index, null).ready);
    const [info] = await Promise.all(ready);
    assert(info !== undefined, 'there is at least one lane');
    // Told to stop meanwhile, they may still have become ready.
    if (this.#phase === 'loading') this.#phase = 'serving';
    // One may have been ready and have died before the last one was.
    this.#startMissing(null);
    return info;
  }

  /** Asks all lanes to leave and resolves once they have. Takes as long as a native call takes. */
  async stop(): Promise<void> {
    this.#phase = 'stopping';
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#parts.ring.stop();
    await Promise.all(this.#present().map((lane) => lane.gone));
  }

  /** Ends the threads. Every lane must have left. */
  async destroy(): Promise<void> {
    assert(this.#present().length === 0, 'threads are ended only when no lane is in native code');
    await this.#pool.destroy();
  }

  /** Posts to every lane; they read it before any request that is submitted later. */
  announce(message: HostMessage): void {
    for (const lane of this.#present()) lane.port.postMessage(message);
    this.#parts.ring.announceMail();
  }

  /** The large response that `lane` posted for `slot`. It was posted before the slot was completed. */
  takePosted(lane: number, slot: number): ArrayBuffer {
    const owner = this.#lanes[lane];
    // The slot may be collected before this thread's event loop has delivered the message.
    while (!this.#posted.has(slot) && owner !== undefined) {
      const received = receiveMessageOnPort(owner.port);
      if (received === undefined) break;
      this.#receive(owner, received.message as LaneMessage);
    }
    const bytes = this.#posted.get(slot);
    assert(bytes !== undefined, 'a response is posted before its slot is completed');
    this.#posted.delete(slot);
    return bytes;
  }

  counts(): LaneCounts {
    const count = (state: LaneState) =>
      this.#present().filter((lane) => lane.state === state).length;
    return {
      starting: count('starting'),
      serving: count('serving'),
      stuck: count('stuck'),
    };
  }

  // ---- As many as there should be ----------------------------------------------------------------

  /** An abandoned call on this lane has outlived its grace. */
  callStuck(index: number): void {
    const lane = this.#lanes[index];
    if (lane === undefined || (lane.state !== 'serving' && lane.state !== 'dismissed')) return;
    lane.state = 'stuck';
    const started = this.#startMissing(lane);
    this.#parts.hooks.laneStuck(index, started);
    this.#updateExhausted();
  }

  /** An abandoned call on this lane has returned, whether it had been found stuck or not. */
  callReturned(index: number): void {
    const lane = this.#lanes[index];
    if (lane === undefined || lane.state !== 'stuck') return;
    this.#serves(lane);
  }

  /** A lane can take requests, for the first time or again. If there are enough without it, it leaves. */
  #serves(lane: Lane): void {
    lane.state = 'serving';
    if (this.counts().serving > this.#parts.options.threads) {
      lane.state = 'dismissed';
      this.#parts.ring.dismiss(lane.index);
    }
    this.#updateExhausted();
  }

  /**
   * Starts lanes until there are enough that serve or will; returns whether it started any. Lane records are the limit:
   * one is taken by each stuck lane. After a failed start it waits a while, each time longer.
   */
  #startMissing(replaces: Lane | null): boolean {
    if (this.#phase !== 'serving' || this.#retry !== null) return false;
    let started = false;
    for (;;) {
      const { starting, serving } = this.counts();
      const index = this.#lanes.indexOf(undefined);
      if (starting + serving >= this.#parts.options.threads || index === -1) return started;
      this.#startLane(index, replaces);
      started = true;
    }
  }

  #startMissingLater(): void {
    if (this.#phase !== 'serving' || this.#retry !== null) return;
    const delayMs = Math.min(FIRST_RETRY_MS * 2 ** this.#failedStarts, LONGEST_RETRY_MS);
    this.#failedStarts += 1;
    this.#retry = setTimeout(() => {
      this.#retry = null;
      this.#startMissing(null);
      this.#updateExhausted();
    }, delayMs).unref();
  }

  #updateExhausted(): void {
    const { starting, serving, stuck } = this.counts();
    const exhausted = starting + serving === 0 && stuck > 0 && this.#retry === null;
    if (exhausted === this.#exhausted) return;
    this.#exhausted = exhausted;
    if (exhausted) this.#parts.hooks.allStuck(stuck);
    else this.#parts.hooks.recovered();
  }

  // ---- One lane ----------------------------------------------------------------------------------

  #present(): Lane[] {
    return this.#lanes.filter((lane) => lane !== undefined);
  }

  #startLane(index: number, replaces: Lane | null): Lane {
    const { ring, regions, options, libraryPath } = this.#parts;
    const { port1: port, port2: remotePort } = new MessageChannel();
    const { promise: ready, resolve: loaded, reject: refused } = deferred<HandlerInfo>();
    // Whoever started the lane awaits it; a lane that is refused later must not be an unhandled rejection.
    ready.catch(() => undefined);
    const lane: Lane = {
      index,
      port,
      state: 'starting',
      replaces,
      ready,
      loaded,
      refused,
      gone: Promise.resolve(),
    };
    ring.prepareLane(index);
    port.on('message', (message: LaneMessage) => this.#receive(lane, message));
    port.unref();
    const task: LaneTask = {
      memory: ring.memory,
      shape: { slots: ring.layout.slots, lanes: ring.layout.lanes },
      lane: index,
      port: remotePort,
      libraryPath,
      maxPayloadBytes: options.maxPayloadBytes,
      stackBytes: options.stackBytes,
      regions: regions.list(),
      mail: ring.mail,
    };
    this.#lanes[index] = lane;
    lane.gone = this.#pool.run(task).then(
      () => this.#left(lane),
      (cause: unknown) => this.#died(lane, cause),
    );
    return lane;
  }

  #receive(lane: Lane, message: LaneMessage): void {
    if (message === null) {
      this.#parts.hooks.doorbell();
      return;
    }
    switch (message.type) {
      case 'ready':
        this.#failedStarts = 0;
        lane.loaded(message.info);
        if (lane.replaces?.state === 'stuck') {
          this.#parts.hooks.laneReplaced(lane.replaces.index, lane.index);
        }
        this.#serves(lane);
        return;
      case 'refused':
        this.#refused(lane, message.failure);
        return;
      case 'response':
        this.#posted.set(message.slot, message.bytes);
    }
  }

  #refused(lane: Lane, failure: LoadFailure): void {
    const error = loadErrorFor(failure, this.#parts.sourcePath, this.#parts.identity);
    lane.refused(error);
    // Before, it fails the load; now it is a replacement that did not come to be.
    if (this.#phase === 'serving') this.#parts.hooks.laneExited(lane.index, NO_SLOT, error);
  }

  /** The lane has returned from its task: it was told to, or it was refused. */
  #left(lane: Lane): void {
    this.#readRest(lane);
    this.#forget(lane);
    this.#lost(lane);
  }

  /** The lane's thread has ended, or its task has thrown: the lane's loop is no more. */
  #died(lane: Lane, cause: unknown): void {
    this.#readRest(lane);
    // What it had completed is answered as completed; only then is what is left of it cleared away.
    this.#parts.hooks.doorbell();
    const slot = this.#parts.ring.bury(lane.index);
    if (slot !== NO_SLOT) this.#posted.delete(slot);
    this.#forget(lane);
    const { identity, sourcePath } = this.#parts;
    const said = cause instanceof Error ? cause.message : String(cause);
    lane.refused(
      new LoadFailedError(
        `a worker thread that was to load ${sourcePath} ended: ${said}`,
        sourcePath,
        { ...identity, cause },
      ),
    );
    this.#parts.hooks.laneExited(lane.index, slot, cause);
    this.#lost(lane);
  }

  /** A lane is gone. If it was not told to leave, another is started in time. */
  #lost(lane: Lane): void {
    const wanted = lane.state !== 'dismissed';
    lane.state = 'gone';
    if (wanted) this.#startMissingLater();
    this.#updateExhausted();
  }

  /** Reads what a lane has posted and this thread's event loop has not delivered yet. */
  #readRest(lane: Lane): void {
    for (;;) {
      const received = receiveMessageOnPort(lane.port);
      if (received === undefined) return;
      this.#receive(lane, received.message as LaneMessage);
    }
  }

  #forget(lane: Lane): void {
    lane.port.close();
    this.#lanes[lane.index] = undefined;
  }
}
