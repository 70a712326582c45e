/**
 * What "the event loop is held for at most N ms" means, here, in docs/ and in issues: the longest
 * hold during an operation is at most N ms longer than the longest one in an equally long window
 * without the operation, in the same run.
 *
 * On a machine that is shared, any thread is stopped for milliseconds now and then, and the longer
 * one watches, the longer is the longest stop that one sees. So a hold during an operation says
 * little by itself; what it is compared with has to be as long as the operation.
 */

import { median } from './question.js';

/** How often the event loop is asked to turn. */
const TICK_MS = 1;

export interface Stretch {
  startMs: number;
  endMs: number;
}

/**
 * From now until the function that it returns is called: from each turn of the event loop to the
 * next one.
 */
export function watchHolds(): () => Stretch[] {
  const turns: Stretch[] = [];
  let lastMs = performance.now();
  const turn = () => {
    const nowMs = performance.now();
    turns.push({ startMs: lastMs, endMs: nowMs });
    lastMs = nowMs;
  };
  // Not monitorEventLoopDelay: it says how long the longest hold was, but not when, and does not
  // see the one that it is started or ended in.
  const timer = setInterval(turn, TICK_MS);
  return () => {
    clearInterval(timer);
    turn();
    return turns;
  };
}

export interface Held {
  /** The longest hold during the operation. */
  heldMs: number;
  /**
   * The longest one in a window without the operation that is as long: the median of all such
   * windows.
   */
  usualMs: number;
  /** What is meant by "held for". */
  moreMs: number;
}

/**
 * For how long an operation has held the event loop. `without` is cut into windows as long as the
 * operation; if it is shorter than the operation, it is one window, and what is usual is rather too
 * little.
 */
export function heldBy(operation: Stretch, without: Stretch, turns: readonly Stretch[]): Held {
  const lengthMs = operation.endMs - operation.startMs;
  const windows = Math.max(1, Math.floor((without.endMs - without.startMs) / lengthMs));
  const usual = Array.from({ length: windows }, (_, index) => {
    const startMs = without.startMs + index * lengthMs;
    return longestHold({ startMs, endMs: Math.min(startMs + lengthMs, without.endMs) }, turns);
  });
  const heldMs = longestHold(operation, turns);
  const usualMs = median(usual);
  return { heldMs, usualMs, moreMs: Math.max(0, heldMs - usualMs) };
}

/**
 * The longest time in the stretch that lies between two turns, beyond what lies there when the
 * event loop is free.
 */
function longestHold(stretch: Stretch, turns: readonly Stretch[]): number {
  let longestMs = 0;
  for (const turn of turns) {
    const ms = Math.min(turn.endMs, stretch.endMs) - Math.max(turn.startMs, stretch.startMs);
    longestMs = Math.max(longestMs, ms - TICK_MS);
  }
  return longestMs;
}
