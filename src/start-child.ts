/**
 * Starts a child process without holding up this thread, whatever the size of this process and however busy the machine (see
 * workers/posix-spawn.ts). Where
 * posix_spawn is not used, Node's own way is: macOS's libuv uses it itself, and Windows has no fork.
 */

import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { ProcessExit } from '../workers/posix-spawn.js';
import { deferred } from './deferred.js';

export interface ChildRequest {
  file: string;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
}

/** A process that was started, and its pipes. Its standard output goes nowhere. */
export interface StartedChild {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stderr: Readable;
  /** What it writes to descriptor 3. */
  readonly messages: Readable;
  /** Resolves when the process has ended. */
  readonly exited: Promise<ProcessExit>;
  kill(signal: NodeJS.Signals): void;
  /** Whether it keeps this process alive until it has ended, which it does at first. */
  keepAlive(keeps: boolean): void;
}

/** How often it is looked whether a process has ended that has not closed its messages. */
const LOOK_MS = 100;
/** The same once it has closed them. */
const LOOK_SOON_MS = 1;

/** Binds what starting and waiting for processes calls (see native-functions.ts). */
export async function prepareStarting(): Promise<void> {
  if (process.platform !== 'linux') return;
  const { bindSpawning } = await import('../workers/posix-spawn.js');
  bindSpawning();
}

/** @throws {Error} if there can be no process; `code` is the system's. */
export async function startChild(request: ChildRequest): Promise<StartedChild> {
  if (process.platform !== 'linux') return startWithNode(request);
  const posix = await import('../workers/posix-spawn.js');
  return inTurn(() => startWithPosix(request, posix));
}

/** Gives up what is left to say and to hear. */
export function closePipes({ stdin, stderr, messages }: StartedChild): void {
  for (const stream of [stdin, stderr, messages]) stream.destroy();
}

/** Waits for a process that was started by a thread which has ended, and which was killed: else it stays a zombie. Linux only. */
export async function reapOrphan(pid: number): Promise<void> {
  const { reap } = await import('../workers/posix-spawn.js');
  while (reap(pid) === null) await delay(LOOK_SOON_MS);
}

type PosixSpawn = typeof import('../workers/posix-spawn.js');

/** The start that was asked for last. */
let lastStart: Promise<unknown> = Promise.resolve();

/**
 * Runs `start` after those before it: each blocks a thread of libuv's pool until the new process has had a core, and the host
 * has other uses for these threads.
 */
function inTurn<T>(start: () => Promise<T>): Promise<T> {
  const result = lastStart.then(start);
  lastStart = result.catch(() => undefined);
  return result;
}

async function startWithPosix(
  { file, args, env }: ChildRequest,
  posix: PosixSpawn,
): Promise<StartedChild> {
  // Ends that are given to the child, and closed here whatever happens.
  const theirs: number[] = [];
  const ours: number[] = [];
  const pipe = (direction: 'to' | 'from'): number => {
    const [read, write] = posix.pipe();
    const [mine, other] = direction === 'to' ? [write, read] : [read, write];
    ours.push(mine);
    theirs.push(other);
    return other;
  };
  let pid: number;
  try {
    const descriptors = [pipe('to'), null, pipe('from'), pipe('from')];
    pid = await posix.startProcessAside({ file, args, env, descriptors });
  } catch (error) {
    for (const descriptor of ours) posix.close(descriptor);
    throw error;
  } finally {
    for (const descriptor of theirs) posix.close(descriptor);
  }
  const [stdinEnd, stderrEnd, messagesEnd] = ours as [number, number, number];
  const messages = new Socket({ fd: messagesEnd, readable: true, writable: false });
  const stdin = new Socket({ fd: stdinEnd, readable: false, writable: true });
  const stderr = new Socket({ fd: stderrEnd, readable: true, writable: false });
  const { exited, isOver, lookNowAndThen } = reaped(posix, pid, messages);
  return {
    pid,
    stdin,
    stderr,
    messages,
    exited,
    keepAlive: (keeps) => {
      keepStreams([stdin, stderr, messages], keeps);
      lookNowAndThen(keeps);
    },
    // Once it has been reaped, its number may be another process's.
    kill: (signal) => {
      if (!isOver()) process.kill(pid, signal);
    },
  };
}

function keepStreams(streams: readonly Socket[], keep: boolean): void {
  for (const stream of streams) {
    if (keep) stream.ref();
    else stream.unref();
  }
}

/** Looks for the process's end: at once when it has closed its messages, and now and then if something keeps them open. */
function reaped(posix: PosixSpawn, pid: number, messages: Readable) {
  const { promise: exited, resolve } = deferred<ProcessExit>();
  let over = false;
  let timer: NodeJS.Timeout | undefined;
  const look = (againMs: number) => {
    clearTimeout(timer);
    if (over) return;
    const end = posix.reap(pid);
    if (end === null) {
      timer = setTimeout(look, againMs, againMs);
      return;
    }
    over = true;
    resolve(end);
  };
  const lookNowAndThen = (wanted: boolean) => {
    clearTimeout(timer);
    if (wanted && !over) timer = setTimeout(look, LOOK_MS, LOOK_MS);
  };
  lookNowAndThen(true);
  messages.once('close', () => look(LOOK_SOON_MS));
  return { exited, isOver: () => over, lookNowAndThen };
}

function startWithNode({ file, args, env }: ChildRequest): Promise<StartedChild> {
  const child = spawn(file, args, {
    env,
    stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
    windowsHide: true,
  });
  const { promise: exited, resolve: exit } = deferred<ProcessExit>();
  child.once('exit', (exitCode, signal) => {
    exit(signal === null ? { exitCode: exitCode ?? 0 } : { signal });
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('spawn', () => {
      // From here on an error is that of a signal that could not be sent, which `kill` returns as well.
      child.off('error', reject).on('error', () => undefined);
      const { pid = -1 } = child;
      // Pipes were asked for.
      const [stdin, , stderr, messages] = child.stdio as unknown as [Socket, null, Socket, Socket];
      const kill = (signal: NodeJS.Signals) => void child.kill(signal);
      const keepAlive = (keeps: boolean) => {
        keepStreams([stdin, stderr, messages], keeps);
        if (keeps) child.ref();
        else child.unref();
      };
      resolve({ pid, stdin, stderr, messages, exited, kill, keepAlive });
    });
  });
}
