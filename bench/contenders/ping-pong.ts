/** The limit of any two threads that talk: one number to and fro over shared memory, no FFI, nothing else. */

import { Worker } from 'node:worker_threads';

/** How a side waits: by sleeping until it is woken, or by looking without end. */
export type PingPongWait = 'sleep' | 'spin';

const PING = 0;
const PONG = 1;

/** Round trips as nanoseconds each, given to `record`, until `durationMs` is over. */
export async function pingPong(
  wait: PingPongWait,
  durationMs: number,
  record: (ns: number) => void,
): Promise<void> {
  const words = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(new URL('./ping-pong-worker.js', import.meta.url), {
    workerData: { words, wait },
  });
  await new Promise((resolve) => worker.once('online', resolve));
  let turn = 0;
  const roundTrip = () => {
    turn = (turn + 1) | 0;
    Atomics.store(words, PING, turn);
    if (wait === 'sleep') Atomics.notify(words, PING);
    while (Atomics.load(words, PONG) !== turn) {
      if (wait === 'sleep') Atomics.wait(words, PONG, turn - 1);
    }
  };
  const warmMs = performance.now() + durationMs / 2;
  while (performance.now() < warmMs) roundTrip();
  const endMs = performance.now() + durationMs;
  while (performance.now() < endMs) {
    const startedNs = process.hrtime.bigint();
    roundTrip();
    record(Number(process.hrtime.bigint() - startedNs));
  }
  // The worker answers for as long as it lives.
  await worker.terminate();
}
