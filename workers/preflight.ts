/**
 * The pre-flight child: does to a library, step by step, all that the host will do to it, and says before each step what
 * comes next. If the library crashes, hangs or ends the process, the host knows by the last message where.
 *
 * Everything is synchronous: native code blocks this thread anyway, and no thread of Node's own starts in between, which would
 * look like one of the library's.
 */

import { readdirSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import type { LoadPlan } from '../src/library/load-plan.js';
import { listsFile } from '../src/library/mappings.js';
import { messageOf } from '../src/library/system-errors.js';
import {
  MESSAGES_FD,
  type PreflightMessage,
  type PreflightStep,
  type PreflightTask,
} from '../src/preflight/protocol.js';
import { contextBytes, STATUS } from '../src/ring/layout.js';
import { CallFrame } from './call-frame.js';
import { NativeCall } from './native-call.js';
import { ABI_VERSION, bindLifetime, LibraryRefused, NativeMemory } from './native-library.js';
import { openLibrary, type ShimMaker, shimMaker } from './open-library.js';
import { ResponseWindow, reserveWindow } from './response-window.js';
import { threadsInside } from './threads-inside.js';

const STDIN_FD = 0;
const CHUNK_BYTES = 64 * 1024;

const isLinux = process.platform === 'linux';

function tell(message: PreflightMessage): void {
  writeFileSync(MESSAGES_FD, `${JSON.stringify(message)}\n`);
}

function begin(step: PreflightStep): void {
  tell({ type: 'step', step, atMs: performance.now() });
}

/** Not up to the end of the input: a process that the host has forked may hold that open. */
function readTask(): { task: PreflightTask; body: Buffer } {
  let head = Buffer.alloc(0);
  while (!head.includes('\n')) {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    head = Buffer.concat([head, chunk.subarray(0, readSome(chunk))]);
  }
  const end = head.indexOf('\n');
  const task = JSON.parse(head.toString('utf8', 0, end)) as PreflightTask;
  const body = Buffer.alloc(task.bodyBytes);
  let filled = head.copy(body, 0, end + 1);
  while (filled < body.length) filled += readSome(body.subarray(filled));
  return { task, body };
}

function readSome(into: Uint8Array): number {
  const length = readSync(STDIN_FD, into);
  if (length === 0) throw new Error('the host has gone, or wants nothing to be tried');
  return length;
}

function run(task: PreflightTask, body: Buffer, makeShim: ShimMaker | null): void {
  // First of all, since koffi takes the size of the stack only before anything is loaded.
  const memory = new NativeMemory(task.stackBytes);
  bindLifetime(task.parentPid, task.lifetimeSeconds);
  const frame = new CallFrame(memory, ABI_VERSION);
  const window = new ResponseWindow(memory, frame, reserveWindow(task.maxPayloadBytes));
  const sinceSeconds = uptime();
  const descriptorsBefore = namesIn('/proc/self/fd');

  begin('open');
  const library = openLibrary(task.plan, makeShim, () => begin('abi'));
  begin('info');
  tell({ type: 'info', info: library.info() });
  const call = new NativeCall(memory, library, frame, window, task.maxPayloadBytes);
  begin('init');
  const code = call.initialise();
  if (code !== 0) {
    throw new LibraryRefused({ kind: 'init-failed', code, message: call.readMessage() });
  }
  if (task.selfTest !== null) {
    begin('self-test');
    selfTest(task.selfTest, body, task.maxPayloadBytes, memory, call);
  }
  begin('shutdown');
  library.shutDown();
  tell({ type: 'left', threads: threadsLeft(task.plan, sinceSeconds) });
  begin('unload');
  library.unload();
  const unloads = isLinux ? !isMapped(task.plan.libraryPath) : null;
  const descriptors = namesIn('/proc/self/fd');
  tell({ type: 'unloaded', unloads, descriptors: countNew(descriptors, descriptorsBefore) });
  begin('exit');
}

/** One request, as a lane would run it. */
function selfTest(
  lengths: NonNullable<PreflightTask['selfTest']>,
  body: Buffer,
  maxPayloadBytes: number,
  memory: NativeMemory,
  call: NativeCall,
): void {
  const { requestIdLength, metadataLength, requestLength } = lengths;
  // Memory of its own, aligned as the ring's is.
  const bytes = new Uint8Array(body.length + 1);
  bytes.set(body);
  const address = memory.addressOf(bytes);
  const never = new Uint8Array(Int32Array.BYTES_PER_ELEMENT);
  const startedMs = performance.now();
  call.run(
    0,
    address,
    requestIdLength,
    metadataLength,
    Number.POSITIVE_INFINITY,
    memory.addressOf(never),
    address + contextBytes(requestIdLength, metadataLength),
    requestLength,
  );
  const ranMs = performance.now() - startedMs;
  tell(outcomeOf(call, maxPayloadBytes, memory, ranMs));
  call.release();
}

function outcomeOf(
  call: NativeCall,
  maxPayloadBytes: number,
  memory: NativeMemory,
  ranMs: number,
): PreflightMessage {
  const { code: handlerCode, status, defect, length } = call;
  const failed = (message: string): PreflightMessage => ({
    type: 'self-test-failed',
    handlerCode,
    message,
  });
  if (handlerCode !== 0) return failed(call.readMessage());
  if (status === STATUS.INVALID_RESPONSE) return failed(`its response is ${defect}`);
  if (status === STATUS.RESPONSE_TOO_LARGE) {
    const said = length > maxPayloadBytes ? `has ${length} bytes` : 'is too large, it says';
    return failed(`its response ${said}, and maxPayloadBytes is ${maxPayloadBytes}`);
  }
  const response = new Uint8Array(length);
  call.copyResponse(memory.addressOf(response));
  return { type: 'response', bytes: Buffer.from(response.buffer).toString('base64'), ranMs };
}

/** The threads that are still in the library, or may be, and would crash the process when it is unmapped. */
function threadsLeft(
  { mayUnload: files, mayStartThreads }: LoadPlan,
  sinceSeconds: number,
): number | null {
  if (!isLinux) return null;
  if (!mayStartThreads) return 0;
  const { byFile, unknown } = threadsInside({ files, laneThreads: null, sinceSeconds });
  return [...byFile.values()].reduce((sum, count) => sum + count, unknown);
}

function namesIn(directory: string): Set<string> | null {
  return isLinux ? new Set(readdirSync(directory)) : null;
}

function countNew(names: Set<string> | null, before: Set<string> | null): number | null {
  if (names === null || before === null) return null;
  return [...names].filter((name) => !before.has(name)).length;
}

function isMapped(path: string): boolean {
  return listsFile(readFileSync('/proc/self/maps', 'utf8'), path);
}

try {
  const { task, body } = readTask();
  run(task, body, await shimMaker(task.plan));
} catch (error) {
  if (error instanceof LibraryRefused) tell({ type: 'refused', failure: error.failure });
  else tell({ type: 'failed', message: messageOf(error) });
}
// Not left to the event loop: a library may have put something there that keeps it alive.
process.exit(0);
