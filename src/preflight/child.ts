/**
 * One pre-flight child from start to end: what it said, how it ended and why. Judging that is somebody else's (judge.ts).
 *
 * The child never outlives the wait: it is killed when the time is up or the signal is aborted, and ends by itself when this
 * process does.
 */

import { readFile } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pTimeout, { TimeoutError } from 'p-timeout';
import { childEnv } from '../child-env.js';
import { settledWithin } from '../deferred.js';
import { codeOf } from '../library/system-errors.js';
import { closePipes, type StartedChild, startChild } from '../start-child.js';
import { MESSAGES_FD, type PreflightMessage, type PreflightTask } from './protocol.js';

const childFile = fileURLToPath(new URL('../../workers/preflight.js', import.meta.url));

/** Of what the library prints, the end is kept: it says why a process was aborted. */
const KEPT_STDERR_CHARACTERS = 2000;
/** Messages that a child has any reason to send are fewer, ... */
const MOST_LINES = 100;
/** ... and shorter, but for the response of a self-test, which comes on top of this. */
const MOST_CHARACTERS = 1024 * 1024;
/** Base64 has four characters for three bytes. */
const CHARACTERS_PER_BYTE = 4 / 3;
/** A child that has ended may have left its pipes to a child of its own. */
const PIPES_AFTER_END_MS = 1000;
/** How often it is looked at whether the child's only thread of interest is still there. */
const LOOK_MS = 200;

/** How a child ended, first cause first. */
export type ChildEnd =
  | { how: 'exited'; exitCode: number }
  | { how: 'crashed'; signal: NodeJS.Signals }
  /** Its thread is gone but the process is not: `pthread_exit`. It was killed. */
  | { how: 'thread-ended' }
  /** It was killed when the time was up. */
  | { how: 'timed-out' }
  /** It was killed because nobody wanted the library any more. */
  | { how: 'aborted' }
  /** It was killed because more came as messages than a child has to say. */
  | { how: 'flooded' }
  /** There could be no child. */
  | { how: 'not-started'; cause: unknown };

export interface ChildReport {
  messages: PreflightMessage[];
  end: ChildEnd;
  /** The end of what was printed to stderr. */
  stderr: string;
  tookMs: number;
  /** Whether it was one that had been started ahead. */
  wasAhead: boolean;
}

/** Starts a child that waits for its task. Whoever gets it must give it one, or kill it. */
export function startPreflightChild(env: Readonly<Record<string, string>>): Promise<StartedChild> {
  // Native code may call exit() here, and what that tears down, V8's own threads must not be using:
  // the process would be said to have crashed. One of them is idle by then, four are not. (Without
  // any, `--single-threaded`, the process takes 15 ms longer to start.)
  const args = ['--v8-pool-size=1', childFile];
  return startChild({ file: process.execPath, args, env: childEnv(env) });
}

/** Ends a child that has got no task. */
export async function endChild(child: StartedChild): Promise<void> {
  child.keepAlive(true);
  // Without its task it ends by itself.
  child.stdin.destroy();
  kill(child);
  await child.exited;
  closePipes(child);
}

/**
 * Kills a child, unless this process has become another user's since and may not: then one without a
 * task ends by itself, and one that has a task when its lifetime is over.
 */
function kill(child: StartedChild): void {
  try {
    child.kill('SIGKILL');
  } catch (error) {
    if (codeOf(error) !== 'EPERM') throw error;
  }
}

export interface ChildOptions {
  /** One that was or is being started ahead with this environment, if there is one. */
  ahead?: Promise<StartedChild | null>;
  task: Omit<PreflightTask, 'bodyBytes' | 'parentPid' | 'lifetimeSeconds'>;
  /** The self-test's context and request, as they lie in memory. */
  body: Uint8Array;
  env: Readonly<Record<string, string>>;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}

/**
 * Gives a child its task and resolves when it has ended, or when the time is up or the signal
 * aborted before there was one: a host may keep the threads busy in which processes are started.
 * Never rejects.
 */
export async function runChild(options: ChildOptions): Promise<ChildReport> {
  const startedMs = performance.now();
  const { task, body, timeoutMs, signal } = options;
  let wasAhead = false;
  const messages: PreflightMessage[] = [];
  let stderr = '';
  let killedFor: ChildEnd | null = null;
  const report = (end: ChildEnd): ChildReport => ({
    messages,
    end,
    stderr: stderr.trim(),
    tookMs: performance.now() - startedMs,
    wasAhead,
  });
  const start = async () => {
    const ahead = (await options.ahead) ?? null;
    wasAhead = ahead !== null;
    return ahead ?? startPreflightChild(options.env);
  };
  const starting = start();
  let child: StartedChild;
  try {
    const limits = { milliseconds: timeoutMs, ...(signal === undefined ? {} : { signal }) };
    child = await pTimeout(starting, limits);
  } catch (cause) {
    // One that comes after all has nothing to do.
    starting.then(endChild).catch(() => undefined);
    if (signal?.aborted === true) return report({ how: 'aborted' });
    if (cause instanceof TimeoutError) return report({ how: 'timed-out' });
    return report({ how: 'not-started', cause });
  }
  const leftMs = Math.max(1, timeoutMs - (performance.now() - startedMs));
  const killFor = (why: ChildEnd): void => {
    killedFor ??= why;
    kill(child);
  };
  const onAbort = () => killFor({ how: 'aborted' });
  if (signal?.aborted === true) onAbort();
  // One more turn of the event loop: if this thread was busy, the child may have ended long ago.
  const timer = setTimeout(() => {
    void setImmediate().then(() => killFor({ how: 'timed-out' }));
  }, leftMs);
  const look = watchThread(child.pid, () => killFor({ how: 'thread-ended' }));
  signal?.addEventListener('abort', onAbort);
  const responseBytes = task.selfTest === null ? 0 : task.maxPayloadBytes;
  readLines(child.messages, {
    take: (line) => messages.push(line),
    maxCharacters: MOST_CHARACTERS + responseBytes * CHARACTERS_PER_BYTE,
    flooded: () => killFor({ how: 'flooded' }),
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-KEPT_STDERR_CHARACTERS);
  });
  const lifetimeSeconds = Math.ceil(leftMs / 1000) + 1;
  const bodyBytes = body.length;
  sendTask(child.stdin, { ...task, bodyBytes, parentPid: process.pid, lifetimeSeconds }, body);
  try {
    const end = await ended(child);
    return report(causeOf(killedFor, end));
  } finally {
    clearTimeout(timer);
    clearInterval(look);
    signal?.removeEventListener('abort', onAbort);
  }
}

/**
 * Why a child has ended that was perhaps to be killed, and ended so. One that was ending when it was killed has ended by itself,
 * and what it said counts: a busy machine may take long to take down the threads of a process.
 */
export function causeOf(killedFor: ChildEnd | null, end: ChildEnd): ChildEnd {
  if (killedFor === null) return end;
  // By this process, or by the end of its lifetime if this process was not allowed to.
  const wasKilled = end.how === 'crashed' && (end.signal === 'SIGKILL' || end.signal === 'SIGALRM');
  // Nobody waits for what was aborted.
  return wasKilled || killedFor.how === 'aborted' ? killedFor : end;
}

function sendTask(stdin: Writable, task: PreflightTask, body: Uint8Array): void {
  // A child that ends before it has read its task says so by how it ends.
  stdin.on('error', () => undefined);
  stdin.write(`${JSON.stringify(task)}\n`);
  stdin.end(body);
}

interface LineReader {
  take: (message: PreflightMessage) => void;
  maxCharacters: number;
  /** There is more than that, or more than `MOST_LINES`. It is not read any more. */
  flooded: () => void;
}

/** What comes is the library's to write as well, so that there may be any amount of it. */
function readLines(stream: Readable, { take, maxCharacters, flooded }: LineReader): void {
  let characters = 0;
  let lines = 0;
  /** The beginning of a line; joined once, when its end has come. */
  let parts: string[] = [];
  const read = (text: string): void => {
    characters += text.length;
    const [end = '', ...begun] = text.split('\n', MOST_LINES + 2);
    parts.push(end);
    for (const next of begun) {
      lines += 1;
      if (lines > MOST_LINES) break;
      take(parse(parts.join('')));
      parts = [next];
    }
    if (characters <= maxCharacters && lines <= MOST_LINES) return;
    stream.off('data', read).resume();
    flooded();
  };
  stream.setEncoding('utf8').on('data', read);
}

/** A library can write to any descriptor, so a line may be anything. */
function parse(line: string): PreflightMessage {
  try {
    const message: unknown = JSON.parse(line);
    if (typeof message === 'object' && message !== null && 'type' in message) {
      return message as PreflightMessage;
    }
  } catch {
    // Told below.
  }
  return { type: 'failed', message: `something else was written to descriptor ${MESSAGES_FD}` };
}

/** Resolves when the process has ended and what it has written has been read. */
async function ended(child: StartedChild): Promise<ChildEnd> {
  const { stderr, messages } = child;
  const read = Promise.all([closed(messages), closed(stderr)]);
  const exit = await child.exited;
  await settledWithin(read, PIPES_AFTER_END_MS);
  // One more turn of the event loop: if this thread was busy, there may be something to read yet.
  await setImmediate();
  closePipes(child);
  return 'signal' in exit ? { how: 'crashed', ...exit } : { how: 'exited', ...exit };
}

/** Resolves when a stream is over; why is of no interest. */
function closed(stream: Readable): Promise<void> {
  stream.on('error', () => undefined);
  return new Promise((resolve) => void stream.once('close', resolve));
}

/**
 * A process whose first thread has ended while others go on is a zombie that never exits, and no event tells. Seen
 * twice, since every process is one for a moment when it ends.
 */
function watchThread(pid: number, gone: () => void): NodeJS.Timeout | undefined {
  if (process.platform !== 'linux') return undefined;
  let seen = 0;
  return setInterval(async () => {
    const text = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
    // The state comes after the program's name, which may contain anything (proc_pid_stat(5)).
    const isZombie = text.slice(text.lastIndexOf(')') + 2).startsWith('Z');
    seen = isZombie ? seen + 1 : 0;
    if (seen === 2) gone();
  }, LOOK_MS);
}
