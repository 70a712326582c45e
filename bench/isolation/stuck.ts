/** What a call costs that does not return: when its caller is told, when requests are answered again, when the CPU is back. */

import type { Contender } from '../contenders/contender.js';
import { childProcesses } from '../harness/process-state.js';
import type { Measurement, Mode } from '../harness/question.js';
import { makeRequest } from '../harness/requests.js';
import { untilEnded } from './lanes.js';
import { outcomeOf } from './outcome.js';

const REQUEST_BYTES = 128;
export const TIMEOUT_MS = 50;
/** What has not happened by then is taken as never happening. */
export const LIMIT_MS = { full: 3000, short: 3000, quick: 300 };
/** The call is over so long after that: a process with a thread in it could not end before. */
const LONGER_MS = 500;

/** One lane. A time that is missing: it did not happen. */
export async function stuck(contender: Contender, mode: Mode): Promise<Measurement> {
  const limitMs = LIMIT_MS[mode];
  const short = makeRequest(REQUEST_BYTES);
  const stuckIn = childProcesses();
  const startedMs = performance.now();
  const long = makeRequest(REQUEST_BYTES, (limitMs + LONGER_MS) * 1000);
  const call = contender.call(long, { timeoutMs: TIMEOUT_MS });
  const told = await outcomeOf(call, limitMs);
  const freeing = untilEnded(stuckIn, limitMs).then((ended) => ({
    // A thread has no process that could end: its call goes on until it returns.
    ended: ended && stuckIn.length > 0,
    atMs: performance.now(),
  }));
  const [next, freed] = await Promise.all([outcomeOf(contender.call(short), limitMs), freeing]);
  for (const pid of childProcesses()) process.kill(pid, 'SIGKILL');
  return {
    ...(told.answered === false ? { lateMs: told.atMs - startedMs - TIMEOUT_MS } : {}),
    ...(next.answered === true ? { nextMs: next.atMs - told.atMs } : {}),
    ...(freed.ended ? { cpuBackMs: freed.atMs - told.atMs } : {}),
  };
}
