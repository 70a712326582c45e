/**
 * A lane's process, as its lane sees it: started, waited for, ended, and never left behind.
 */

import { strict as assert } from 'node:assert';
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { HandlerInfo, LaneTask, LoadFailure, ProcessEnd } from '../../src/lane-protocol.js';
import { messageOf } from '../../src/library/system-errors.js';
import { close } from '../c-functions.js';
import type { NativeMemory } from '../native-library.js';
import { pipe, reap, startProcess } from '../posix-spawn.js';
import { Channel } from './channel.js';
import { DOUBLE, type LaneMemory, laneMemoryLayout, mapLaneMemory, TURN } from './lane-memory.js';
import { createMemory, socketPair, unmapMemory } from './posix.js';
import type { ProgramTask } from './program-task.js';

// Relative to dist/workers/bridge.js: the build bundles this module into it, and there
// `import.meta.url` is the bundle's.
const program = fileURLToPath(new URL('./process/program.js', import.meta.url));

/** How often it is looked whether a process that should end has ended. */
const LOOK_MS = 1;
/** The same for one that should not, while its answer is waited for. */
const SILENCE_MS = 100;

const decoder = new TextDecoder();

/** The process has put something into the shared memory that makes no sense. */
export class ProtocolError extends Error {}

export class LaneProcess {
  readonly channel: Channel;
  readonly memory: LaneMemory;
  /** 0 if it could not be started. */
  readonly pid: number;
  readonly #native: NativeMemory;
  readonly #socket: number;
  /** /proc/<pid>/statm, or null where there is none. */
  readonly #statm: number | null;
  readonly #hooks: LaneProcessHooks;
  /** Null while it runs, as far as it was looked. */
  #end: ProcessEnd | null = null;

  constructor(task: LaneProcessTask, native: NativeMemory, hooks: LaneProcessHooks) {
    if (task.process === null) throw new TypeError('the task is for a thread');
    this.#native = native;
    this.#hooks = hooks;
    const { name, cancelFlags, env } = task.process;
    const { totalBytes } = laneMemoryLayout(task.maxPayloadBytes);
    const memoryFd = createMemory('changeover-lane', totalBytes);
    // The process has its own once it runs.
    const opened = [memoryFd];
    let socket: number | null = null;
    try {
      this.memory = mapLaneMemory(native, memoryFd, task.maxPayloadBytes);
      const [near, far] = socketPair(SILENCE_MS);
      opened.push(far);
      socket = near;
      const [lifelineEnd, lifeline] = pipe();
      opened.push(lifelineEnd);
      hooks.noteLifeline(lifeline);
      const hasEnded = () => this.#look() !== null;
      this.channel = new Channel('host', this.memory.words, near, hasEnded);
      const programTask: ProgramTask = {
        lane: name,
        hostPid: process.pid,
        plan: task.plan,
        maxPayloadBytes: task.maxPayloadBytes,
        stackBytes: task.stackBytes,
        cancelFlagsBytes: cancelFlags.byteLength,
      };
      // In the order of program-task.ts. Output of the handler goes where a thread's would.
      const descriptors = [null, 1, 2, far, memoryFd, cancelFlags.descriptor, lifelineEnd];
      this.pid = this.#start(programTask, env, descriptors);
      // Before it is looked at: it may have ended by then, and its id be another process's.
      hooks.started(this.pid);
    } catch (error) {
      if (socket !== null) close(socket);
      this.#cutLifeline();
      throw error;
    } finally {
      for (const descriptor of opened) close(descriptor);
    }
    this.#socket = socket;
    this.#statm = openStatm(this.pid);
    // Also binds what looking needs, while this thread must not be terminated anyway.
    this.#look();
  }

  /** Returns its id; 0 if there can be no process, which is then how it ended. */
  #start(
    task: ProgramTask,
    env: Readonly<Record<string, string>>,
    descriptors: readonly (number | null)[],
  ): number {
    try {
      return startProcess({
        file: process.execPath,
        // One thread of V8's own is plenty, and the process is there a few milliseconds earlier.
        args: ['--v8-pool-size=1', program, JSON.stringify(task)],
        env,
        descriptors,
      });
    } catch (error) {
      this.#end = { exitCode: null, signal: null, reason: messageOf(error) };
      return 0;
    }
  }

  /**
   * Blocks until the library is loaded, and returns what it says of itself; or why it is refused.
   *
   * @throws {PeerGone} if the process ends before.
   */
  awaitReady(): { info: HandlerInfo } | { failure: LoadFailure } {
    const turn = this.channel.take();
    const said: unknown = JSON.parse(this.readText());
    if (turn === TURN.READY) return { info: said as HandlerInfo };
    if (turn === TURN.REFUSED) return { failure: said as LoadFailure };
    throw new ProtocolError(`it answered with turn ${turn} before it was asked`);
  }

  /** The text that the process has left where responses go. */
  readText(): string {
    const { layout, bytes, doubles } = this.memory;
    const length = doubles[DOUBLE.RESPONSE_LENGTH] ?? 0;
    if (!(length >= 0 && length <= layout.responseBytes)) {
      throw new ProtocolError(`it says that ${length} bytes are in its memory`);
    }
    return decoder.decode(bytes.slice(layout.responseAt, layout.responseAt + length));
  }

  /** Bytes it has resident, shared memory included; 0 once it has ended; undefined where that cannot be told. */
  residentBytes(): number | undefined {
    if (this.#statm === null) return undefined;
    const text = Buffer.alloc(128);
    try {
      const length = readSync(this.#statm, text, 0, text.length, 0);
      // Columns: proc_pid_statm(5). A process that has ended and was not waited for has zeros.
      return Number(text.toString('latin1', 0, length).split(' ')[1]) * this.#native.pageBytes;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return 0;
      throw error;
    }
  }

  /** Asks it to shut the library down and end, and kills it if that takes longer than `timeoutMs`. */
  async stop(timeoutMs: number): Promise<ProcessEnd> {
    this.channel.pass(TURN.STOP);
    const end = await this.#ended(performance.now() + timeoutMs);
    if (end !== null) return end;
    return {
      ...(await this.kill()),
      reason: `it had not shut down ${Math.round(timeoutMs)} ms after it was asked to`,
    };
  }

  /** Ends it whatever it does. What it has died of before is what is reported. */
  async kill(): Promise<ProcessEnd> {
    // Until it has been looked at, its id is its own, also if it has ended.
    if (this.#look() === null) {
      try {
        process.kill(this.pid, 'SIGKILL');
      } catch {
        // This process has become another user's since.
        this.#cutLifeline();
      }
    }
    const end = await this.#ended(Number.POSITIVE_INFINITY);
    assert(end !== null, 'what is killed ends');
    return end;
  }

  /** How it ended; null if it goes on until `deadlineMs`. */
  async #ended(deadlineMs: number): Promise<ProcessEnd | null> {
    for (;;) {
      const end = this.#look();
      if (end !== null || performance.now() > deadlineMs) return end;
      await delay(LOOK_MS);
    }
  }

  #look(): ProcessEnd | null {
    if (this.#end !== null) return this.#end;
    const exit = reap(this.pid);
    if (exit === null) return null;
    this.#hooks.ended();
    this.#end = { exitCode: null, signal: null, reason: null, ...exit };
    return this.#end;
  }

  #cutLifeline(): void {
    const descriptor = this.#hooks.takeLifeline();
    if (descriptor !== -1) close(descriptor);
  }

  /** Gives back what it took here. The process must have ended. */
  release(): void {
    this.#cutLifeline();
    close(this.#socket);
    if (this.#statm !== null) closeSync(this.#statm);
    unmapMemory(this.memory.address, this.memory.layout.totalBytes);
  }
}

/** What of a lane's task its process is about. */
type LaneProcessTask = Pick<LaneTask, 'process' | 'plan' | 'maxPayloadBytes' | 'stackBytes'>;

/** What a lane keeps of its process where the host finds it. */
export interface LaneProcessHooks {
  /** Its process id; 0 if it could not be started. */
  started(pid: number): void;
  /** Its process id may be used again. */
  ended(): void;
  /** A descriptor: closing it ends the process. */
  noteLifeline(descriptor: number): void;
  /** That descriptor, to be closed; -1 if somebody else has taken it. */
  takeLifeline(): number;
}

function openStatm(pid: number): number | null {
  if (pid === 0) return null;
  try {
    return openSync(`/proc/${pid}/statm`, 'r');
  } catch {
    return null; // No /proc here, or the process is gone already, which is found out soon enough.
  }
}
