/**
 * The program of a lane process: loads the library and answers one request after the other until its lane says stop. A plain Node program;
 * what it is to load is its one argument, and its ends of socket and memory are the descriptors after standard error.
 */

import { closeSync } from 'node:fs';
import { uptime } from 'node:os';
import type { HandlerInfo, LoadFailure } from '../../src/lane-protocol.js';
import { STATUS } from '../../src/ring/layout.js';
import { CallFrame } from '../call-frame.js';
import { NativeCall } from '../native-call.js';
import {
  ABI_VERSION,
  bindExit,
  endWithParent,
  LibraryRefused,
  type NativeLibrary,
  NativeMemory,
} from '../native-library.js';
import { keepEntered, openLibrary, shimMaker } from '../open-library.js';
import { ResponseWindow, windowBytes } from '../response-window.js';
import { Channel, PeerGone } from './channel.js';
import { DOUBLE, mapLaneMemory, TURN, WORD } from './lane-memory.js';
import * as posix from './posix.js';
import {
  CANCEL_FLAGS_FD,
  LIFELINE_FD,
  MEMORY_FD,
  type ProgramTask,
  SOCKET_FD,
  THREAD_ENDED_CODE,
} from './program-task.js';

/** The host cuts nothing off, so that is done here: what `handler_info` says has to fit the memory. */
const LONGEST_INFO = 1000;

const encoder = new TextEncoder();

const task = JSON.parse(process.argv[2] ?? '') as ProgramTask;
const native = new NativeMemory(task.stackBytes);
/** Nothing is shut down and no output awaited: the host is gone, or the library has been unloaded. */
const exit = bindExit();

// A terminal's Ctrl-C and a service manager's SIGTERM go to every process of the group. It is the host that decides when requests end.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
endWithParent(task.hostPid);
if (!posix.endWithPipe(LIFELINE_FD)) exit(1);
posix.closeInPrograms(LIFELINE_FD);
posix.closeInPrograms(SOCKET_FD);
posix.endWithThisThread(THREAD_ENDED_CODE);

const memory = mapLaneMemory(native, MEMORY_FD, task.maxPayloadBytes);
const cancelFlags = posix.mapForReading(CANCEL_FLAGS_FD, task.cancelFlagsBytes);
closeSync(MEMORY_FD);
closeSync(CANCEL_FLAGS_FD);
const makeShim = await shimMaker(task.plan);
const channel = new Channel('child', memory.words, SOCKET_FD);

try {
  run();
} catch (error) {
  if (!(error instanceof PeerGone)) throw error;
}
exit(0);

function run(): void {
  const sinceSeconds = uptime();
  const library = open();
  if (library === null) return;
  const { layout, bytes } = memory;
  // As large as a thread's, though there is more.
  const length = windowBytes(task.maxPayloadBytes);
  const room = bytes.subarray(layout.responseAt, layout.responseAt + length);
  const frame = new CallFrame(native, ABI_VERSION);
  const window = new ResponseWindow(native, frame, room);
  const call = new NativeCall(native, library, frame, window, task.maxPayloadBytes);
  const code = call.initialise();
  if (code === 0) {
    say(TURN.READY, cutInfo(library.info()));
    while (channel.take() === TURN.CALL) answer(call);
    library.shutDown();
    keepEntered(task.plan, { laneThreads: null, sinceSeconds });
  } else {
    refuse({ kind: 'init-failed', code, message: call.readMessage() });
  }
  library.unload();
}

function open(): NativeLibrary | null {
  try {
    return openLibrary(task.plan, makeShim);
  } catch (error) {
    if (!(error instanceof LibraryRefused)) throw error;
    refuse(error.failure);
    return null;
  }
}

function answer(call: NativeCall): void {
  const { words, doubles, layout, address } = memory;
  const slot = words[WORD.SLOT] ?? 0;
  channel.note(TURN.RUNNING);
  call.run(
    slot,
    address + layout.contextAt,
    words[WORD.REQUEST_ID_LENGTH] ?? 0,
    words[WORD.METADATA_LENGTH] ?? 0,
    doubles[DOUBLE.DEADLINE_MS] ?? 0,
    cancelFlags + slot * Int32Array.BYTES_PER_ELEMENT,
    address + layout.requestAt,
    (words[WORD.REQUEST_LENGTH] ?? 0) >>> 0,
  );
  words[WORD.STATUS] = call.status;
  words[WORD.CODE] = call.code;
  doubles[DOUBLE.RESPONSE_LENGTH] =
    call.status === STATUS.INVALID_RESPONSE ? write(call.defect) : call.length;
  if (call.status === STATUS.OK || call.status === STATUS.HANDLER_FAILED) {
    call.copyResponse(address + layout.responseAt);
  }
  call.release();
  channel.pass(TURN.ANSWERED);
}

function refuse(failure: LoadFailure): void {
  say(TURN.REFUSED, failure);
}

function say(turn: number, what: HandlerInfo | LoadFailure): void {
  memory.doubles[DOUBLE.RESPONSE_LENGTH] = write(JSON.stringify(what));
  channel.pass(turn);
}

function write(text: string): number {
  const { layout, bytes } = memory;
  return encoder.encodeInto(text, bytes.subarray(layout.responseAt)).written;
}

function cutInfo({ name, version, description }: HandlerInfo): HandlerInfo {
  const cut = (text: string | null) => text?.slice(0, LONGEST_INFO) ?? null;
  return { name: cut(name), version: cut(version), description: cut(description) };
}
