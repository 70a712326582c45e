/** Small helpers for promises. */

import pTimeout from 'p-timeout';

/** A promise and the two functions that settle it: `Promise.withResolvers`, which Node 20 lacks. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
}

export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((onValue, onReason) => {
    resolve = onValue;
    reject = onReason;
  });
  return { promise, resolve, reject };
}

/** Waits for `work`, but not longer than `timeoutMs`. Rejects only if `work` does. */
export async function settledWithin(work: Promise<unknown>, timeoutMs: number): Promise<void> {
  // p-timeout refuses 0, which here means: only if it is done already.
  await pTimeout(work, { milliseconds: Math.max(1, timeoutMs), fallback: () => undefined });
}

export interface TimeLimit {
  timeoutMs: number;
  signal: AbortSignal;
  /** The error if it takes longer. Made only then: an error is dear, and hardly any is needed. */
  late: () => Error;
}

/** What `work` comes to, in time. Rejects with the reason of `signal` once that is aborted. */
export function inTime<T>(work: Promise<T>, { timeoutMs, signal, late }: TimeLimit): Promise<T> {
  const fallback = () => {
    throw late();
  };
  return pTimeout(work, { milliseconds: timeoutMs, signal, fallback });
}
