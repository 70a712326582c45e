/**
 * Warnings that a test is about: the test receives them, and Node does not print them. All others
 * are printed as ever.
 */

import type { ExecutionContext } from 'ava';
import { eventually } from './polling.js';

type WarningListener = (warning: Error) => void;

interface Capture {
  readonly wanted: (warning: Error) => boolean;
  readonly warnings: Error[];
}

const captures = new Set<Capture>();

// Node prints warnings in an ordinary listener. It has to go for ours to decide what is printed.
const printing = process.listeners('warning') as WarningListener[];

function deliver(warning: Error): void {
  const takers = [...captures].filter(({ wanted }) => wanted(warning));
  for (const { warnings } of takers) warnings.push(warning);
  if (takers.length > 0) return;
  for (const print of printing) print.call(process, warning);
}

for (const print of printing) process.off('warning', print);
process.on('warning', deliver);

export interface CapturedWarnings {
  /**
   * In the order in which they were emitted. Concurrent tests that want the same warning all
   * receive it.
   */
  readonly warnings: readonly Error[];
  /** The first warning, once there is one. */
  first(): Promise<Error>;
}

/**
 * Captures the warnings that `wanted` accepts until the test is over. Call it before whatever may
 * emit them during the test's teardown, because teardowns run in reverse order.
 */
export function captureWarnings(
  t: ExecutionContext,
  wanted: (warning: Error) => boolean,
): CapturedWarnings {
  const capture: Capture = { wanted, warnings: [] };
  captures.add(capture);
  t.teardown(async () => {
    // Warnings are emitted on a later tick than the call of `emitWarning`.
    await new Promise(setImmediate);
    captures.delete(capture);
  });
  const { warnings } = capture;
  return {
    warnings,
    first: async () => {
      await eventually(
        () => warnings.length,
        (length) => length > 0,
        'a warning',
      );
      return warnings[0] as Error;
    },
  };
}
