/** The other side of the ping-pong. */

import { workerData } from 'node:worker_threads';
import type { PingPongWait } from './ping-pong.js';

const PING = 0;
const PONG = 1;
const { words, wait } = workerData as { words: Int32Array; wait: PingPongWait };

for (let seen = 0; ; ) {
  if (wait === 'sleep') Atomics.wait(words, PING, seen);
  const turn = Atomics.load(words, PING);
  if (turn === seen) continue;
  seen = turn;
  Atomics.store(words, PONG, turn);
  if (wait === 'sleep') Atomics.notify(words, PONG);
}
