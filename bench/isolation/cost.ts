/** What isolation costs while nothing goes wrong: time for each request, start-up, memory. */

import type { Contender } from '../contenders/contender.js';
import { alone, throughput } from '../harness/closed-loop.js';
import { childProcesses, residentMemory, settleMemory } from '../harness/process-state.js';
import type { Measurement, Mode } from '../harness/question.js';
import { makeRequest } from '../harness/requests.js';
import { untilLoaded } from './lanes.js';

export const REQUEST_BYTES = 128;
export const LARGE_BYTES = 65_536;
export const OUTSTANDING = 64;
/** Few: what is asked is how fast bytes move. */
export const LARGE_OUTSTANDING = 4;

/** For memory, each lane has served so many 4 KiB requests. */
export const WARM_REQUESTS = 100;
const WARM_BYTES = 4096;
const LOAD_LIMIT_MS = 10_000;

export async function speed(contender: Contender, mode: Mode): Promise<Measurement> {
  const durationMs = { full: 250, short: 100, quick: 40 }[mode];
  const request = makeRequest(REQUEST_BYTES);
  const { p50Us, p99Us } = await alone(contender, { request, durationMs });
  const rate = async (bytes: number, outstanding: number) =>
    (await throughput(contender, { request: makeRequest(bytes), outstanding, durationMs }))
      .perSecond;
  return {
    aloneP50Us: p50Us,
    aloneP99Us: p99Us,
    perSecond1: await rate(REQUEST_BYTES, 1),
    perSecond: await rate(REQUEST_BYTES, OUTSTANDING),
    perSecondLarge: await rate(LARGE_BYTES, LARGE_OUTSTANDING),
  };
}

/** Start-up until the first answer, and the memory of this process and its children when all lanes have served. */
export async function lanesOf(
  start: () => Promise<Contender>,
  lanes: number,
  inProcesses: boolean,
): Promise<Measurement> {
  const startedMs = performance.now();
  const contender = await start();
  const startMs = performance.now() - startedMs;
  if (inProcesses && !(await untilLoaded(lanes, LOAD_LIMIT_MS))) {
    throw new Error(`not all of ${lanes} processes have loaded the library in ${LOAD_LIMIT_MS} ms`);
  }
  // At the same time, so that every lane has its share.
  const request = makeRequest(WARM_BYTES, 100);
  const all = Array.from({ length: WARM_REQUESTS * lanes }, () => contender.call(request));
  await Promise.all(all);
  await settleMemory();
  const memories = [process.pid, ...childProcesses()].map(residentMemory);
  const sum = (key: 'rssKiB' | 'privateKiB') =>
    memories.reduce((total, memory) => total + memory[key], 0);
  const measurement = { startMs, rssKiB: sum('rssKiB'), privateKiB: sum('privateKiB') };
  await contender.close();
  return measurement;
}
