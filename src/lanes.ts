/**
 * The lanes of one version: starting them, hearing from them, replacing those that are stuck, worn or have died,
 * and stopping them.
 *
 *   starting ──ready──► serving ──► stuck ──its call returned──► serving      (in a thread)
 *      │                  │   │       │
 *      │                  │   └───► killed                                     (in a process)
 *      │            told to leave:    │
 *      │             dismissed        │
 *      └──── refused, left, died ─────┴──► gone
 *
 * One rule keeps their number: while fewer serve or start than there should be, another is started, as far as there are
 * records; a lane that comes to serve when there are enough is dismissed. A worn lane is replaced the other way round: one more is
 * started, and when that serves, the worn one is dismissed.
 */

import { strict as assert } from 'node:assert';
import { uptime } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { childEnv } from './child-env.js';
import { CrashLoop } from './crash-loop.js';
import { deferred } from './deferred.js';
import { type LoadError, LoadFailedError } from './errors.js';
import type {
  HandlerInfo,
  HostMessage,
  KeptLibrary,
  LaneMessage,
  LaneOrder,
  LoadFailure,
  ProcessEnd,
  ProcessTask,
  WearReason,
} from './lane-protocol.js';
import type { LoadPlan } from './library/load-plan.js';
import { loadErrorFor } from './load-error.js';
import type { ResolvedEndpointOptions } from './options.js';
import type { RegionTable } from './regions.js';
import { describeEnd, laneExited, type VersionIdentity } from './request-errors.js';
import { STATE } from './ring/layout.js';
import { Outbox } from './ring/outbox.js';
import { NO_SLOT, type RingProducer } from './ring/producer.js';
import type { Standby } from './standby.js';
import { reapOrphan } from './start-child.js';

/** The rest of `loadTimeoutMs` is for the end of a process that had to be killed. */
const STOP_SHARE = 0.8;

/** Why requests are refused. */
export type Refusal =
  /** Every lane is stuck and none will be replaced. */
  | { why: 'stuck'; stuckLanes: number }
  /** Lanes crash again and again. */
  | { why: 'crash-loop'; crashes: number; cause: unknown };

/** What the lanes tell the version they belong to. */
export interface LanesHooks {
  /** Some requests have been completed, to be collected soon. */
  doorbell(): void;
  /** Collects what has been completed, now. */
  collect(): void;
  /**
   * A lane's thread or process has ended; `slot` is the request it was running, or `NO_SLOT`, and `end` how the process ended, if it
   * had one. `expected` if it was killed here.
   */
  laneExited(exit: LaneExit): void;
  laneStuck(lane: number, fate: { replaced: boolean; killed: boolean }): void;
  laneReplaced(lane: number, by: number): void;
  laneRecycled(lane: number, by: number, reason: WearReason): void;
  /** Lanes have crashed in a row; a new one is tried after `retryMs`. */
  crashLoop(crashes: number, retryMs: number, error: unknown): void;
  crashLoopEnded(): void;
  /** Requests are refused from now on, or taken again. */
  refusalChanged(refusal: Refusal | null): void;
}

/** How a lane ended. */
export interface LaneExit {
  lane: number;
  slot: number;
  cause: unknown;
  end: ProcessEnd | null;
  expected: boolean;
}

/** Lanes by what they are doing. */
export interface LaneCounts {
  starting: number;
  serving: number;
  stuck: number;
}

type LaneState = 'starting' | 'serving' | 'stuck' | 'killed' | 'dismissed' | 'gone';

interface Lane {
  readonly index: number;
  readonly port: MessagePort;
  readonly outbox: Outbox;
  state: LaneState;
  /** The stuck, killed or worn lane that this one stands in for. */
  readonly replaces: Lane | null;
  /** Why it should be replaced although it serves, if it should. */
  worn: WearReason | null;
  /** Its process was killed here: because it was stuck, or because nobody needs it any more. */
  killed: boolean;
  /** How its process ended, once it has. */
  end: ProcessEnd | null;
  /** While it starts: until it is given up. Then: until it is worn. */
  timer: NodeJS.Timeout | null;
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
  /** Where the lanes come from. It ends with them. */
  standby: Standby;
  regions: RegionTable;
  /** The library as the caller named it, for messages. */
  sourcePath: string;
  /** How the private copy is loaded. */
  plan: LoadPlan;
  hooks: LanesHooks;
}

export class Lanes {
  readonly #parts: LanesParts;
  readonly #ring: RingProducer;
  /** By lane index; gone lanes leave their place to the next. */
  readonly #lanes: (Lane | undefined)[];
  /** Large responses that were posted and whose slots have not been collected yet. */
  readonly #posted = new Map<number, ArrayBuffer>();
  /** Lost lanes are replaced only while serving: before, they fail the load; after, they are not missed. */
  #phase: 'loading' | 'serving' | 'stopping' = 'loading';
  readonly #crashLoop: CrashLoop;
  #lastLoss: unknown = null;
  /** When the version was begun with, in seconds since the system was started. */
  readonly #sinceSeconds = uptime();
  readonly #kept: KeptLibrary[] = [];
  #refusal: Refusal | null = null;
  #retry: NodeJS.Timeout | null = null;

  constructor(parts: LanesParts) {
    this.#parts = parts;
    this.#ring = parts.standby.ring;
    this.#lanes = new Array(this.#ring.layout.lanes).fill(undefined);
    this.#crashLoop = new CrashLoop(parts.options.crashLoopAfter);
  }

  /**
   * Starts all lanes. Resolves with what the library says of itself when every one is ready; rejects as soon
   * as one is refused. The caller must `stop` in both cases.
   */
  async start(): Promise<HandlerInfo> {
    const { threads } = this.#parts.options;
    const ready: Promise<HandlerInfo>[] = [];
    // One in a turn of the event loop: starting a thread holds this one up for about two milliseconds.
    for (let index = 0; index < threads && this.#phase === 'loading'; index++) {
      ready.push(this.#startLane(index, null).ready);
      await setImmediate();
    }
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
    this.#ring.stop();
    // A process that is being started reads nothing before it is ready, which may be never.
    this.#kill(this.#present().filter(({ state }) => state === 'starting'));
    await Promise.all(this.#present().map((lane) => lane.gone));
  }

  /** Ends the threads. Every lane must have left. */
  async destroy(): Promise<void> {
    assert(this.#present().length === 0, 'threads are ended only when no lane is in native code');
    await this.#parts.standby.destroy();
  }

  /** For the end: kills every process there is, whatever it does, and starts none in its place. Threads go on. */
  killAll(): void {
    this.#phase = 'stopping';
    this.#kill(this.#present());
  }

  #kill(lanes: readonly Lane[]): void {
    for (const lane of lanes) {
      lane.killed = true;
      this.#killProcess(lane);
    }
  }

  /** Posts to every lane; they read it before any request that is submitted later. */
  announce(message: HostMessage): void {
    for (const lane of this.#present()) lane.port.postMessage(message);
    this.#ring.announceMail();
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

  /** Where `lane` has left responses that have not been collected yet. It is there until they have been. */
  outboxOf(lane: number): Outbox {
    const owner = this.#lanes[lane];
    assert(owner !== undefined, 'what a lane has completed is collected before it is forgotten');
    return owner.outbox;
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

  /** Process ids of the lanes' processes, in the order of the lanes. */
  processIds(): number[] {
    return this.#present()
      .map((lane) => this.#ring.processOf(lane.index))
      .filter((pid) => pid !== 0);
  }

  /** What is mapped for good because threads were in it when the last lane left. */
  get kept(): readonly KeptLibrary[] {
    return this.#kept;
  }

  get refusal(): Refusal | null {
    return this.#refusal;
  }

  // ---- As many as there should be ----------------------------------------------------------------

  /** The abandoned call in `slot` on this lane has outlived its grace. */
  callStuck(index: number, slot: number): void {
    const lane = this.#lanes[index];
    if (lane === undefined || (lane.state !== 'serving' && lane.state !== 'dismissed')) return;
    const { options, hooks } = this.#parts;
    const killed = options.isolation === 'process';
    if (killed) {
      // First it may take no other request, then it is looked whether it still has this one: so it is never another's call that is killed.
      this.#ring.dismiss(index);
      lane.state = 'dismissed';
      if (this.#ring.stateOf(slot) === STATE.RUNNING) {
        lane.state = 'killed';
        this.#kill([lane]);
      }
    } else {
      lane.state = 'stuck';
    }
    const started = this.#startMissing(lane);
    if (lane.state !== 'dismissed') {
      hooks.laneStuck(index, { replaced: killed || started, killed });
    }
    this.#updateRefusal();
  }

  /** An abandoned call on this lane has returned, whether it had been found stuck or not. */
  callReturned(index: number): void {
    const lane = this.#lanes[index];
    if (lane === undefined || lane.state !== 'stuck') return;
    this.#serves(lane);
  }

  /** A lane can take requests, for the first time or again. If there are enough without it, one leaves: rather a worn one. */
  #serves(lane: Lane): void {
    lane.state = 'serving';
    if (this.counts().serving > this.#parts.options.threads) {
      const worn = this.#wornLane();
      if (worn?.worn != null) {
        this.#parts.hooks.laneRecycled(worn.index, lane.index, worn.worn);
      }
      this.#dismiss(worn ?? lane);
    }
    this.#startMissing(null);
    this.#recycleNext();
    this.#updateRefusal();
  }

  #dismiss(lane: Lane): void {
    lane.state = 'dismissed';
    this.#ring.dismiss(lane.index);
  }

  /**
   * Starts lanes until there are enough that serve or will; returns whether it started any. Their number is limited: each stuck lane
   * counts. While lanes crash in a row, one at a time is tried.
   */
  #startMissing(replaces: Lane | null): boolean {
    if (this.#phase !== 'serving' || this.#retry !== null) return false;
    const { threads, maxStuckLanes } = this.#parts.options;
    let started = false;
    for (;;) {
      const { starting, serving } = this.counts();
      const index = this.#lanes.indexOf(undefined);
      const enough =
        starting + serving >= threads ||
        (this.#crashLoop.state !== 'closed' && (starting > 0 || started)) ||
        this.#crashLoop.state === 'half-open';
      const full = index === -1 || this.#present().length >= threads + maxStuckLanes;
      if (enough || full) return started;
      this.#startLane(index, replaces);
      started = true;
    }
  }

  /** Starts what is missing `delayMs` after a lane was lost. */
  #startMissingLater(delayMs: number): void {
    if (this.#phase !== 'serving' || this.#retry !== null) return;
    this.#retry = setTimeout(() => {
      this.#retry = null;
      this.#startMissing(null);
      this.#recycleNext();
      this.#updateRefusal();
    }, delayMs).unref();
  }

  /** A lane should be replaced, although nothing is wrong with it. */
  #wears(lane: Lane, reason: WearReason): void {
    lane.worn ??= reason;
    this.#recycleNext();
  }

  #wornLane(): Lane | undefined {
    return this.#present().find((lane) => lane.worn !== null && lane.state === 'serving');
  }

  /** Starts one lane more for a worn one, one at a time. If there is no room for one more, the worn one leaves first. */
  #recycleNext(): void {
    const worn = this.#wornLane();
    if (worn?.worn == null || this.#phase !== 'serving' || this.#retry !== null) return;
    if (this.#crashLoop.state !== 'closed' || this.counts().starting > 0) return;
    const index = this.#lanes.indexOf(undefined);
    if (index !== -1) this.#startLane(index, worn);
    else this.#dismiss(worn);
  }

  /** A handler has answered. */
  requestAnswered(): void {
    if (!this.#crashLoop.answered()) return;
    this.#parts.hooks.crashLoopEnded();
    this.#startMissing(null);
    this.#updateRefusal();
  }

  #updateRefusal(): void {
    const before = this.#refusal;
    const { starting, serving, stuck } = this.counts();
    const allStuck = starting + serving === 0 && stuck > 0 && this.#retry === null;
    const { state, crashes } = this.#crashLoop;
    if (state === 'open') {
      this.#refusal = { why: 'crash-loop', crashes, cause: this.#lastLoss };
    } else {
      this.#refusal = allStuck ? { why: 'stuck', stuckLanes: stuck } : null;
    }
    if (this.#refusal?.why !== before?.why) this.#parts.hooks.refusalChanged(this.#refusal);
  }

  // ---- One lane ----------------------------------------------------------------------------------

  #present(): Lane[] {
    return this.#lanes.filter((lane) => lane !== undefined);
  }

  #startLane(index: number, replaces: Lane | null): Lane {
    const { standby, regions, options, plan, identity } = this.#parts;
    const started = standby.take(index);
    const { port } = started;
    const { promise: ready, resolve: loaded, reject: refused } = deferred<HandlerInfo>();
    // Whoever started the lane awaits it; a lane that is refused later must not be an unhandled rejection.
    ready.catch(() => undefined);
    const lane: Lane = {
      index,
      port,
      outbox: new Outbox(started.outbox),
      state: 'starting',
      replaces,
      worn: null,
      killed: false,
      end: null,
      timer: null,
      ready,
      loaded,
      refused,
      gone: Promise.resolve(),
    };
    port.on('message', (message: LaneMessage) => this.#receive(lane, message));
    port.unref();
    const order: LaneOrder = {
      plan,
      sinceSeconds: this.#sinceSeconds,
      maxPayloadBytes: options.maxPayloadBytes,
      stackBytes: options.stackBytes,
      regions: regions.list(),
      mail: this.#ring.mail,
      recycleAfterRequests: options.recycleAfterRequests,
      process: this.#processTask(`${identity.endpoint}@${identity.version} lane ${index}`),
    };
    this.#lanes[index] = lane;
    standby.open(started, order);
    // Before, the load has a timeout of its own. Native code that hangs in a thread cannot be given up.
    if (this.#phase === 'serving' && order.process !== null) {
      lane.timer = setTimeout(() => this.#killProcess(lane), options.loadTimeoutMs).unref();
    }
    lane.gone = started.ended.then(
      () => this.#left(lane),
      (cause: unknown) => this.#died(lane, cause),
    );
    return lane;
  }

  #processTask(name: string): ProcessTask | null {
    const { options } = this.#parts;
    const { cancelFlags } = this.#parts.standby;
    if (cancelFlags === null) return null;
    const { maxRssBytes, loadTimeoutMs } = options;
    // Made here: the lane's own thread sees only what the option gives.
    const env = childEnv(options.env);
    const stopTimeoutMs = loadTimeoutMs * STOP_SHARE;
    const { descriptor, byteLength } = cancelFlags;
    return { name, env, maxRssBytes, stopTimeoutMs, cancelFlags: { descriptor, byteLength } };
  }

  #killProcess(lane: Lane): void {
    const pid = this.#ring.processOf(lane.index);
    if (pid === 0) return;
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      // It has just ended by itself.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  #receive(lane: Lane, message: LaneMessage): void {
    if (message === null) {
      this.#parts.hooks.doorbell();
      return;
    }
    switch (message.type) {
      case 'ready':
        this.#becameReady(lane, message.info);
        return;
      case 'refused':
        this.#refused(lane, message.failure);
        return;
      case 'response':
        this.#posted.set(message.slot, message.bytes);
        return;
      case 'worn':
        this.#wears(lane, message.reason);
        return;
      case 'kept':
        this.#kept.push(...message.libraries);
        return;
      case 'ended':
        lane.end = message.end;
    }
  }

  #becameReady(lane: Lane, info: HandlerInfo): void {
    const { recycleAfterMs } = this.#parts.options;
    this.#clearTimer(lane);
    if (recycleAfterMs !== Number.POSITIVE_INFINITY) {
      lane.timer = setTimeout(() => this.#wears(lane, 'age'), recycleAfterMs).unref();
    }
    lane.loaded(info);
    const { replaces } = lane;
    if (replaces !== null && (replaces.state === 'stuck' || replaces.killed)) {
      this.#parts.hooks.laneReplaced(replaces.index, lane.index);
    }
    this.#crashLoop.cameUp();
    this.#serves(lane);
  }

  #clearTimer(lane: Lane): void {
    if (lane.timer !== null) clearTimeout(lane.timer);
    lane.timer = null;
  }

  #refused(lane: Lane, failure: LoadFailure): void {
    const error = loadErrorFor(failure, this.#parts.sourcePath, this.#parts.identity);
    lane.refused(error);
    // Before, it fails the load; now it is a replacement that did not come to be.
    this.#lastLoss = error;
    if (this.#phase === 'serving') this.#reportExit(lane, NO_SLOT, error);
  }

  /** The lane has returned from its task: it was told to, or it was refused. */
  #left(lane: Lane): void {
    this.#readRest(lane);
    // What it has left in its outbox goes with it.
    this.#parts.hooks.collect();
    // It was told to stop, and its process has ended in another way.
    if (lane.end !== null && !lane.killed) this.#reportExit(lane, NO_SLOT, null);
    const crashed = lane.state === 'starting';
    this.#forget(lane);
    this.#lost(lane, crashed);
  }

  /** The lane's thread or process has ended, or its task has thrown: the lane's loop is no more. */
  async #died(lane: Lane, cause: unknown): Promise<void> {
    this.#readRest(lane);
    // Not 0 if nobody has seen it end: only its thread would have.
    const orphan = this.#ring.processOf(lane.index);
    // If the thread alone has died, the process does so in a moment, and nothing may be said to be gone before.
    this.#killProcess(lane);
    // What it had completed is answered as completed; only then is what is left of it cleared away.
    this.#parts.hooks.collect();
    const slot = this.#ring.bury(lane.index);
    if (slot !== NO_SLOT) this.#posted.delete(slot);
    this.#forget(lane);
    const { identity, sourcePath } = this.#parts;
    const said = describeEnd(cause, lane.end);
    const lost = lane.end === null ? cause : laneExited(identity, cause, lane.end);
    lane.refused(
      new LoadFailedError(
        `a ${lane.end === null ? 'worker thread' : 'process'} that was to load ${sourcePath} ended: ${said}`,
        sourcePath,
        { ...identity, cause: lost },
      ),
    );
    this.#reportExit(lane, slot, cause);
    this.#lastLoss = lost;
    this.#lost(lane, !lane.killed);
    if (orphan !== 0) await reapOrphan(orphan);
  }

  #reportExit(lane: Lane, slot: number, cause: unknown): void {
    const { index, end, killed } = lane;
    if (slot === NO_SLOT && killed) return;
    this.#parts.hooks.laneExited({ lane: index, slot, cause, end, expected: killed });
  }

  /** A lane is gone. If that leaves too few, another is started: at once, unless lanes are lost in a row. */
  #lost(lane: Lane, crashed: boolean): void {
    lane.state = 'gone';
    const { hooks } = this.#parts;
    const delayMs = crashed && this.#phase === 'serving' ? this.#crashLoop.lost() : 0;
    if (delayMs > 0) this.#startMissingLater(delayMs);
    else this.#startMissing(lane.killed ? lane : null);
    if (crashed && this.#crashLoop.state === 'open') {
      hooks.crashLoop(this.#crashLoop.crashes, delayMs, this.#lastLoss);
    }
    this.#recycleNext();
    this.#updateRefusal();
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
    this.#clearTimer(lane);
    lane.port.close();
    this.#lanes[lane.index] = undefined;
  }
}
