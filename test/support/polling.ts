/** Waiting for something that a test cannot be told of: polling with a deadline, never a pause that is hoped to suffice. */

import { setTimeout as pause } from 'node:timers/promises';
import { inspect } from 'node:util';

/** Only a test that fails waits so long. */
const DEADLINE_MS = 60_000;
const POLL_MS = 2;

/** Polls until `wanted` accepts what `read` gives, and returns it; fails with the last value seen. */
export async function eventually<T>(
  read: () => T | Promise<T>,
  wanted: (value: T) => boolean,
  what = String(wanted),
): Promise<T> {
  const endMs = performance.now() + DEADLINE_MS;
  for (;;) {
    const value = await read();
    if (wanted(value)) return value;
    if (performance.now() > endMs) {
      throw new Error(`still ${inspect(value)} after ${DEADLINE_MS} ms; wanted: ${what}`);
    }
    await pause(POLL_MS);
  }
}

/** Whether a promise has settled. Lets everything run that is due. */
export async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = () => {
    settled = true;
  };
  promise.then(settle, settle);
  await turns(5);
  return settled;
}

/** Lets the event loop go round. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}

/** Blocks this thread, event loop and all, until `condition` holds; fails if it never does. */
export function blockUntil(condition: () => boolean): void {
  const endMs = performance.now() + DEADLINE_MS;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`never came true: ${condition}`);
  }
}

/** Blocks this thread, event loop and all, for so long. */
export function blockMainThread(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
