/**
 * A lane's process, as its lane sees it: started, waited for, ended, and never left behind.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { HandlerInfo, LaneTask, LoadFailure, ProcessEnd } from '../../src/lane-protocol.js';
import { childEnv } from '../../src/preflight/env.js';
import type { NativeMemory } from '../native-library.js';
import { Channel } from './channel.js';
import { DOUBLE, type LaneMemory, laneMemoryLayout, TURN } from './lane-memory.js';
import * as posix from './posix.js';
import type { ProgramTask } from './program-task.js';

const program = fileURLToPath(new URL('./program.js', import.meta.url));

const decoder = new TextDecoder();

/** The process has put something into the shared memory that makes no sense. */
export class ProtocolError extends Error {}

export class LaneProcess {
  readonly channel: Channel;
  readonly memory: LaneMemory;
  readonly #child: ChildProcess;
  readonly #socket: number;
  /** /proc/<pid>/statm, or null where there is none. */
  readonly #statm: number | null;
  readonly #ended: Promise<ProcessEnd>;

  /** Starts it. `onEnd` is called as soon as its process id may be used again. */
  constructor(task: LaneTask, native: NativeMemory, onEnd: () => void) {
    if (task.process === null) throw new TypeError('the task is for a thread');
    const layout = laneMemoryLayout(task.maxPayloadBytes);
    const { name, cancelFlags, env } = task.process;
    const memoryFd = posix.createMemory('changeover-lane', layout.totalBytes);
    // The process has its own once it runs.
    const opened = [memoryFd];
    let socket: number | null = null;
    try {
      const { bytes, address } = posix.mapMemory(native, memoryFd, layout.totalBytes);
      this.memory = {
        layout,
        bytes,
        address,
        words: new Int32Array(bytes.buffer, 0, layout.contextAt / 4),
        doubles: new Float64Array(bytes.buffer, 0, layout.contextAt / 8),
      };
      const [near, far] = posix.socketPair();
      opened.push(far);
      socket = near;
      this.channel = new Channel('host', this.memory.words, near);
      const programTask: ProgramTask = {
        lane: name,
        hostPid: process.pid,
        libraryPath: task.libraryPath,
        maxPayloadBytes: task.maxPayloadBytes,
        stackBytes: task.stackBytes,
        cancelFlagsBytes: cancelFlags.byteLength,
      };
      this.#child = spawn(
        process.execPath,
        // One thread of V8's own is plenty, and the process is there a few milliseconds earlier.
        ['--v8-pool-size=1', program, JSON.stringify(programTask)],
        // In the order of program-task.ts. Output of the handler goes where a thread's would.
        {
          env: childEnv(env),
          stdio: ['ignore', 'inherit', 'inherit', far, memoryFd, cancelFlags.descriptor],
        },
      );
    } catch (error) {
      if (socket !== null) posix.close(socket);
      throw error;
    } finally {
      for (const descriptor of opened) posix.close(descriptor);
    }
    this.#socket = socket;
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', ({ message: reason }) => {
        // Of a process that runs, it would be that it cannot be killed.
        if (this.#child.pid === undefined) resolve({ exitCode: null, signal: null, reason });
      });
      this.#child.once('exit', (exitCode, signal) => {
        onEnd();
        resolve({ exitCode, signal, reason: null });
      });
    });
    this.#statm = openStatm(this.#child.pid);
  }

  /** 0 if it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
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
      return Number(text.toString('latin1', 0, length).split(' ')[1]) * posix.pageBytes();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return 0;
      throw error;
    }
  }

  /** Asks it to shut the library down and end, and kills it if that takes longer than `timeoutMs`. */
  async stop(timeoutMs: number): Promise<ProcessEnd> {
    this.channel.pass(TURN.STOP);
    const late = new AbortController();
    const timer = delay(timeoutMs, null, { signal: late.signal }).catch(() => null);
    const end = await Promise.race([this.#ended, timer]);
    late.abort();
    if (end !== null) return end;
    return {
      ...(await this.kill()),
      reason: `it had not shut down ${Math.round(timeoutMs)} ms after it was asked to`,
    };
  }

  /** Ends it whatever it does. What it has died of before is what is reported. */
  async kill(): Promise<ProcessEnd> {
    this.#child.kill('SIGKILL');
    return this.#ended;
  }

  /** Gives back what it took here. The process must have ended. */
  release(): void {
    posix.close(this.#socket);
    if (this.#statm !== null) closeSync(this.#statm);
    posix.unmapMemory(this.memory.address, this.memory.layout.totalBytes);
  }
}

function openStatm(pid: number | undefined): number | null {
  if (pid === undefined) return null;
  try {
    return openSync(`/proc/${pid}/statm`, 'r');
  } catch {
    return null; // No /proc here, or the process is gone already, which is found out soon enough.
  }
}
