/** How requests and operations ended, as values that tests compare. */

import { inspect } from 'node:util';
import type { HandlerError, OutcomeTotals } from '../../src/index.js';

/** Of a version that has had no request. */
export const NO_TOTALS: Readonly<OutcomeTotals> = {
  succeeded: 0,
  failed: 0,
  badResponse: 0,
  timedOutQueued: 0,
  timedOutRunning: 0,
  aborted: 0,
  dropped: 0,
  laneExited: 0,
  shed: 0,
};

/** What a promise is rejected with; fails if it is not. Attached at once, so that no rejection goes unhandled. */
export function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (value) => {
      throw new Error(`expected a rejection, got ${inspect(value)}`);
    },
    (reason: unknown) => reason,
  );
}

/** The code and the named fields of a rejection. */
export async function failure<F extends string>(
  promise: Promise<unknown>,
  ...fields: F[]
): Promise<Record<string, unknown>> {
  return fieldsOf(await rejection(promise), ...fields);
}

export function fieldsOf(reason: unknown, ...fields: string[]): Record<string, unknown> {
  const error = reason as HandlerError & Record<string, unknown>;
  const code: unknown = error?.code ?? `no code: ${String(reason)}`;
  return Object.fromEntries([['code', code], ...fields.map((field) => [field, error[field]])]);
}

/** The text that a promise is resolved with, or the code of the error that it is rejected with. */
export async function outcome(promise: Promise<{ text(): string }>): Promise<string> {
  try {
    return (await promise).text();
  } catch (error) {
    return String((error as { code?: unknown }).code ?? error);
  }
}
