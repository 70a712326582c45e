/**
 * The thread of workers/prepare.ts, one for all registries: started when it is needed, ended when
 * nobody has needed it for a while. It keeps the process alive only while somebody waits for an
 * answer.
 *
 * It gets one question at a time, so that whoever gives up ends nobody else's: one that waits is
 * forgotten, and only the one that is being answered takes the thread with it.
 */

import { Worker } from 'node:worker_threads';
import { deferred } from '../../deferred.js';
import { ElfError } from '../elf/bytes.js';
import { messageOf } from '../system-errors.js';
import type { PrepareAnswer, PrepareAsk } from './messages.js';
import type { Patched, PatchTask } from './patch-task.js';
import type { Survey, SurveyTask } from './survey.js';

const workerFile = new URL('../../../workers/prepare.js', import.meta.url);

/** Loads often come one after another. */
const IDLE_MS = 2000;

type Said = Survey | Patched[] | null;

interface Question {
  ask: PrepareAsk;
  resolve: (said: Said) => void;
  reject: (cause: unknown) => void;
}

/** The thread could not be started, or has ended before it had answered. */
export class PrepareThreadError extends Error {
  constructor(cause: unknown) {
    super(`the thread that looks into libraries is not to be had: ${messageOf(cause)}`, { cause });
  }
}

class PrepareThread {
  #worker: Worker | null = null;
  /** Those that there have been. */
  readonly #started = new WeakSet<Worker>();
  /** The worker has the first one. */
  readonly #questions: Question[] = [];
  /** How many want it to be there, whether it has something to do or not. */
  #holders = 0;
  #idle: NodeJS.Timeout | null = null;

  /** @throws {PrepareThreadError} if there is none and none can be started. */
  start(): Worker {
    if (this.#worker !== null) return this.#worker;
    let worker: Worker;
    try {
      // Neither flags nor environment of the host are of any use to it.
      worker = new Worker(workerFile, { execArgv: [], env: {}, name: 'changeover prepare' });
    } catch (cause) {
      throw new PrepareThreadError(cause);
    }
    this.#worker = worker;
    this.#started.add(worker);
    worker.on('message', (answer: PrepareAnswer) => {
      // It may have been given up meanwhile.
      if (worker === this.#worker) this.#receive(answer);
    });
    worker.on('error', (cause) => this.#ended(worker, cause));
    worker.on('exit', () => this.#ended(worker, new Error('the thread that prepares has ended')));
    // Last: a listener for messages is taken for a reason to live.
    this.#rest();
    return worker;
  }

  hasStarted(worker: Worker): boolean {
    return this.#started.has(worker);
  }

  /** Rejects with the signal's reason once that is aborted. */
  ask(ask: PrepareAsk, signal?: AbortSignal): Promise<Said> {
    const { promise, resolve, reject } = deferred<Said>();
    if (signal?.aborted) {
      reject(signal.reason);
      return promise;
    }
    const question: Question = { ask, resolve, reject };
    this.#questions.push(question);
    const giveUp = () => this.#giveUp(question, signal?.reason);
    signal?.addEventListener('abort', giveUp, { once: true });
    if (this.#questions.length === 1) this.#askNext();
    return promise;
  }

  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    this.#holders -= 1;
  }

  #askNext(): void {
    const question = this.#questions[0];
    if (question === undefined) {
      this.#rest();
      return;
    }
    try {
      const worker = this.start();
      this.#stopResting();
      worker.ref();
      worker.postMessage(question.ask);
    } catch (error) {
      for (const each of this.#questions.splice(0)) each.reject(error);
    }
  }

  #receive(answer: PrepareAnswer): void {
    const question = this.#questions.shift();
    if (answer.ok) question?.resolve(answer.said);
    else {
      const { isElf, message, ...system } = answer.failure;
      question?.reject(isElf ? new ElfError(message) : Object.assign(new Error(message), system));
    }
    this.#askNext();
  }

  #giveUp(question: Question, reason: unknown): void {
    const place = this.#questions.indexOf(question);
    if (place === -1) return;
    this.#questions.splice(place, 1);
    question.reject(reason);
    if (place > 0) return;
    this.#end();
    this.#askNext();
  }

  /** It has ended by itself. What it died of fails; the others get a new one. */
  #ended(worker: Worker, cause: unknown): void {
    if (worker !== this.#worker) return;
    this.#worker = null;
    this.#stopResting();
    this.#questions.shift()?.reject(new PrepareThreadError(cause));
    this.#askNext();
  }

  /** It has nothing to do, and ends after a while unless somebody holds it. */
  #rest(): void {
    this.#stopResting();
    if (this.#worker === null) return;
    this.#worker.unref();
    this.#idle = setTimeout(() => {
      if (this.#holders > 0) this.#rest();
      else this.#end();
    }, IDLE_MS).unref();
  }

  #stopResting(): void {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
  }

  /**
   * Ends it, whatever it is doing: it runs nothing but JavaScript. A system call that hangs keeps
   * it, but not this process.
   */
  #end(): void {
    const worker = this.#worker;
    this.#worker = null;
    this.#stopResting();
    worker?.unref();
    void worker?.terminate();
  }
}

const thread = new PrepareThread();

/** Whether a thread of this process is the one that prepares. */
export function isPrepareThread(worker: Worker): boolean {
  return thread.hasStarted(worker);
}

/** Starts it, if it is not there: what follows then takes less long. */
export function startAhead(): void {
  try {
    thread.start();
  } catch (error) {
    // Whoever has something to ask tries again, and says it.
    if (!(error instanceof PrepareThreadError)) throw error;
  }
}

/**
 * Keeps the thread from ending once it runs, until the function that this returns is called. Calling
 * that again does nothing.
 */
export function keep(): () => void {
  let kept = true;
  thread.hold();
  return () => {
    if (kept) thread.release();
    kept = false;
  };
}

/** Has it started and ready until `release`, which may be called again. */
export async function hold(signal: AbortSignal): Promise<{ release: () => void }> {
  const release = keep();
  try {
    await thread.ask({ type: 'warm-up' }, signal);
  } catch (error) {
    release();
    throw error;
  }
  return { release };
}

/**
 * What a library needs, and what has to be changed in it.
 *
 * @throws {ElfError} if it cannot be read, or the reason of `signal`.
 */
export async function askSurvey(task: SurveyTask, signal?: AbortSignal): Promise<Survey> {
  return (await thread.ask({ type: 'survey', task }, signal)) as Survey;
}

/**
 * Changes private copies, and tells what was changed in each.
 *
 * @throws {ElfError} if one of them cannot be changed, or the reason of `signal`.
 */
export async function askPatch(tasks: PatchTask[], signal?: AbortSignal): Promise<Patched[]> {
  return (await thread.ask({ type: 'patch', tasks }, signal)) as Patched[];
}
