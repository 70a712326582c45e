/**
 * Threads for lanes: the only importer of Piscina. It starts and ends worker threads, applies their limits and
 * reports their death; requests do not pass through it.
 */

import type { MessagePort, ResourceLimits, Worker } from 'node:worker_threads';
import { ArrayTaskQueue, Piscina } from 'piscina';
import { type CallMemoryNote, giveBack, makeNote, NOTE, viewNote } from './call-memory.js';
import { deferred } from './deferred.js';
import type { LaneStart } from './lane-protocol.js';
import { messageOf } from './library/system-errors.js';
import type { Isolation } from './options.js';

const laneFile = new URL('../workers/lane.js', import.meta.url).href;
const bridgeFile = new URL('../workers/bridge.js', import.meta.url).href;

export interface LanePoolOptions {
  /** Threads there may ever be at once, replacements included. */
  maxThreads: number;
  resourceLimits: ResourceLimits | undefined;
  env: Readonly<Record<string, string>>;
}

/** The part of Piscina's worker that its load balancer is given and that is used here. */
interface BalancedWorker {
  /** The number of its thread. */
  readonly id: number;
  readonly currentUsage: number;
  readonly terminating: boolean;
  readonly destroyed: boolean;
}

/** All that a load balancer can see of a task is the value under this key. */
const { queueOptionsSymbol } = Piscina;

/** A task as the load balancer sees it. */
interface BalancedTask {
  readonly [queueOptionsSymbol: symbol]: { readonly onHandedOver: () => void } | null;
}

/** One that waits for a thread: Piscina's record of the task, and how to give up. */
interface WaitingLane {
  readonly task: PiscinaQueued;
  readonly fail: (cause: unknown) => void;
}

export class LanePool {
  readonly #piscina: Piscina;
  readonly #queue = new LaneQueue();
  /** Lanes whose threads are starting, oldest first. */
  readonly #waiting: WaitingLane[] = [];
  /** Threads that have not ended yet, also those that Piscina has let go of. */
  readonly #threads = new Set<Worker>();
  /** Of those, the numbers of the ones that were given a lane. */
  readonly #haveHadLanes = new Set<number>();
  /** What threads note of their memory for native calls, one note for each lane that was started. */
  readonly #notes = new Set<CallMemoryNote>();
  /** Notes of threads that have ended, until they are acted on. */
  readonly #toGiveBack: CallMemoryNote[] = [];
  #givingBack: Promise<void> = Promise.resolve();

  constructor({ maxThreads, resourceLimits, env }: LanePoolOptions) {
    this.#piscina = new Piscina({
      // Each thread is started for a lane, by `run`. One that has died would else be replaced by Piscina in the event that tells of its
      // death, and if there is no thread to be had then, that throws where nobody can catch it; nor would the lane be told.
      minThreads: 0,
      maxThreads,
      // A lane is one task that never ends by itself: a thread has room for exactly one.
      concurrentTasksPerWorker: 1,
      taskQueue: this.#queue,
      loadBalancer: (task, workers) => {
        const idle = idleWorker(workers);
        if (idle === null) return null;
        this.#haveHadLanes.add(idle.id);
        (task as unknown as BalancedTask)[queueOptionsSymbol]?.onHandedOver();
        return idle;
      },
      recordTiming: false,
      // Flags of the host (loaders, inspectors) are not meant for threads that only run native code.
      execArgv: [],
      // Nor is its environment, secrets and all.
      env: { ...env },
      ...(resourceLimits === undefined ? {} : { resourceLimits }),
    });
    // A thread's death rejects the task of its lane, which is where it is dealt with. This is about a thread without a lane: if one is
    // waiting, it was to be its thread, and Piscina would let it wait for ever.
    this.#piscina.on('error', (cause) => {
      const lane = this.#waiting.find(({ task }) => this.#queue.has(task));
      if (lane !== undefined) this.#fail(lane, cause);
    });
  }

  /**
   * Runs a lane in a thread of its own. Settles when the lane has left, rejects if its thread died.
   *
   * @param onHandedOver Called right before the thread gets the lane. A thread that is still starting by then goes on to it by
   * itself, whatever this one does.
   */
  async run(
    lane: Omit<LaneStart, 'callMemory'>,
    isolation: Isolation,
    onHandedOver: () => void,
  ): Promise<void> {
    const callMemory = makeNote();
    const note = viewNote(callMemory);
    this.#notes.add(note);
    const task = { ...lane, callMemory, [queueOptionsSymbol]: { onHandedOver } };
    // Named here and not for the whole pool: an idle thread loads nothing that it could be terminated in.
    const filename = isolation === 'thread' ? laneFile : bridgeFile;
    // Piscina throws at once if there is no thread to be had, and has the task in its queue all the same.
    const run = async () => this.#piscina.run(task, { filename, transferList: [task.port] });
    const running = run();
    this.#noteThreads();
    const queued = this.#queue.takeLast();
    try {
      await (queued === null ? running : this.#orGivenUp(queued, running));
    } finally {
      // It has left before it called anything.
      if (note.words[NOTE.THREAD_ID] === 0) this.#notes.delete(note);
    }
  }

  /** A lane without a thread fails for good: left in the queue, the next thread would get it when its port is closed, and throw. */
  async #orGivenUp(task: PiscinaQueued, running: Promise<unknown>): Promise<void> {
    const { promise, reject: fail } = deferred<never>();
    const lane = { task, fail };
    this.#waiting.push(lane);
    try {
      await Promise.race([running, promise]);
    } finally {
      this.#queue.giveUp(task);
      this.#waiting.splice(this.#waiting.indexOf(lane), 1);
    }
  }

  /** Ends all threads and waits for them. No lane may be running. */
  async destroy(): Promise<void> {
    await this.#piscina.destroy();
    // Of those whose lanes had left before, Piscina has ended some and waited for none.
    await Promise.all([...this.#threads].map(ended));
    await this.#givingBack;
  }

  #noteThreads(): void {
    for (const thread of this.#piscina.threads) {
      if (this.#threads.has(thread)) continue;
      this.#threads.add(thread);
      // Only a running thread has a number.
      const { threadId } = thread;
      thread.once('exit', (code) => {
        this.#threads.delete(thread);
        const hasHadLane = this.#haveHadLanes.delete(threadId);
        this.#giveBackMemoryOf(threadId);
        if (!hasHadLane) this.#failWithoutThreads(code);
      });
    }
  }

  /**
   * Piscina tells nobody of a thread that ends without an error and without a lane. Another is started with the next one
   * that comes; if none does, lanes would wait for ever.
   */
  #failWithoutThreads(code: number): void {
    if (this.#piscina.threads.some(({ threadId }) => !this.#haveHadLanes.has(threadId))) return;
    const cause = new Error(`it exited with code ${code} before it had a lane`);
    for (const lane of this.#waiting) if (this.#queue.has(lane.task)) this.#fail(lane, cause);
  }

  /** Ends the wait of a lane whose thread is gone. */
  #fail({ task, fail }: WaitingLane, cause: unknown): void {
    // At once, not when its promise has settled: Node may tell of several deaths before that, and the next is another lane's.
    this.#queue.giveUp(task);
    fail(cause);
  }

  /** Node tells of a thread's end once it has joined it. */
  #giveBackMemoryOf(threadId: number): void {
    const notes = [...this.#notes].filter(({ words }) => words[NOTE.THREAD_ID] === threadId);
    for (const note of notes) this.#notes.delete(note);
    // Of a thread that had several lanes, the last one's token is in place.
    const last = notes.at(-1);
    if (last === undefined) return;
    this.#toGiveBack.push(last);
    // Together with those of other threads that end meanwhile.
    this.#givingBack = this.#givingBack
      .then(() => giveBack(this.#toGiveBack.splice(0)))
      .catch((cause: unknown) => {
        process.emitWarning(`memory of a thread that has ended is kept: ${messageOf(cause)}`);
      });
  }
}

type PiscinaQueued = Parameters<ArrayTaskQueue['push']>[0];

/** Piscina's own, which tells what was put there last. */
class LaneQueue extends ArrayTaskQueue {
  #last: PiscinaQueued | null = null;

  override push(task: PiscinaQueued): void {
    this.#last = task;
    super.push(task);
  }

  has(task: PiscinaQueued): boolean {
    return this.tasks.includes(task);
  }

  /** Takes it out if it is still here. */
  giveUp(task: PiscinaQueued): void {
    if (this.has(task)) this.remove(task);
  }

  /** What was put here since the last call. */
  takeLast(): PiscinaQueued | null {
    const last = this.#last;
    this.#last = null;
    return last;
  }
}

/** What a thread dies of is told elsewhere; `once` of node:events would reject with it. */
function ended(thread: Worker): Promise<unknown> {
  return new Promise((resolve) => thread.once('exit', resolve));
}

function idleWorker<W extends BalancedWorker>(workers: W[]): W | null {
  const idle = workers.find(
    (worker) => worker.currentUsage === 0 && !worker.terminating && !worker.destroyed,
  );
  if (idle === undefined) return null;
  // Piscina keeps the process alive while a task runs, which for a lane would be for ever. What is to keep it
  // alive is an outstanding request (see keep-alive.ts). Piscina takes its hold right after this call.
  queueMicrotask(() => taskPort(idle)?.unref());
  return idle;
}

/**
 * The port that Piscina sends a worker's tasks through. There is no public way to it; if a later Piscina
 * keeps it elsewhere, processes no longer end by themselves, which test/process-exit.test.ts notices.
 */
function taskPort(worker: BalancedWorker): MessagePort | undefined {
  for (const key of Object.getOwnPropertySymbols(worker)) {
    const inner: unknown = (worker as unknown as Record<symbol, unknown>)[key];
    if (typeof inner === 'object' && inner !== null && 'port' in inner) {
      return inner.port as MessagePort;
    }
  }
  return undefined;
}
