/** The line on a terminal's stderr that says how the load goes. Anywhere else there is none. */

import { SingleBar } from 'cli-progress';
import { latencyReport } from '../harness/latency-report.js';
import { short } from '../harness/units.js';
import type { Tally } from './tally.js';

const REDRAW_MS = 200;

/** Draws until the function that it returns is called. */
export function showProgress(tally: Tally, totalMs: number): () => void {
  if (!process.stderr.isTTY) return () => undefined;
  const bar = new SingleBar({
    format: '{bar} {percentage}% | {rate}/s | p99 {p99} | {failed} failed',
    stream: process.stderr,
    barsize: 20,
    barCompleteChar: '\u2588',
    barIncompleteChar: '\u2591',
    clearOnComplete: true,
    hideCursor: true,
  });
  const startMs = performance.now();
  let last = { answered: 0, atMs: startMs };
  const payload = () => {
    const now = { answered: tally.answered, atMs: performance.now() };
    const ms = now.atMs - last.atMs;
    const rate = ms > 0 ? ((now.answered - last.answered) / ms) * 1000 : 0;
    last = now;
    const p99 = tally.measured === 0 ? '–' : short(latencyReport(tally.all).p99Us, 'us');
    return { rate: short(rate), p99, failed: tally.failed };
  };
  bar.start(totalMs, 0, payload());
  const redraw = setInterval(() => {
    bar.update(Math.min(totalMs, performance.now() - startMs), payload());
  }, REDRAW_MS);
  return () => {
    clearInterval(redraw);
    bar.stop();
  };
}
