/** The line on a terminal's stderr that says how the load goes. Anywhere else there is none. */

import { latencyReport } from '../harness/latency-report.js';
import { drawBar } from '../harness/live-bar.js';
import { short } from '../harness/units.js';
import type { Tally } from './tally.js';

const REDRAW_MS = 200;

/** Draws until the function that it returns is called. */
export function showProgress(tally: Tally, totalMs: number): () => void {
  if (!process.stderr.isTTY) return () => undefined;
  const startedMs = performance.now();
  let last = { answered: 0, atMs: startedMs };
  const line = () => {
    const now = { answered: tally.answered, atMs: performance.now() };
    const ms = now.atMs - last.atMs;
    const rate = ms > 0 ? ((now.answered - last.answered) / ms) * 1000 : 0;
    last = now;
    const p99 = tally.measured === 0 ? '–' : short(latencyReport(tally.all).p99Us, 'us');
    return { rate: short(rate), p99, failed: tally.failed };
  };
  return drawBar({
    format: '{rate}/s | p99 {p99} | {failed} failed',
    line,
    startedMs,
    totalMs,
    redrawMs: REDRAW_MS,
  });
}
