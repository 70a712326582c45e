/**
 * What a version needs before it has a library: a ring, a pool of threads, and lanes in them that wait to be told what to open.
 *
 * A version that is loaded makes its own and uses it at once. With the option `standby`, that of the next version is made ahead: a
 * swap then finds its threads running, instead of starting them while requests compete for the same cores.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { CancelFlags } from './cancel-flags.js';
import { guardAtExit, unguardAtExit } from './exit-guard.js';
import { LanePool } from './lane-pool.js';
import type { LaneOrder } from './lane-protocol.js';
import { laneThreads } from './lane-threads.js';
import { hold } from './library/prepare/prepare-thread.js';
import { messageOf } from './library/system-errors.js';
import type { ResolvedEndpointOptions } from './options.js';
import { endChild, startPreflightChild } from './preflight/child.js';
import { NO_OUTBOX, reserveOutbox } from './ring/outbox.js';
import { RingProducer } from './ring/producer.js';
import { closePipes, type StartedChild } from './start-child.js';

/** A lane without a library. Its first message must be a `LaneOrder`. */
export interface StartedLane {
  readonly port: MessagePort;
  readonly outbox: SharedArrayBuffer;
  /** Resolves when the lane has left; rejects if its thread died. */
  readonly ended: Promise<void>;
}

/** Slots of a version's ring: they come in multiples of 32. */
function slotsFor({ maxInFlight }: ResolvedEndpointOptions): number {
  return Math.ceil(maxInFlight / 32) * 32;
}

/** Whether there is to be room for one lane more, which starts while a worn one still serves. */
function recycles(options: ResolvedEndpointOptions): boolean {
  const { recycleAfterRequests, recycleAfterMs, maxRssBytes, isolation } = options;
  const limits = [recycleAfterRequests, recycleAfterMs];
  if (isolation === 'process') limits.push(maxRssBytes);
  return limits.some((limit) => limit !== Number.POSITIVE_INFINITY);
}

/** What a process inherits and a later one might not: whose it is, and where. */
function surroundingsNow(): string {
  let directory: string | null = null;
  try {
    directory = process.cwd();
  } catch {
    // It was removed; then a process that was started in it is as good as another.
  }
  return JSON.stringify([process.geteuid?.(), process.getegid?.(), directory]);
}

/** All that is fixed before the library is known. */
function shapeFor(options: ResolvedEndpointOptions) {
  const { threads, maxStuckLanes, maxInFlight, isolation, resourceLimits, env } = options;
  const lanes = threads + maxStuckLanes + (recycles(options) ? 1 : 0);
  return { slots: slotsFor(options), lanes, threads, maxInFlight, isolation, resourceLimits, env };
}

export class Standby {
  /** How long after the last one the next lane is started: what starting takes should not be noticed. Tests shorten it. */
  static paceMs = 1000;

  readonly ring: RingProducer;
  /** For lanes that are processes; null if they are threads. */
  readonly cancelFlags: CancelFlags | null;
  readonly #shape: ReturnType<typeof shapeFor>;
  readonly #pool: LanePool;
  /** Lanes that were started ahead and that nobody has taken, by lane index. */
  readonly #waiting = new Map<number, StartedLane>();
  readonly #withChild: boolean;
  /** The process that waits for the library that it is to try. */
  #child: StartedChild | null = null;
  #childSurroundings = '';
  /** The hold on the thread that looks into libraries, which is on Linux alone. */
  #preparer: { release: () => void } | null = null;
  #filling: Promise<void> | null = null;
  /** Aborted once the lanes are needed, or nothing is. */
  readonly #stop = new AbortController();
  /** Whether something could not be started ahead, or has ended before its time. It is not tried again. */
  #gaveUp = false;

  private constructor(
    options: ResolvedEndpointOptions,
    shape: ReturnType<typeof shapeFor>,
    cancelFlags: CancelFlags | null,
  ) {
    const { slots, lanes, maxInFlight, resourceLimits, env } = shape;
    this.#shape = shape;
    this.#withChild = options.preflight !== false;
    this.cancelFlags = cancelFlags;
    this.ring = new RingProducer({ slots, lanes }, maxInFlight, cancelFlags);
    this.#pool = new LanePool({ maxThreads: lanes, resourceLimits, env });
    guardAtExit(this.ring);
  }

  /** One without lanes yet. Whoever gets it must `destroy` it. */
  static async create(options: ResolvedEndpointOptions): Promise<Standby> {
    const shape = shapeFor(options);
    const cancelFlags =
      shape.isolation === 'process' ? await CancelFlags.create(shape.slots) : null;
    try {
      return new Standby(options, shape, cancelFlags);
    } catch (error) {
      cancelFlags?.close();
      throw error;
    }
  }

  /** Whether a version with these options can be made of it. */
  fits(options: ResolvedEndpointOptions): boolean {
    return isDeepStrictEqual(shapeFor(options), this.#shape);
  }

  /** Lanes that wait for a library. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Begins to start ahead what is missing, one thing after another with a pause before each. Ends when a lane is taken, or with
   * `destroy`. What cannot be started ahead is started when it is needed.
   */
  fill(): void {
    this.#filling ??= this.#fill().finally(() => {
      this.#filling = null;
    });
  }

  async #fill(): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      const start = this.#missing();
      if (start === null) return;
      // The signal's end of the wait is how this ends, not a failure.
      await delay(Standby.paceMs, undefined, { ref: false, signal }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        await start();
      } catch (cause) {
        this.#giveUp(cause);
      }
    }
  }

  /** How to start the first thing that is missing; null if nothing is. */
  #missing(): (() => void | Promise<void>) | null {
    if (this.#gaveUp) return null;
    if (process.platform === 'linux' && this.#preparer === null) return () => this.#holdPreparer();
    if (this.#withChild && this.#child === null) return () => this.#startChild();
    for (let index = 0; index < this.#shape.threads; index++) {
      if (!this.#waiting.has(index)) return () => this.#wait(index, this.#start(index));
    }
    return null;
  }

  async #holdPreparer(): Promise<void> {
    const preparer = await hold(this.#stop.signal);
    if (this.#stop.signal.aborted) preparer.release();
    else this.#preparer = preparer;
  }

  async #startChild(): Promise<void> {
    const surroundings = surroundingsNow();
    const child = await startPreflightChild(this.#shape.env);
    this.#child = child;
    this.#childSurroundings = surroundings;
    // Read, so that its end is noticed; how the pipe ends is of no interest.
    child.messages.on('error', () => undefined).resume();
    void child.exited.then((end) => {
      if (this.#child !== child) return;
      this.#child = null;
      closePipes(child);
      this.#giveUp(new Error(`the process for pre-flight has ended: ${JSON.stringify(end)}`));
    });
    if (this.#stop.signal.aborted) await this.#endChild();
    else child.keepAlive(false);
  }

  #giveUp(cause: unknown): void {
    if (this.#stop.signal.aborted) return;
    this.#gaveUp = true;
    process.emitWarning(
      `not everything is ready for the next version (${messageOf(cause)}); what is missing is started when it is needed`,
    );
  }

  /** Whether a pre-flight child waits whose environment, user and directory still match. */
  hasChild({ env }: ResolvedEndpointOptions): boolean {
    if (this.#child === null || !isDeepStrictEqual(env, this.#shape.env)) return false;
    return this.#childSurroundings === surroundingsNow();
  }

  /** The waiting pre-flight child if its environment, user and directory still match; otherwise null. */
  takeChild(options: ResolvedEndpointOptions): StartedChild | null {
    const child = this.#child;
    if (child === null || !this.hasChild(options)) return null;
    this.#child = null;
    child.keepAlive(true);
    return child;
  }

  async #endChild(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#child = null;
    await endChild(child);
  }

  #wait(index: number, lane: StartedLane): void {
    this.#waiting.set(index, lane);
    lane.port.unref();
    lane.ended.catch((cause: unknown) => {
      // Once it is taken, its death is its version's concern.
      if (this.#waiting.get(index) !== lane) return;
      this.#waiting.delete(index);
      this.ring.bury(index);
      lane.port.close();
      this.#giveUp(cause);
    });
  }

  /** The lane with this index: the one that waits, or one that is started now. */
  take(index: number): StartedLane {
    this.#stop.abort();
    this.#preparer?.release();
    // Left over if no library had to be tried.
    void this.#endChild();
    const waiting = this.#waiting.get(index);
    this.#waiting.delete(index);
    return waiting ?? this.#start(index);
  }

  /** Tells a lane that was taken what to open. */
  open({ port }: StartedLane, order: LaneOrder): void {
    port.postMessage(order);
    this.ring.announceMail();
  }

  #start(index: number): StartedLane {
    const { ring } = this;
    const { port1: port, port2: remotePort } = new MessageChannel();
    ring.prepareLane(index);
    let outbox: SharedArrayBuffer;
    try {
      outbox = reserveOutbox();
    } catch (cause) {
      // It ends before it has begun, like a lane for which there is no thread: that is dealt with
      // wherever lanes end.
      return { port, outbox: NO_OUTBOX, ended: Promise.reject(cause) };
    }
    const { slots, lanes } = ring.layout;
    const { isolation } = this.#shape;
    const shape = { slots, lanes };
    const start = {
      memory: ring.memory,
      shape,
      lane: index,
      outbox,
      laneThreads,
      port: remotePort,
    };
    // Not earlier: until the hand-over the thread can be terminated anywhere. And if the process
    // exits first, nothing is handed over any more, so the exit would wait for it in vain.
    const ended = this.#pool.run(start, isolation, () => ring.guardLane(index));
    return { port, outbox, ended };
  }

  /** Ends every thread. Lanes that were taken must have left. */
  async destroy(): Promise<void> {
    this.#stop.abort();
    this.#preparer?.release();
    this.ring.stop();
    await this.#filling;
    await this.#endChild();
    await Promise.allSettled([...this.#waiting.values()].map(({ ended }) => ended));
    await this.#pool.destroy();
    unguardAtExit(this.ring);
    this.cancelFlags?.close();
  }
}
