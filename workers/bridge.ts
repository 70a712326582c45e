/**
 * A lane whose handler runs in a process of its own: the one Piscina task of a worker thread, as lane.ts is. Starts the process, says
 * when the library is loaded, hands it requests from the ring until told to leave, and sees it end.
 *
 * While a request runs, this thread blocks in reading a socket. What ends that is the answer or the end of the process; so who wants
 * the thread back kills the process.
 */

import type { LaneMessage, LaneStart, LaneTask, ProcessEnd } from '../src/lane-protocol.js';
import { enterLaneThread } from '../src/lane-threads.js';
import { messageOf } from '../src/library/system-errors.js';
import { NOTHING, RingConsumer } from '../src/ring/consumer.js';
import { noteCallMemory } from './call-memory.js';
import { NativeMemory } from './native-library.js';
import { awaitOrder } from './order.js';
import { PeerGone } from './process/channel.js';
import { LaneProcess } from './process/lane-process.js';
import { THREAD_ENDED_CODE } from './process/program-task.js';
import { RemoteCall } from './process/remote-call.js';
import { Server } from './server.js';
import { Wear } from './wear.js';

/** How often a lane without requests looks whether its process is still there. */
const IDLE_CHECK_MS = 1000;

export default async function bridge(start: LaneStart): Promise<void> {
  const { port } = start;
  const tell = (message: LaneMessage): void => port.postMessage(message);
  const ring = new RingConsumer(start.memory, start.shape, start.lane, () => tell(null));

  enterLaneThread(start.laneThreads);
  // From the hand-over to here, koffi was being imported.
  ring.leaveCritical();
  const order = awaitOrder(ring, port);
  if (order === null) return port.close();
  if (order.process === null) throw new TypeError('the order is for a thread');
  const task: LaneTask = { ...start, ...order };
  // Also while the process is being started: what is not noted yet, the host cannot kill.
  ring.enterCritical();
  const native = new NativeMemory(task.stackBytes);
  noteCallMemory(native, task.stackBytes, task.callMemory);
  const child = new LaneProcess(task, native, {
    started: (pid) => ring.noteProcess(pid),
    ended: () => ring.noteProcess(0),
    noteLifeline: (descriptor) => ring.noteLifeline(descriptor),
    takeLifeline: () => ring.takeLifeline(),
  });
  ring.leaveCritical();

  let failure: unknown = null;
  try {
    const call = new RemoteCall(native, child);
    const server = new Server(native, call, ring, task);
    // Noted first, then looked: either this sees that the lane is to leave, or the host sees whom to kill.
    if (ring.leaving) throw new PeerGone('the lane is to leave before its library is loaded');
    const said = child.awaitReady();
    if ('failure' in said) tell({ type: 'refused', failure: said.failure });
    else {
      tell({ type: 'ready', info: said.info });
      const wear = new Wear(task.recycleAfterRequests, tell);
      serve(ring, server, call, { child, wear, maxRssBytes: order.process.maxRssBytes });
    }
  } catch (error) {
    failure = error;
  }
  const end = await (failure === null ? child.stop(order.process.stopTimeoutMs) : child.kill());
  ring.enterCritical();
  child.release();
  ring.leaveCritical();
  if (failure !== null || !endedWell(end)) tell({ type: 'ended', end: explain(end, failure) });
  port.close();
  if (failure !== null) throw failure;
}

function serve(
  ring: RingConsumer,
  server: Server,
  call: RemoteCall,
  { child, wear, maxRssBytes }: { child: LaneProcess; wear: Wear; maxRssBytes: number },
): void {
  if (maxRssBytes !== Number.POSITIVE_INFINITY && child.residentBytes() === undefined) {
    throw new Error(
      'maxRssBytes cannot be kept: /proc, which tells what is resident, is not there',
    );
  }
  let checkedMs = performance.now();
  const check = () => {
    const residentBytes = child.residentBytes();
    if (residentBytes === 0) throw new PeerGone('the process has ended while it had no request');
    if (residentBytes !== undefined && residentBytes > maxRssBytes) wear.worn('memory');
    checkedMs = performance.now();
  };
  while (!ring.leaving) {
    const slot = ring.take();
    if (slot === NOTHING) {
      server.readMail();
      ring.park(server.mailRead, IDLE_CHECK_MS);
      if (performance.now() - checkedMs >= IDLE_CHECK_MS) check();
    } else {
      try {
        server.serve(slot);
      } catch (error) {
        // It died before it had this request, for want of memory for instance: another can have it.
        if (error instanceof PeerGone && !call.begun) ring.putBack(slot);
        throw error;
      }
      wear.served();
      if (maxRssBytes !== Number.POSITIVE_INFINITY) check();
    }
  }
}

function endedWell({ exitCode, reason }: ProcessEnd): boolean {
  return exitCode === 0 && reason === null;
}

function explain(end: ProcessEnd, failure: unknown): ProcessEnd {
  if (end.reason !== null) return end;
  if (end.exitCode === THREAD_ENDED_CODE) {
    return { ...end, reason: 'its main thread was ended, by pthread_exit' };
  }
  // What is the end of the connection is told by the end of the process.
  if (failure === null || failure instanceof PeerGone) return end;
  return { ...end, reason: messageOf(failure) };
}
