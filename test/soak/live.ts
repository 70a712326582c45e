/** How the soak goes: a line that changes on a terminal's stderr, anywhere else a line now and then. */

import { drawBar } from '../../bench/harness/live-bar.js';
import { short } from '../../bench/harness/units.js';
import type { HandlerRegistry } from '../../src/index.js';
import type { Ledger } from './ledger.js';

const REDRAW_MS = 250;
const LINE_EVERY_MS = 10_000;

export interface Showing {
  /** The registry that is open now. */
  readonly registry: () => HandlerRegistry;
  readonly ledger: Ledger;
  readonly totalMs: number;
  readonly startedMs: number;
}

/** Shows it until the function that it returns is called. */
export function showLive(showing: Showing): () => void {
  return process.stderr.isTTY ? drawLine(showing) : writeLines(showing);
}

function writeLines(showing: Showing): () => void {
  const timer = setInterval(() => {
    const seconds = Math.round((performance.now() - showing.startedMs) / 1000);
    console.error(`soak: ${`${seconds}`.padStart(4)} s | ${state(showing)}`);
  }, LINE_EVERY_MS);
  return () => clearInterval(timer);
}

function drawLine(showing: Showing): () => void {
  return drawBar({
    format: '{state}',
    line: () => ({ state: state(showing) }),
    startedMs: showing.startedMs,
    totalMs: showing.totalMs,
    redrawMs: REDRAW_MS,
  });
}

function state({ registry, ledger }: Showing): string {
  const rss = short(process.memoryUsage.rss(), 'bytes');
  const versions = registry()
    .stats()
    .endpoints.flatMap(({ versions }) => versions);
  const processes = versions.reduce((sum, { processIds }) => sum + processIds.length, 0);
  return [
    `${ledger.sent} requests`,
    `${ledger.outstanding} outstanding`,
    `${ledger.changes.total} changes`,
    `${ledger.events.of('laneExited')} crashes`,
    `${processes} processes`,
    `${ledger.wrong} wrong`,
    `${ledger.problems.total} problems`,
    rss,
  ].join(' | ');
}
