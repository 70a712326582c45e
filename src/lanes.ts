/**
 * The lanes of one version: threads, and processes, that load the library and serve its requests.
 *
 * What is to happen is decided by the machine in lane-machine.ts. Here, what happened becomes its
 * events, and its effects are performed, in order. An event that is raised by an effect is heard when
 * all effects of the step have been performed, so that nothing ever runs in the middle of a
 * transition.
 */

import { strict as assert } from 'node:assert';
import { uptime } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { childEnv } from './child-env.js';
import { monotonicMs } from './clock.js';
import { deferred } from './deferred.js';
import { cutLifeline, endLaneProcess } from './end-lane-process.js';
import { type LoadError, LoadFailedError, LoadTimeoutError } from './errors.js';
import {
  countLanes,
  type Effect,
  type Fleet,
  type FleetEvent,
  type FleetReport,
  type FleetTimer,
  isUntroubled,
  newFleet,
  step,
} from './lane-machine.js';
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
import { messageOf } from './library/system-errors.js';
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

/** What a lane is made of. What it is doing, the fleet tells. */
/** No more than this is on its way back to a lane that may never post a response again. */
const MAX_RECYCLED_BYTES = 64 * 1024 * 1024;
/** What was sent back and is not used for so long is given back to the system. */
const RECYCLED_IDLE_MS = 2000;

interface Lane {
  readonly index: number;
  readonly port: MessagePort;
  readonly outbox: Outbox;
  /** Bytes that were sent back to it since it last posted a response, before which it reads them. */
  recycledBytes: number;
  /** Why its task is over, if its thread or process died. */
  cause: unknown;
  /** How its process ended, once it has. */
  end: ProcessEnd | null;
  /** Settles once the lane has loaded the library; rejects with a LoadError. */
  readonly ready: Promise<HandlerInfo>;
  readonly loaded: (info: HandlerInfo) => void;
  readonly refused: (error: LoadError) => void;
  /** Resolves once nothing is left of the lane. */
  readonly gone: Promise<void>;
  readonly forgotten: () => void;
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
  #fleet: Fleet;
  readonly #events: FleetEvent[] = [];
  #isStepping = false;
  readonly #timers = new Map<string, NodeJS.Timeout>();
  #lastLoss: unknown = null;
  /** When the version was begun with, in seconds since the system was started. */
  readonly #sinceSeconds = uptime();
  readonly #kept: KeptLibrary[] = [];
  #toldOfKill = false;
  #recycledMs = 0;
  #trimTimer: NodeJS.Timeout | null = null;

  constructor(parts: LanesParts) {
    const { options, standby } = parts;
    this.#parts = parts;
    this.#ring = standby.ring;
    const places = this.#ring.layout.lanes;
    this.#lanes = new Array(places).fill(undefined);
    const { threads, maxStuckLanes, crashLoopAfter, loadTimeoutMs, recycleAfterMs } = options;
    const killable = options.isolation === 'process';
    const times = { loadTimeoutMs, recycleAfterMs };
    this.#fleet = newFleet({ threads, maxStuckLanes, places, crashLoopAfter, killable, ...times });
  }

  /**
   * Starts all lanes. Resolves with what the library says of itself when every one is ready; rejects as soon
   * as one is refused. The caller must `stop` in both cases.
   */
  async start(): Promise<HandlerInfo> {
    const { threads } = this.#parts.options;
    const ready: Promise<HandlerInfo>[] = [];
    // One in a turn of the event loop: starting a thread holds this one up for about two milliseconds.
    for (let index = 0; index < threads && this.#fleet.phase === 'loading'; index++) {
      this.#hear({ type: 'open', lane: index });
      const lane = this.#lanes[index];
      assert(lane !== undefined, 'a lane that opens is there');
      ready.push(lane.ready);
      await setImmediate();
    }
    const [info] = await Promise.all(ready);
    assert(info !== undefined, 'there is at least one lane');
    // One may have been ready and have died before the last one was: then it is missing now.
    this.#hear({ type: 'loaded' });
    return info;
  }

  /** Asks all lanes to leave and resolves once they have. Takes as long as a native call takes. */
  async stop(): Promise<void> {
    this.#ring.stop();
    // A process that is being started reads nothing before it is ready, which may be never.
    this.#hear({ type: 'stop' });
    // What was being done when this was called is done by now, and may have started one more.
    await null;
    await Promise.all(this.#present().map((lane) => lane.gone));
  }

  /** Ends the threads. Every lane must have left. */
  async destroy(): Promise<void> {
    assert(this.#present().length === 0, 'threads are ended only when no lane is in native code');
    if (this.#trimTimer !== null) clearTimeout(this.#trimTimer);
    await this.#parts.standby.destroy();
  }

  /** For the end: kills every process there is, whatever it does, and starts none in its place. Threads go on. */
  killAll(): void {
    this.#hear({ type: 'killAll' });
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

  /** Sends the memory of a response back to the lane that has posted it. The lane reads that before it posts the next one. */
  recycle(index: number, memory: ArrayBuffer): void {
    const lane = this.#lanes[index];
    if (lane === undefined || lane.recycledBytes + memory.byteLength > MAX_RECYCLED_BYTES) return;
    lane.recycledBytes += memory.byteLength;
    const message: HostMessage = { type: 'recycled', memory };
    lane.port.postMessage(message, [memory]);
    this.#recycledMs = monotonicMs();
    this.#trimTimer ??= setTimeout(this.#trim, RECYCLED_IDLE_MS).unref();
  }

  /** Once nothing has been recycled for a while, the lanes need not keep it. */
  readonly #trim = (): void => {
    const leftMs = this.#recycledMs + RECYCLED_IDLE_MS - monotonicMs();
    this.#trimTimer = leftMs > 0 ? setTimeout(this.#trim, Math.ceil(leftMs)).unref() : null;
    if (leftMs <= 0) this.announce({ type: 'trim' });
  };

  /** Where `lane` has left responses that have not been collected yet. It is there until they have been. */
  outboxOf(lane: number): Outbox {
    const owner = this.#lanes[lane];
    assert(owner !== undefined, 'what a lane has completed is collected before it is forgotten');
    return owner.outbox;
  }

  counts(): LaneCounts {
    return {
      starting: countLanes(this.#fleet, 'starting'),
      serving: countLanes(this.#fleet, 'serving'),
      stuck: countLanes(this.#fleet, 'stuck'),
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
    const { refusal } = this.#fleet;
    return refusal?.why === 'crash-loop' ? { ...refusal, cause: this.#lastLoss } : refusal;
  }

  /** The abandoned call in `slot` on this lane has outlived its grace. */
  callStuck(lane: number, slot: number): void {
    this.#hear({ type: 'callStuck', lane, slot });
  }

  /** An abandoned call on this lane has returned, whether it had been found stuck or not. */
  callReturned(lane: number): void {
    this.#hear({ type: 'callReturned', lane });
  }

  /** A handler has answered. */
  requestAnswered(): void {
    // With every request, so that it must cost nothing as long as all is well.
    if (this.#events.length > 0 || !isUntroubled(this.#fleet)) this.#hear({ type: 'answered' });
  }

  // ---- The machine -------------------------------------------------------------------------------

  #hear(event: FleetEvent): void {
    this.#events.push(event);
    if (this.#isStepping) return;
    this.#isStepping = true;
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
        const { fleet, effects } = step(this.#fleet, next);
        this.#fleet = fleet;
        for (const effect of effects) this.#perform(effect);
      }
    } finally {
      this.#isStepping = false;
    }
  }

  #perform(effect: Effect): void {
    switch (effect.do) {
      case 'start':
        this.#startLane(effect.lane);
        return;
      case 'dismiss':
        this.#ring.dismiss(effect.lane);
        return;
      case 'checkCall': {
        const { lane, slot } = effect;
        const running =
          this.#ring.stateOf(slot) === STATE.RUNNING && this.#ring.laneOf(slot) === lane;
        this.#hear({ type: 'callChecked', lane, running });
        return;
      }
      case 'kill':
        if (!this.#killProcess(effect.lane)) this.#hear({ type: 'killFailed', lane: effect.lane });
        return;
      case 'reap':
        this.#reap(effect.lane, effect.by);
        return;
      case 'setTimer':
        this.#setTimer(effect.timer, effect.delayMs);
        return;
      case 'clearTimer':
        this.#clearTimer(effect.timer);
        return;
      case 'refuse':
      case 'accept':
        this.#parts.hooks.refusalChanged(this.refusal);
        return;
      case 'report':
        this.#report(effect.report);
    }
  }

  #setTimer(timer: FleetTimer, delayMs: number): void {
    this.#clearTimer(timer);
    const key = timerKey(timer);
    const fire = () => {
      this.#timers.delete(key);
      if (timer.purpose === 'start') this.#lastLoss = this.#startTimedOut();
      this.#hear({ type: 'due', timer });
    };
    this.#timers.set(key, setTimeout(fire, delayMs).unref());
  }

  #startTimedOut(): LoadTimeoutError {
    const { options, sourcePath, identity } = this.#parts;
    const message = `a lane that starts anew had not loaded ${sourcePath} after ${options.loadTimeoutMs} ms`;
    return new LoadTimeoutError(options.loadTimeoutMs, message, sourcePath, identity);
  }

  #clearTimer(timer: FleetTimer): void {
    const key = timerKey(timer);
    const running = this.#timers.get(key);
    if (running === undefined) return;
    clearTimeout(running);
    this.#timers.delete(key);
  }

  #report(report: FleetReport): void {
    const { hooks } = this.#parts;
    switch (report.what) {
      case 'laneStuck':
        hooks.laneStuck(report.lane, { replaced: report.replaced, killed: report.killed });
        return;
      case 'laneReplaced':
        hooks.laneReplaced(report.lane, report.by);
        return;
      case 'laneRecycled':
        hooks.laneRecycled(report.lane, report.by, report.reason);
        return;
      case 'crashLoop':
        hooks.crashLoop(report.crashes, report.retryMs, this.#lastLoss);
        return;
      case 'crashLoopEnded':
        hooks.crashLoopEnded();
    }
  }

  // ---- One lane ----------------------------------------------------------------------------------

  #present(): Lane[] {
    return this.#lanes.filter((lane) => lane !== undefined);
  }

  #startLane(index: number): void {
    const { standby, regions, options, plan, identity } = this.#parts;
    const started = standby.take(index);
    const { port } = started;
    const { promise: ready, resolve: loaded, reject: refused } = deferred<HandlerInfo>();
    const { promise: gone, resolve: forgotten } = deferred<void>();
    // Whoever started the lane awaits it; a lane that is refused later must not be an unhandled rejection.
    ready.catch(() => undefined);
    const outbox = new Outbox(started.outbox);
    const promises = { ready, loaded, refused, gone, forgotten };
    const state = { recycledBytes: 0, cause: null, end: null };
    const lane: Lane = { index, port, outbox, ...state, ...promises };
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
    const ended = (by: 'left' | 'died', cause: unknown) => {
      lane.cause = cause;
      // While the lane still is what it was when it said so.
      this.#readRest(lane);
      this.#hear({ type: 'ended', lane: index, by });
    };
    started.ended.then(
      () => ended('left', null),
      (cause: unknown) => ended('died', cause),
    );
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

  /** Returns whether the lane's process, if it has one, has ended or will. */
  #killProcess(index: number): boolean {
    const pid = this.#ring.processOf(index);
    try {
      endLaneProcess(this.#ring, index);
      return true;
    } catch (error) {
      this.#tellOfKill(pid, error);
      return false;
    }
  }

  #tellOfKill(pid: number, error: unknown): void {
    if (this.#toldOfKill) return;
    this.#toldOfKill = true;
    const { endpoint, version } = this.#parts.identity;
    process.emitWarning(
      `process ${pid} of ${endpoint}@${version} cannot be killed (${messageOf(error)}); its lane counts as stuck until it ends`,
    );
  }

  #receive(lane: Lane, message: LaneMessage): void {
    if (message === null) {
      this.#parts.hooks.doorbell();
      return;
    }
    switch (message.type) {
      case 'ready':
        lane.loaded(message.info);
        this.#hear({ type: 'ready', lane: lane.index });
        return;
      case 'refused':
        this.#refused(lane, message.failure);
        return;
      case 'response':
        this.#posted.set(message.slot, message.bytes);
        lane.recycledBytes = 0;
        return;
      case 'trimmed':
        return;
      case 'worn':
        this.#hear({ type: 'worn', lane: lane.index, reason: message.reason });
        return;
      case 'kept':
        this.#kept.push(...message.libraries);
        return;
      case 'ended':
        lane.end = message.end;
    }
  }

  #refused(lane: Lane, failure: LoadFailure): void {
    const error = loadErrorFor(failure, this.#parts.sourcePath, this.#parts.identity);
    lane.refused(error);
    // Before, it fails the load; now it is a replacement that did not come to be.
    this.#lastLoss = error;
    if (this.#fleet.phase === 'serving') {
      this.#reportExit(lane, { slot: NO_SLOT, cause: error, expected: false });
    }
  }

  /** What it had completed is answered as completed; only then is what is left of it cleared away. */
  #reap(index: number, by: 'left' | 'died'): void {
    const lane = this.#lanes[index];
    const dead = this.#fleet.lanes[index];
    assert(lane !== undefined && dead?.state === 'dead', 'a lane is reaped once it is dead');
    const inCall = by === 'left' ? this.#clearLeft(lane, dead) : this.#clearDied(lane, dead);
    lane.port.close();
    this.#lanes[index] = undefined;
    this.#hear({ type: 'reaped', lane: index, inCall });
  }

  /** The lane has returned from its task: it was told to, or it was refused. */
  #clearLeft(lane: Lane, { expected }: { expected: boolean }): boolean {
    // What it has left in its outbox goes with it.
    this.#parts.hooks.collect();
    // It was told to stop, and its process has ended in another way.
    if (lane.end !== null) this.#reportExit(lane, { slot: NO_SLOT, cause: null, expected });
    lane.forgotten();
    return false;
  }

  /** The lane's thread or process has ended, or its task has thrown: the lane's loop is no more. */
  #clearDied(lane: Lane, { expected }: { expected: boolean }): boolean {
    const { index, cause, end } = lane;
    // Not 0 if nobody has seen it end: only its thread would have.
    const orphan = this.#ring.processOf(index);
    // If the thread alone has died, the process does so in a moment, and nothing may be said to be gone before.
    this.#killProcess(index);
    cutLifeline(this.#ring, index);
    this.#parts.hooks.collect();
    const slot = this.#ring.bury(index);
    if (slot !== NO_SLOT) this.#posted.delete(slot);
    // What it had completed and could not say any more was found by that.
    this.#parts.hooks.collect();
    const { identity, sourcePath } = this.#parts;
    const lost = end === null ? cause : laneExited(identity, cause, end);
    lane.refused(
      new LoadFailedError(
        `a ${end === null ? 'worker thread' : 'process'} that was to load ${sourcePath} ended: ${describeEnd(cause, end)}`,
        sourcePath,
        { ...identity, cause: lost },
      ),
    );
    this.#reportExit(lane, { slot, cause, expected });
    this.#lastLoss = lost;
    if (orphan === 0) lane.forgotten();
    else void reapOrphan(orphan).then(lane.forgotten);
    return slot !== NO_SLOT;
  }

  #reportExit(lane: Lane, exit: { slot: number; cause: unknown; expected: boolean }): void {
    if (exit.slot === NO_SLOT && exit.expected) return;
    this.#parts.hooks.laneExited({ lane: lane.index, end: lane.end, ...exit });
  }

  /** Reads what a lane has posted and this thread's event loop has not delivered yet. */
  #readRest(lane: Lane): void {
    for (;;) {
      const received = receiveMessageOnPort(lane.port);
      if (received === undefined) return;
      this.#receive(lane, received.message as LaneMessage);
    }
  }
}

function timerKey(timer: FleetTimer): string {
  return 'lane' in timer ? `${timer.purpose} ${timer.lane}` : timer.purpose;
}
