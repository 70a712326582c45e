/** What a lane does before it has a library: it waits for its order. */

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import type { LaneOrder } from '../src/lane-protocol.js';
import type { RingConsumer } from '../src/ring/consumer.js';

/** Blocks until there is an order, which is the first message on the port; null if the lane is to leave instead. */
export function awaitOrder(ring: RingConsumer, port: MessagePort): LaneOrder | null {
  for (;;) {
    if (ring.leaving) return null;
    // Read first: what is announced after this ends the wait.
    const mailRead = ring.mail;
    const received = receiveMessageOnPort(port);
    if (received !== undefined) return received.message as LaneOrder;
    ring.park(mailRead);
  }
}
