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
import type { LoadPlan } from '../src/library/load-plan.js';
import { NOTHING, RingConsumer } from '../src/ring/consumer.js';
import type { NativeCall } from './native-call.js';
import type { NativeLibrary } from './native-library.js';
import { awaitOrder } from './order.js';
import { ResponseWindow, reserveWindow } from './response-window.js';
import { Server } from './server.js';
import { Wear } from './wear.js';

type NativeModule = typeof import('./native-library.js');

export default async function lane(start: LaneStart): Promise<void> {
  const { port } = start;
  const tell = (message: LaneMessage): void => port.postMessage(message);
  const ring = new RingConsumer(start.memory, start.shape, start.lane, () => tell(null));

  enterLaneThread(start.laneThreads);
  ring.enterCritical();
  // Parts of this bundle: nothing is read from files here.
  const [native, { CallFrame }, { NativeCall }, { noteCallMemory }] = await Promise.all([
    import('./native-library.js'),
    import('./call-frame.js'),
    import('./native-call.js'),
    import('./call-memory.js'),
  ]);
  ring.leaveCritical();
  const order = awaitOrder(ring, port);
  if (order === null) return port.close();
  const task: LaneTask = { ...start, ...order };
  ring.enterCritical();
  const memory = new native.NativeMemory(task.stackBytes);
  noteCallMemory(memory, task.stackBytes, task.callMemory);
  const { plan } = task;
  const opening = isPlain(plan) ? null : await import('./open-library.js');
  const makeShim = (await opening?.shimMaker(plan)) ?? null;
  const openLibrary = () =>
    opening === null ? new native.NativeLibrary(plan) : opening.openLibrary(plan, makeShim);
  const library = open(native, openLibrary, ring, tell);
  if (library === null) return port.close();
  try {
    const frame = new CallFrame(memory, native.ABI_VERSION);
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
      const libraries = opening?.keepEntered(plan, task) ?? [];
      if (libraries.length > 0) tell({ type: 'kept', libraries });
      // Only now may another lane have the library start threads again.
      ring.closed();
    }
    library.unload();
    ring.leaveCritical();
  }
  port.close();
}

/** Whether the library is only opened and closed, so that `open-library.ts` need not run. */
function isPlain({ runtimeShim, loadFirst, keepMapped, mayStartThreads }: LoadPlan): boolean {
  return (
    runtimeShim === null && loadFirst.length === 0 && keepMapped.length === 0 && !mayStartThreads
  );
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
  native: NativeModule,
  openLibrary: () => NativeLibrary,
  ring: RingConsumer,
  tell: (message: LaneMessage) => void,
): NativeLibrary | null {
  try {
    const library = openLibrary();
    ring.hold();
    return library;
  } catch (error) {
    if (!(error instanceof native.LibraryRefused)) throw error;
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
