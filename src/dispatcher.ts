/**
 * The requests of one version, from the call to the answer.
 *
 * Every accepted request is in exactly one of three places, and is answered exactly once:
 *
 *   waiting   in a bounded queue on the main thread, because every slot is taken
 *   in a slot of the ring: queued for a lane, running, or done
 *   answered  its promise has settled
 *
 * An answered request may still be in its slot: its caller gave up (timeout, abort, drop) while the native
 * call was running. It is then *abandoned*; it goes on counting as in flight and its slot and memory stay its
 * own until the lane has completed it.
 */

import { strict as assert } from 'node:assert';
import { setMaxListeners } from 'node:events';
import { Alarm } from './alarm.js';
import { BufferPool } from './buffer-pool.js';
import { monotonicMs } from './clock.js';
import { DeadlineWheel, OUTSIDE_WHEEL, type WheelLinks } from './deadline-wheel.js';
import {
  type CrashLoopError,
  concerning,
  type DropReason,
  type EndpointStuckError,
  type LaneExitedError,
  type QueueFullError,
  type TimeoutPhase,
} from './errors.js';
import type { KeepAlive } from './keep-alive.js';
import { LatencyRecorder, type LatencyStats } from './latency.js';
import { messageOf } from './library/system-errors.js';
import { checkSignal, checkTimeout, type ResolvedEndpointOptions } from './options.js';
import { PendingQueue, type QueueLinks } from './pending-queue.js';
import type { RegionTable } from './regions.js';
import {
  borrowedBytes,
  detachRequest,
  type EncodedRequest,
  encodeRequest,
  ownBytes,
  type RequestContext,
  type RequestPayload,
  requireUnchanged,
  writeRequest,
} from './request.js';
import type { VersionIdentity } from './request-errors.js';
import * as requestErrors from './request-errors.js';
import { copyOut, HandlerResponse, type Recycle } from './response.js';
import {
  responseRoomAt,
  SLOT,
  SLOT_DOUBLE,
  STATE,
  STATUS,
  slotAt,
  slotDoubleAt,
} from './ring/layout.js';
import type { Outbox } from './ring/outbox.js';
import { NO_SLOT, type RingProducer } from './ring/producer.js';
import { WatchPolicy } from './watch-policy.js';

/** What a request is refused with for want of room. */
export type ShedError = QueueFullError | EndpointStuckError | CrashLoopError;

/** What the dispatcher tells the version it works for. */
export interface DispatcherHooks {
  /** A caller was answered with a timeout. */
  timedOut(phase: TimeoutPhase, timeoutMs: number): void;
  /** A caller was answered while its native call goes on. */
  abandoned(lane: number): void;
  /** A request was refused for want of room. */
  shed(error: ShedError): void;
  /** An abandoned call has outlived its grace. */
  callStuck(lane: number, slot: number): void;
  /** An abandoned call has returned. */
  callReturned(lane: number): void;
  /** A handler has answered, in whatever way, and whether or not somebody still waited. */
  handlerAnswered(): void;
  /** Takes the large response that a lane has posted for a slot. */
  takePosted(lane: number, slot: number): ArrayBuffer;
  /** The caller has done with the memory of a response that this lane has posted. */
  recycle(lane: number, memory: ArrayBuffer): void;
  /** Where a lane has left the response of a slot that is done. */
  outboxOf(lane: number): Outbox;
  /** Something has left; there may be nothing in flight any more. */
  requestLeft(): void;
}

/** Requests by how they ended, since the version was loaded. Each accepted one ends in exactly one. */
export interface OutcomeTotals {
  /** Answered with a response. */
  succeeded: number;
  /** `handler_entry` returned an error code. */
  failed: number;
  /** The response could not be used: too large, or not readable. */
  badResponse: number;
  /** The deadline passed before a lane began. */
  timedOutQueued: number;
  /** The deadline passed during the native call. */
  timedOutRunning: number;
  /** The caller's signal was aborted. */
  aborted: number;
  /** Taken away by a swap, an unload, a drain timeout, `close`, or an endpoint that is stuck or crashes. */
  dropped: number;
  /** The lane's thread or process ended during the call. */
  laneExited: number;
  /** Refused at the door for want of room. These were not accepted. */
  shed: number;
}

/** What the dispatcher adds to a version's statistics. */
export interface DispatcherStats {
  /** Accepted and not begun: on the main thread and in the ring. */
  queued: number;
  /** Native calls going on, abandoned ones included. */
  running: number;
  /** Native calls going on that nobody waits for. */
  abandoned: number;
  totals: OutcomeTotals;
  latency: {
    /** From the call until a lane began. */
    queue: LatencyStats;
    /** The native call. */
    run: LatencyStats;
  };
}

/**
 * How long the answer of a lone request is looked for before the doorbell is waited for: long enough for a lane that has to be
 * woken, which on virtual machines takes 50 to 100 microseconds. A shorter watch is in vain there, and the lane, whose
 * own wait then includes this thread's way out of its sleep, never watches either.
 */
const WATCH_MS = 0.2;
/** A native call that takes no longer is worth a watch. */
const SHORT_CALL_MS = 0.05;
/** Memory that is kept for responses that come by the outbox, once callers give it back. */
const POOL_BYTES = 8 * 1024 * 1024;

/** A response that did not fit its slot, in memory of its own. */
interface LargeResponse {
  bytes: Uint8Array<ArrayBuffer>;
  recycle: Recycle;
}

// Functions of their own: a response that is kept must not keep its dispatcher, which has megabytes.

const recycleInto =
  (pool: BufferPool): Recycle =>
  (memory) =>
    pool.put(memory);

const recycleTo =
  (hooks: DispatcherHooks, lane: number): Recycle =>
  (memory) =>
    hooks.recycle(lane, memory);

/** One request, until its slot is free again. */
class Pending implements QueueLinks<Pending>, WheelLinks<Pending> {
  previous: Pending | null = null;
  next: Pending | null = null;
  wheelPrevious: Pending | null = OUTSIDE_WHEEL.wheelPrevious;
  wheelNext: Pending | null = OUTSIDE_WHEEL.wheelNext;
  wheelSlot = OUTSIDE_WHEEL.wheelSlot;
  wheelTick = OUTSIDE_WHEEL.wheelTick;
  /** Whether it has a place in the ledger. Until then, nothing but its signal knows it. */
  admitted = false;
  answered = false;
  slot = NO_SLOT;
  region = 0;
  /** The signal that is listened to. */
  signal: AbortSignal | null = null;
  onAbort: (() => void) | null = null;

  constructor(
    readonly resolve: (response: HandlerResponse) => void,
    readonly reject: (reason: unknown) => void,
    public request: EncodedRequest,
    readonly submittedMs: number,
    readonly timeoutMs: number,
  ) {}

  get deadlineMs(): number {
    return this.submittedMs + this.timeoutMs;
  }
}

export interface DispatcherParts {
  identity: VersionIdentity;
  options: ResolvedEndpointOptions;
  ring: RingProducer;
  regions: RegionTable;
  keepAlive: KeepAlive;
  hooks: DispatcherHooks;
}

export class Dispatcher {
  readonly #identity: VersionIdentity;
  readonly #options: ResolvedEndpointOptions;
  readonly #ring: RingProducer;
  readonly #room: Buffer;
  readonly #regions: RegionTable;
  readonly #keepAlive: KeepAlive;
  readonly #hooks: DispatcherHooks;
  readonly #waiting = new PendingQueue<Pending>();
  /** Memory that the waiting requests hold. */
  #waitingBytes = 0;
  readonly #bySlot: (Pending | undefined)[];
  /** Deadlines of those who wait for an answer, and ends of grace of those who have one. */
  readonly #deadlines = new DeadlineWheel<Pending>(monotonicMs());
  readonly #alarm = new Alarm((nowMs) => this.#expire(nowMs));
  readonly #queueLatency = new LatencyRecorder();
  readonly #runLatency = new LatencyRecorder();
  #unanswered = 0;
  #abandoned = 0;
  #watching = false;
  /** Whether the doorbell rang and a `collect` is to come in this turn of the event loop. */
  #collecting = false;
  /** Whether a native call has lately been short enough for a watch, and no watch has been in vain since. */
  #watchPays = false;
  readonly #watchPolicy = new WatchPolicy();
  readonly #pool = new BufferPool(POOL_BYTES);
  readonly #recycle = recycleInto(this.#pool);
  /** Makes the error that every request is refused with; null while they are accepted. */
  #refusal: (() => ShedError) | null = null;
  readonly #totals: OutcomeTotals = {
    succeeded: 0,
    failed: 0,
    badResponse: 0,
    timedOutQueued: 0,
    timedOutRunning: 0,
    aborted: 0,
    dropped: 0,
    laneExited: 0,
    shed: 0,
  };

  constructor(parts: DispatcherParts) {
    this.#identity = parts.identity;
    this.#options = parts.options;
    this.#ring = parts.ring;
    this.#room = Buffer.from(parts.ring.memory, 0, parts.ring.layout.totalBytes);
    this.#regions = parts.regions;
    this.#keepAlive = parts.keepAlive;
    this.#hooks = parts.hooks;
    this.#bySlot = new Array(parts.ring.layout.slots).fill(undefined);
  }

  // ---- In --------------------------------------------------------------------------------------

  /** Accepts a request, or rejects. Everything up to the place in the queue happens before it returns. */
  execute(
    context: RequestContext | undefined,
    request: RequestPayload,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<HandlerResponse> {
    return new Promise((resolve, reject) => {
      let encoded: EncodedRequest;
      // Whatever throws in here rejects. So all that can, and all code of the caller's (getters, toJSON, signals
      // of other classes), comes before anything is taken.
      try {
        checkTimeout(timeoutMs);
        checkSignal(signal);
        encoded = encodeRequest(context, request, this.#options.maxPayloadBytes);
      } catch (error) {
        reject(concerning(error, this.#identity));
        return;
      }
      const submittedMs = monotonicMs();
      const pending = new Pending(resolve, reject, encoded, submittedMs, timeoutMs);
      if (signal === undefined) this.#admit(pending);
      else if (signal.aborted) reject(signal.reason);
      else this.#admitFollowing(pending, signal);
    });
  }

  /** Listens to the signal first: what may throw, or run this dispatcher from within. */
  #admitFollowing(pending: Pending, signal: AbortSignal): void {
    this.#follow(pending, signal);
    try {
      // It may have fired while it was being listened to, without a listener that it knew of.
      if (signal.aborted) throw signal.reason;
      requireUnchanged(pending.request);
      this.#admit(pending);
    } catch (error) {
      this.#unfollow(pending);
      throw error;
    }
  }

  /** Takes the request in, or throws; from the place in the ledger on nothing can fail. */
  #admit(pending: Pending): void {
    if (this.#refusal !== null) throw this.#shed(this.#refusal());
    let waits = this.#mustWait(pending);
    // A caller who sends many in one turn of the event loop must not be refused while lanes have long gone on.
    if (waits && this.#ring.doorbellRang) {
      this.#ring.collectEarly(this.#settle);
      this.#refill();
      waits = this.#mustWait(pending);
    }
    if (waits) {
      this.#requireRoomToWait(pending.request);
      pending.request = this.#detached(pending.request);
    }
    if (!this.#ring.acquire()) throw requestErrors.notServing(this.#identity);
    pending.admitted = true;
    this.#unanswered += 1;
    this.#keepAlive.hold();
    if (waits) {
      this.#waiting.push(pending);
      this.#waitingBytes += ownBytes(pending.request);
      if (this.#waiting.length === 1 && this.#ring.hasFreeSlot)
        this.#regions.awaitRoom(this.#retry);
    } else this.#submit(pending);
    // Nobody need be told of a request that had no memory.
    if (pending.answered) return;
    if (pending.deadlineMs !== Number.POSITIVE_INFINITY) {
      this.#deadlines.add(pending, pending.deadlineMs);
      this.#alarm.set(pending.deadlineMs);
    }
    // One that waits for memory has no slot to look at.
    const isAlone = pending.slot !== NO_SLOT && this.#ring.taken === 1;
    if (this.#watchPays && !this.#watching && isAlone) this.#watch(pending);
  }

  /** One request may always wait, however large it is: `maxPayloadBytes` limits it. */
  #requireRoomToWait(request: EncodedRequest): void {
    const { maxQueue, maxQueueBytes } = this.#options;
    const others = this.#waitingBytes;
    const own = ownBytes(request);
    const limit =
      this.#waiting.length >= maxQueue
        ? 'maxQueue'
        : others > 0 && own > 0 && others + own > maxQueueBytes
          ? 'maxQueueBytes'
          : null;
    if (limit === null) return;
    throw this.#shed(requestErrors.queueFull(this.#identity, this.#options, limit));
  }

  #detached(request: EncodedRequest): EncodedRequest {
    try {
      return detachRequest(request);
    } catch (error) {
      throw this.#allocationError(error);
    }
  }

  /** V8 says with a RangeError that there is no memory. Anything else is a fault of ours, and said as it is. */
  #allocationError(error: unknown): unknown {
    return error instanceof RangeError ? requestErrors.outOfMemory(this.#identity, error) : error;
  }

  /** There is no slot for it, no memory, or somebody else's turn comes first. */
  #mustWait({ request }: Pending): boolean {
    return (
      this.#waiting.length > 0 ||
      !this.#ring.hasFreeSlot ||
      !this.#regions.hasRoomFor(borrowedBytes(request))
    );
  }

  #submit(pending: Pending): void {
    const ring = this.#ring;
    const slot = ring.takeSlot();
    if (slot === NO_SLOT) assert.fail('a slot was free');
    try {
      pending.region = writeRequest(ring, this.#room, this.#regions, slot, pending.request);
    } catch (error) {
      ring.freeSlot(slot);
      ring.release();
      this.#totals.dropped += 1;
      this.#reject(pending, this.#allocationError(error));
      return;
    }
    pending.slot = slot;
    this.#bySlot[slot] = pending;
    ring.submit(slot, pending.deadlineMs);
  }

  /** Moves waiting requests into free slots, in their order, as far as there is memory for them. */
  #refill(): void {
    for (let next = this.#waiting.first; next !== null; next = this.#waiting.first) {
      if (!this.#ring.hasFreeSlot) return;
      if (!this.#regions.hasRoomFor(borrowedBytes(next.request))) {
        // What is given back may be another version's.
        this.#regions.awaitRoom(this.#retry);
        return;
      }
      this.#waiting.shift();
      this.#waitingBytes -= ownBytes(next.request);
      this.#submit(next);
    }
  }

  readonly #retry = (): void => {
    this.#refill();
    this.#hooks.requestLeft();
  };

  #follow(pending: Pending, signal: AbortSignal): void {
    // One signal for all requests of a server is ordinary use, and no leak: the listener goes with the request.
    // Signals of other classes have no such limit.
    if (signal instanceof EventTarget) setMaxListeners(0, signal);
    pending.onAbort = () => this.#abort(pending, signal);
    signal.addEventListener('abort', pending.onAbort, { once: true });
    pending.signal = signal;
  }

  #unfollow(pending: Pending): void {
    const { signal, onAbort } = pending;
    if (signal === null || onAbort === null) return;
    pending.onAbort = null;
    try {
      signal.removeEventListener('abort', onAbort);
    } catch (error) {
      // The request has its answer. A listener too many does nothing any more.
      process.emitWarning(`the signal of a request keeps its listener: ${messageOf(error)}`);
    }
  }

  /**
   * Looks for the answer of a lone request once each turn of the event loop, for a moment. A doorbell message costs both
   * threads about 5 microseconds, which is what a short request alone mostly consists of. With more outstanding, one
   * message serves many and is the better way.
   */
  #watch(pending: Pending): void {
    if (!this.#watchPolicy.allows(pending.submittedMs)) return;
    this.#watching = true;
    this.#ring.hush();
    const look = () => {
      const nowMs = monotonicMs();
      const late = nowMs - pending.submittedMs > WATCH_MS;
      if (!late && !pending.answered && !this.#ring.isDone(pending.slot)) {
        setImmediate(look);
        return;
      }
      if (late) {
        this.#watchPays = false;
        this.#watchPolicy.failed(nowMs);
      } else this.#watchPolicy.succeeded();
      this.#watching = false;
      this.collect(); // Which lets the doorbell ring again.
    };
    setImmediate(look);
  }

  // ---- Out: the lane has completed it ----------------------------------------------------------

  /**
   * Collects in this turn of the event loop. Not on the spot: Node reads up to 1,000 messages of a port in a row, and a lane that is
   * quick rings again before the first has been dealt with, so timers and sockets would wait for 0.2 s. Until then it has
   * nothing to ring for.
   */
  doorbellRang(): void {
    if (this.#collecting) return;
    this.#collecting = true;
    setImmediate(this.#collectNow);
  }

  readonly #collectNow = (): void => {
    this.#collecting = false;
    this.collect();
  };

  /** Answers everything that the lanes have completed. */
  collect(): void {
    this.#ring.collect(this.#settle);
    this.#refill();
    this.#hooks.requestLeft();
  }

  readonly #settle = (slot: number): void => {
    const pending = this.#bySlot[slot];
    if (pending === undefined) assert.fail('a completed slot has a request');
    const { words } = this.#ring;
    const status = words[slotAt(this.#ring.layout, slot) + SLOT.STATUS];
    const large = this.#takeLarge(pending, slot, status);
    if (!pending.answered) this.#answerFromSlot(pending, slot, status, large);
    else if (status !== STATUS.WITHDRAWN) this.#returned(pending, status !== STATUS.EXPIRED);
    this.#vacate(pending);
  };

  /** Takes a response that is not in its slot, also if nobody waits for it: it must not be found by the slot's next request. */
  #takeLarge(pending: Pending, slot: number, status: number | undefined): LargeResponse | null {
    if (status !== STATUS.OK_POSTED && status !== STATUS.OK_IN_OUTBOX) return null;
    const { words, doubles, layout } = this.#ring;
    const lane = this.#ring.laneOf(slot);
    const length = doubles[slotDoubleAt(layout, slot) + SLOT_DOUBLE.RESPONSE_LENGTH] ?? 0;
    if (status === STATUS.OK_POSTED) {
      const bytes = new Uint8Array(this.#hooks.takePosted(lane, slot), 0, length);
      return { bytes, recycle: recycleTo(this.#hooks, lane) };
    }
    const outbox = this.#hooks.outboxOf(lane);
    const place = words[slotAt(layout, slot) + SLOT.OUTBOX_PLACE] ?? 0;
    const bytes = pending.answered ? null : outbox.read(place, length, this.#pool.take(length));
    outbox.free(place);
    return bytes === null ? null : { bytes, recycle: this.#recycle };
  }

  /** A call that was abandoned has come back. */
  #returned(pending: Pending, hasRun: boolean): void {
    this.#abandoned -= 1;
    if (hasRun) this.#hooks.handlerAnswered();
    this.#hooks.callReturned(this.#ring.laneOf(pending.slot));
  }

  #vacate(pending: Pending): void {
    this.#giveBackRegion(pending);
    this.#deadlines.remove(pending);
    this.#bySlot[pending.slot] = undefined;
    this.#ring.freeSlot(pending.slot);
  }

  #answerFromSlot(
    pending: Pending,
    slot: number,
    status: number | undefined,
    large: LargeResponse | null,
  ): void {
    const { words, doubles, layout } = this.#ring;
    const timesAt = slotDoubleAt(layout, slot);
    const startedMs = doubles[timesAt + SLOT_DOUBLE.STARTED_MS] ?? 0;
    const finishedMs = doubles[timesAt + SLOT_DOUBLE.FINISHED_MS] ?? 0;
    const length = doubles[timesAt + SLOT_DOUBLE.RESPONSE_LENGTH] ?? 0;
    const roomAt = responseRoomAt(layout, slot);
    // The clocks of two threads agree to about a microsecond.
    const queuedMs = Math.max(0, startedMs - pending.submittedMs);
    const ranMs = finishedMs - startedMs;
    if (status === STATUS.EXPIRED) {
      this.#timedOut(pending, 'queued');
      return;
    }
    this.#hooks.handlerAnswered();
    this.#watchPays ||= ranMs <= SHORT_CALL_MS;
    this.#queueLatency.record(queuedMs, finishedMs);
    this.#runLatency.record(ranMs, finishedMs);
    switch (status) {
      case STATUS.OK:
      case STATUS.OK_POSTED:
      case STATUS.OK_IN_OUTBOX: {
        const body = large?.bytes ?? copyOut(this.#ring, roomAt, length);
        const recycle = large?.recycle ?? null;
        this.#totals.succeeded += 1;
        this.#answered(pending);
        pending.resolve(
          new HandlerResponse(body, this.#identity.version, queuedMs, ranMs, recycle),
        );
        return;
      }
      case STATUS.HANDLER_FAILED: {
        const code = words[slotAt(layout, slot) + SLOT.HANDLER_CODE] ?? 0;
        const message = this.#room.toString('utf8', roomAt, roomAt + length);
        this.#totals.failed += 1;
        this.#reject(pending, requestErrors.handlerFailed(this.#identity, code, message));
        return;
      }
      case STATUS.RESPONSE_TOO_LARGE:
        this.#totals.badResponse += 1;
        this.#reject(
          pending,
          requestErrors.responseTooLarge(this.#identity, this.#options, length),
        );
        return;
      case STATUS.INVALID_RESPONSE: {
        const defect = this.#room.toString('utf8', roomAt, roomAt + length);
        this.#totals.badResponse += 1;
        this.#reject(pending, requestErrors.invalidResponse(this.#identity, defect));
        return;
      }
      default:
        assert.fail(`a lane completed a waiting request with status ${status}`);
    }
  }

  /** Answers the request whose call died with its lane. The ring has cleaned up already. */
  buried(slot: number, makeError: () => LaneExitedError): void {
    const pending = this.#bySlot[slot];
    assert(pending !== undefined, 'a running slot has a request');
    if (pending.answered) {
      this.#abandoned -= 1;
    } else {
      this.#totals.laneExited += 1;
      this.#reject(pending, makeError());
    }
    this.#vacate(pending);
    this.#refill();
    this.#hooks.requestLeft();
  }

  // ---- Out: the caller gives up, or we do --------------------------------------------------------

  /** Answers everything that is due. Fired by the alarm. */
  #expire(nowMs: number): void {
    // What is done is done, even if its deadline passed while this thread was busy.
    this.collect();
    const nextMs = this.#deadlines.advance(nowMs, this.#due);
    // What gave up may have been waiting for memory that those behind it do not need.
    this.#refill();
    if (nextMs !== Number.POSITIVE_INFINITY) this.#alarm.set(nextMs);
    this.#hooks.requestLeft();
  }

  /** Its deadline has passed; or it has been answered, and its call has outlived its grace. */
  readonly #due = (pending: Pending): void => {
    if (!pending.answered) this.#giveUp(pending, (phase) => this.#timedOut(pending, phase));
    else if (this.#ring.stateOf(pending.slot) === STATE.RUNNING)
      this.#hooks.callStuck(this.#ring.laneOf(pending.slot), pending.slot);
  };

  #abort(pending: Pending, signal: AbortSignal): void {
    // Its listener is off already. To look for it would take as long as the signal has listeners, for each of them.
    pending.onAbort = null;
    this.collect();
    if (!pending.admitted || pending.answered) return;
    this.#giveUp(pending, () => {
      this.#totals.aborted += 1;
      this.#reject(pending, signal.reason);
    });
    // It may have been waiting for memory that those behind it do not need.
    this.#refill();
    this.#hooks.requestLeft();
  }

  /** Answers everything that is left, because the version is being taken away. */
  dropAll(reason: DropReason): void {
    this.collect();
    for (const pending of this.#all()) {
      if (pending.answered) continue;
      this.#giveUp(pending, (phase) => {
        this.#totals.dropped += 1;
        this.#reject(pending, requestErrors.dropped(this.#identity, reason, phase));
      });
    }
    this.#hooks.requestLeft();
  }

  /** Refuses new requests and answers the queued ones, because no lane is left that could take them. */
  refuse(makeError: () => ShedError): void {
    this.#refusal = makeError;
    for (const pending of this.#all()) {
      if (pending.answered || (pending.slot !== NO_SLOT && !this.#withdraw(pending))) continue;
      if (pending.slot === NO_SLOT) this.#leaveQueue(pending);
      this.#totals.dropped += 1;
      this.#reject(pending, makeError());
    }
    this.#hooks.requestLeft();
  }

  /** Accepts requests again: there is a lane. */
  accept(): void {
    this.#refusal = null;
  }

  /** Every request there is, as a list of its own: what is done to one may move others. */
  #all(): Pending[] {
    return [...this.#waiting, ...this.#inSlots()];
  }

  #inSlots(): Pending[] {
    return this.#bySlot.filter((pending) => pending !== undefined);
  }

  /**
   * The one way to answer a request that no lane has completed: from the queue it is removed, in the ring it is
   * withdrawn, and if it runs already its cancel flag is raised and it becomes abandoned.
   */
  #giveUp(pending: Pending, answer: (phase: TimeoutPhase) => void): void {
    if (pending.slot === NO_SLOT) {
      this.#leaveQueue(pending);
      answer('queued');
    } else if (this.#withdraw(pending)) {
      answer('queued');
    } else {
      this.#ring.cancel(pending.slot);
      this.#abandoned += 1;
      answer('running');
      const graceEndsMs = monotonicMs() + this.#options.cancelGraceMs;
      this.#deadlines.add(pending, graceEndsMs);
      this.#alarm.set(graceEndsMs);
      this.#hooks.abandoned(this.#ring.laneOf(pending.slot));
    }
  }

  /**
   * Takes a request back from the ring; false if a lane has it already. Its memory is free at once: no lane reads it any more,
   * and if all of them are stuck, it would be long until one passes over its slot.
   */
  #withdraw(pending: Pending): boolean {
    if (!this.#ring.withdraw(pending.slot)) return false;
    this.#giveBackRegion(pending);
    return true;
  }

  #giveBackRegion(pending: Pending): void {
    if (pending.region !== 0) this.#regions.giveBack(pending.region);
    pending.region = 0;
  }

  #leaveQueue(pending: Pending): void {
    this.#waiting.remove(pending);
    this.#waitingBytes -= ownBytes(pending.request);
    this.#ring.release();
  }

  #timedOut(pending: Pending, phase: TimeoutPhase): void {
    const { timeoutMs } = pending;
    if (phase === 'queued') this.#totals.timedOutQueued += 1;
    else this.#totals.timedOutRunning += 1;
    this.#reject(
      pending,
      requestErrors.timedOut(this.#identity, timeoutMs, phase, this.#options.isolation),
    );
    this.#hooks.timedOut(phase, timeoutMs);
  }

  #reject(pending: Pending, reason: unknown): void {
    this.#answered(pending);
    pending.reject(reason);
  }

  /** What every answer has in common. */
  #answered(pending: Pending): void {
    if (pending.answered) assert.fail('a request is answered once');
    pending.answered = true;
    this.#unanswered -= 1;
    this.#deadlines.remove(pending);
    this.#unfollow(pending);
    this.#keepAlive.release();
  }

  // ---- State -------------------------------------------------------------------------------------

  /**
   * Whether nothing is in flight and every answer has been given. There may be withdrawn requests that no lane has
   * passed over yet: nobody waits for them, and nothing will run them.
   */
  get idle(): boolean {
    return this.#ring.inFlight === 0 && this.#unanswered === 0;
  }

  /** Native calls going on that nobody waits for. */
  get abandoned(): number {
    return this.#abandoned;
  }

  get totals(): Readonly<OutcomeTotals> {
    return this.#totals;
  }

  stats(): DispatcherStats {
    const nowMs = monotonicMs();
    const { queued, running } = this.#inRing();
    return {
      queued: this.#waiting.length + queued,
      running,
      abandoned: this.#abandoned,
      totals: { ...this.#totals },
      latency: {
        queue: this.#queueLatency.stats(nowMs),
        run: this.#runLatency.stats(nowMs),
      },
    };
  }

  /** In one pass and without a list: `stats()` is asked of every endpoint, and most have nothing in their slots. */
  #inRing(): { queued: number; running: number } {
    let queued = 0;
    let running = 0;
    if (this.#ring.taken === 0) return { queued, running };
    for (const pending of this.#bySlot) {
      if (pending === undefined) continue;
      const state = this.#ring.stateOf(pending.slot);
      if (state === STATE.QUEUED) queued += 1;
      else if (state === STATE.RUNNING) running += 1;
    }
    return { queued, running };
  }

  /** Stops the clock. */
  dispose(): void {
    this.#alarm.clear();
    // A caller may keep responses, and through them the pool.
    this.#pool.close();
  }

  #shed(error: ShedError): ShedError {
    this.#totals.shed += 1;
    this.#hooks.shed(error);
    return error;
  }
}
