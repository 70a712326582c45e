/** Loads the handler, sends the requests, swaps half-way if asked to, and takes everything down again. */

import { HandlerRegistry, type LeftBehind } from '../../src/index.js';
import type { Contender } from '../contenders/contender.js';
import { openLoop } from '../harness/open-loop.js';
import { closedLoop } from './callers.js';
import type { LoadOptions } from './options.js';
import { showProgress } from './progress.js';
import { type LoadReport, reportOf, type Swapped } from './report.js';
import { Tally } from './tally.js';

const ENDPOINT = 'load';
const MEMORY_EVERY_MS = 100;
/** Nothing waits for an answer when the registry is closed; what still runs then has been given up. */
const CLOSE_TIMEOUT_MS = 5000;
/** The machine is busy with the load itself. */
const LOAD_TIMEOUT_MS = 60_000;
/** However short the load, and however long the new version took to load: it is seen to serve. */
const SERVED_BY_NEW_MS = 500;
/** Longest that the first answer of the new version is waited for: on a busy machine it may come late. */
const FIRST_BY_NEW_MS = 10_000;

export interface LoadRun {
  report: LoadReport;
  /** Native code that still runs: the process cannot end by itself. */
  leftBehind: LeftBehind[];
}

/** @throws {HandlerError} if the library cannot be loaded */
export async function runLoad(options: LoadOptions): Promise<LoadRun> {
  const { threads, maxPayloadBytes, timeoutMs, metadata, warmUpMs, durationMs } = options;
  const registry = new HandlerRegistry({
    maxPayloadBytes,
    closeTimeoutMs: CLOSE_TIMEOUT_MS,
    loadTimeoutMs: LOAD_TIMEOUT_MS,
    ...(threads === undefined ? {} : { threads }),
    ...(timeoutMs === undefined ? {} : { defaultTimeoutMs: timeoutMs }),
  });
  let leftBehind: LeftBehind[] = [];
  try {
    const { version } = await registry.loadFrom(ENDPOINT, options.library);
    const versions = new Map<number, number>([[version, 0]]);
    const context = metadata === undefined ? undefined : { metadata };
    const contender: Contender = {
      call: async (request) => {
        const response = await registry.execute(ENDPOINT, context, request);
        versions.set(response.version, (versions.get(response.version) ?? 0) + 1);
        return response.bytes;
      },
      close: () => registry.close(),
    };
    const tally = new Tally(warmUpMs);
    const totalMs = warmUpMs + durationMs;
    const memory = watchMemory();
    const stopProgress = showProgress(tally, totalMs);
    const swapping = options.swapTo
      ? new HalfWaySwap(registry, options.swapTo, warmUpMs + durationMs / 2, tally)
      : undefined;
    const load = {
      warmUpMs,
      durationMs: totalMs,
      goesOn: () => swapping?.goesOn(versions.size > 1) === true,
      settled: tally.settled.bind(tally),
    };
    const loop =
      options.load.kind === 'rate'
        ? (
            await openLoop(contender, {
              ...load,
              ratePerSecond: options.load.perSecond,
              pacing: options.pacing,
              request: () => options.payload,
              check: false,
            })
          ).loop
        : await closedLoop(contender, {
            ...load,
            callers: options.load.callers,
            request: options.payload,
          });
    const swap = await swapping?.done;
    stopProgress();
    const rss = memory();
    ({ leftBehind } = await registry.close());
    return { report: reportOf({ options, tally, loop, versions, swap, rss }), leftBehind };
  } catch (error) {
    await registry.close();
    throw error;
  }
}

/** Swaps at this time from now. A swap that fails is part of the report. */
class HalfWaySwap {
  readonly done: Promise<Swapped>;
  /** When the new version has taken over, or cannot come any more. */
  #swappedMs = Number.POSITIVE_INFINITY;

  constructor(registry: HandlerRegistry, path: string, atMs: number, tally: Tally) {
    const startMs = performance.now();
    this.done = new Promise((resolve) => {
      setTimeout(() => {
        tally.swapAtMs = performance.now() - startMs;
        resolve(this.#swap(registry, path));
      }, atMs);
    });
  }

  /** Whether the load has to go on for the new version to serve for a while, and at least one request. */
  goesOn(hasServed: boolean): boolean {
    const sinceMs = performance.now() - this.#swappedMs;
    return sinceMs < (hasServed ? SERVED_BY_NEW_MS : FIRST_BY_NEW_MS);
  }

  async #swap(registry: HandlerRegistry, path: string): Promise<Swapped> {
    const askedMs = performance.now();
    try {
      const { drained } = await registry.swapGraceful(ENDPOINT, path);
      const activeMs = performance.now() - askedMs;
      this.#swappedMs = performance.now();
      return { activeMs, drain: await drained };
    } catch (error) {
      this.#swappedMs = Number.NEGATIVE_INFINITY;
      return { error: error instanceof Error ? error.message : String(error) };
    }
  }
}

/** Resident memory from now until the function that it returns is called, in bytes. */
function watchMemory() {
  const before = process.memoryUsage.rss();
  let highest = before;
  const timer = setInterval(() => {
    highest = Math.max(highest, process.memoryUsage.rss());
  }, MEMORY_EVERY_MS);
  return () => {
    clearInterval(timer);
    const after = process.memoryUsage.rss();
    return { before, highest: Math.max(highest, after), after };
  };
}
