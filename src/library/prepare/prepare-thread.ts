/**
 * The thread of workers/prepare.ts, one for all registries: started when it is needed, ended when nobody has needed it for a while. It
 * keeps the process alive only while somebody waits for an answer.
 */

import { Worker } from 'node:worker_threads';
import { deferred } from '../../deferred.js';
import { ElfError } from '../elf/bytes.js';
import { messageOf } from '../system-errors.js';
import type { PrepareAnswer, PrepareAsk } from './messages.js';
import type { Patched, PatchTask } from './patch.js';
import type { Survey, SurveyTask } from './survey.js';

const workerFile = new URL('../../../workers/prepare.js', import.meta.url);

/** Loads often come one after another. */
const IDLE_MS = 2000;

type Said = Survey | Patched[] | null;

interface Waiting {
  resolve: (said: Said) => void;
  reject: (cause: unknown) => void;
}

/** Those that there have been. */
const started = new WeakSet<Worker>();

/** The thread could not be started, or has ended before it had answered. */
export class PrepareThreadError extends Error {
  constructor(cause: unknown) {
    super(`the thread that looks into libraries is not to be had: ${messageOf(cause)}`, { cause });
  }
}

class PrepareThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onEnd: () => void;
  #lastId = 0;
  #idle: NodeJS.Timeout | null = null;

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd;
    // Neither flags nor environment of the host are of any use to it.
    this.#worker = new Worker(workerFile, { execArgv: [], env: {}, name: 'changeover prepare' });
    started.add(this.#worker);
    this.#worker.on('message', (answer: PrepareAnswer) => this.#receive(answer));
    this.#worker.on('error', (cause) => this.#ended(cause));
    this.#worker.on('exit', () => this.#ended(new Error('the thread that prepares has ended')));
    // Last: a listener for messages is taken for a reason to live.
    this.#rest();
  }

  ask(ask: PrepareAsk): Promise<Said> {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    this.#lastId += 1;
    const id = this.#lastId;
    const { promise, resolve, reject } = deferred<Said>();
    this.#waiting.set(id, { resolve, reject });
    this.#worker.ref();
    this.#worker.postMessage({ id, ask });
    return promise;
  }

  #receive(answer: PrepareAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.ok) waiting?.resolve(answer.said);
    else {
      const { isElf, code, message } = answer.failure;
      waiting?.reject(isElf ? new ElfError(message) : Object.assign(new Error(message), { code }));
    }
    if (this.#waiting.size === 0) this.#rest();
  }

  /** It has nothing to do, for so long at most unless somebody holds it. */
  #rest(): void {
    this.#worker.unref();
    this.#idle = setTimeout(() => {
      if (holders > 0) this.#rest();
      else this.end();
    }, IDLE_MS).unref();
  }

  #ended(cause: unknown): void {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#onEnd();
    const error = new PrepareThreadError(cause);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  /** Ends it, whatever it is doing: it runs nothing but JavaScript. */
  end(): void {
    this.#onEnd();
    void this.#worker.terminate();
  }
}

let thread: PrepareThread | null = null;
/** How many want it to be there, whether it has something to do or not. */
let holders = 0;

function current(): PrepareThread {
  if (thread !== null) return thread;
  let fresh: PrepareThread;
  try {
    fresh = new PrepareThread(() => {
      if (thread === fresh) thread = null;
    });
  } catch (cause) {
    throw new PrepareThreadError(cause);
  }
  thread = fresh;
  return fresh;
}

/** Whether a thread of this process is the one that prepares. */
export function isPrepareThread(worker: Worker): boolean {
  return started.has(worker);
}

/** Starts it, if it is not there: what follows then takes less long. */
export function startAhead(): void {
  try {
    current();
  } catch (error) {
    // Whoever has something to ask tries again, and says it.
    if (!(error instanceof PrepareThreadError)) throw error;
  }
}

/** Has it started and ready until `release`, which may be called again. */
export async function hold(): Promise<{ release: () => void }> {
  let held = true;
  holders += 1;
  const release = () => {
    if (held) holders -= 1;
    held = false;
  };
  try {
    await current().ask({ type: 'warm-up' });
  } catch (error) {
    release();
    throw error;
  }
  return { release };
}

/** Ends it while it hangs, which a file system can make it do. The next one to ask gets a new one. */
export function abandon(): void {
  thread?.end();
}

/**
 * What a library needs, and what has to be changed in it.
 *
 * @throws {ElfError} if it cannot be read.
 */
export async function askSurvey(task: SurveyTask): Promise<Survey> {
  return (await current().ask({ type: 'survey', task })) as Survey;
}

/**
 * Changes private copies, and tells what was changed in each.
 *
 * @throws {ElfError} if one of them cannot be changed.
 */
export async function askPatch(tasks: PatchTask[]): Promise<Patched[]> {
  return (await current().ask({ type: 'patch', tasks })) as Patched[];
}
