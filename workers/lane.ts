/**
 * A lane: the one Piscina task of a worker thread. Waits to be told what to open, loads the library, says so, serves
 * requests from the ring until told to leave, unloads, returns.
 *
 * A thread that is terminated inside koffi takes the process down, so koffi is used only between
 * `enterCritical` and `leaveCritical`. The bundle imports it before anything below runs; the host has
 * called `guardLane` before that.
 */

import type { LaneMessage, LaneStart, LaneTask } from '../src/lane-protocol.js';
import { enterLaneThread } from '../src/lane-threads.js';
import { NOTHING, RingConsumer } from '../src/ring/consumer.js';
import { CallFrame } from './call-frame.js';
import { noteCallMemory } from './call-memory.js';
import { NativeCall } from './native-call.js';
import { ABI_VERSION, LibraryRefused, type NativeLibrary, NativeMemory } from './native-library.js';
import { keepEntered, openLibrary, shimMaker } from './open-library.js';
import { awaitOrder } from './order.js';
import { ResponseWindow, reserveWindow } from './response-window.js';
import { Server } from './server.js';
import { Wear } from './wear.js';

export default async function lane(start: LaneStart): Promise<void> {
  const { port } = start;
  const tell = (message: LaneMessage): void => port.postMessage(message);
  const ring = new RingConsumer(start.memory, start.shape, start.lane, () => tell(null));

  enterLaneThread(start.laneThreads);
  // From the hand-over to here, koffi was being imported.
  ring.leaveCritical();
  const order = awaitOrder(ring, port);
  if (order === null) return port.close();
  const task: LaneTask = { ...start, ...order };
  ring.enterCritical();
  const memory = new NativeMemory(task.stackBytes);
  noteCallMemory(memory, task.stackBytes, task.callMemory);
  const { plan } = task;
  const makeShim = await shimMaker(plan);
  const library = open(() => openLibrary(plan, makeShim), ring, tell);
  if (library === null) return port.close();
  try {
    const frame = new CallFrame(memory, ABI_VERSION);
    const window = new ResponseWindow(memory, frame, reserveWindow(task.maxPayloadBytes));
    const call = new NativeCall(memory, library, frame, window, task.maxPayloadBytes);
    const server = new Server(memory, call, ring, task);
    const ready = !ring.leaving && ring.initialiseOnce(() => initialise(call, tell));
    if (ready) tell({ type: 'ready', info: library.info() });
    ring.leaveCritical();
    if (ready) serve(ring, server, new Wear(task.recycleAfterRequests, tell));
  } finally {
    ring.enterCritical();
    // The last to let go still has the library mapped: shutting down happens before anyone's last unload.
    if (ring.letGo()) {
      library.shutDown();
      const libraries = keepEntered(plan, task);
      if (libraries.length > 0) tell({ type: 'kept', libraries });
      // Only now may another lane have the library start threads again.
      ring.closed();
    }
    library.unload();
    ring.leaveCritical();
  }
  port.close();
}

function serve(ring: RingConsumer, server: Server, wear: Wear): void {
  while (!ring.leaving) {
    const slot = ring.take();
    if (slot === NOTHING) {
      server.readMail();
      ring.park(server.mailRead);
    } else {
      server.serve(slot);
      wear.served();
    }
  }
}

/** The library, held by this lane, or null after the reason has been told. */
function open(
  openIt: () => NativeLibrary,
  ring: RingConsumer,
  tell: (message: LaneMessage) => void,
): NativeLibrary | null {
  try {
    const library = openIt();
    ring.hold();
    return library;
  } catch (error) {
    if (!(error instanceof LibraryRefused)) throw error;
    tell({ type: 'refused', failure: error.failure });
    ring.leaveCritical();
    return null;
  }
}

/** Runs `handler_init` and tells why if it refuses. */
function initialise(call: NativeCall, tell: (message: LaneMessage) => void): boolean {
  const code = call.initialise();
  if (code === 0) return true;
  tell({ type: 'refused', failure: { kind: 'init-failed', code, message: call.readMessage() } });
  return false;
}
