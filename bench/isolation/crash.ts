/** What a crash costs: who is told when, when requests are answered again, and which are lost. */

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Contender } from '../contenders/contender.js';
import { type Measurement, type Mode, median, type Trial } from '../harness/question.js';
import { CRASH, makeRequest } from '../harness/requests.js';
import { untilLoaded } from './lanes.js';
import { outcomeOf } from './outcome.js';

const REQUEST_BYTES = 128;
/** Requests that are sent in the same moment as the one that crashes, right behind it. */
export const OTHERS = 20;
/** CPU time of each of them. */
export const OTHER_US = 1000;
/** What has not happened by then is taken as never happening. */
const LIMIT_MS = 2500;

/** Crashes, each when so many processes serve (of threads: none). A time that is missing: it did not happen. */
export async function crash(
  contender: Contender,
  processes: number,
  mode: Mode,
): Promise<Measurement> {
  const crashing = makeRequest(REQUEST_BYTES, CRASH);
  const other = makeRequest(REQUEST_BYTES, OTHER_US);
  const tolds: number[] = [];
  const nexts: number[] = [];
  const alls: number[] = [];
  let lost = 0;
  let stranded = 0;
  const crashes = mode === 'full' ? 3 : 1;
  for (let count = 0; count < crashes; count++) {
    if (!(await untilLoaded(processes, LIMIT_MS))) {
      throw new Error(
        `after ${count} crashes, not all of ${processes} processes serve within ${LIMIT_MS} ms`,
      );
    }
    const startedMs = performance.now();
    const telling = outcomeOf(contender.call(crashing), LIMIT_MS);
    const behind = Array.from({ length: OTHERS }, () => outcomeOf(contender.call(other), LIMIT_MS));
    const told = await telling;
    // Traffic goes on. Some pools look at what waits only when something new comes.
    const later = outcomeOf(contender.call(other), LIMIT_MS);
    const others = await Promise.all([...behind, later]);
    const answered = others.filter((each) => each.answered === true).map(({ atMs }) => atMs);
    lost += others.filter((each) => each.answered === false).length;
    stranded += others.filter((each) => each.answered === undefined).length;
    if (told.answered === false) tolds.push(told.atMs - startedMs);
    if (answered.length > 0) nexts.push(Math.min(...answered) - startedMs);
    if (answered.length === others.length) alls.push(Math.max(...answered) - startedMs);
    // It will be so every time, and each takes the limit.
    if (told.answered === undefined || answered.length < others.length) break;
  }
  return {
    lost,
    stranded,
    ...middle('toldMs', tolds),
    ...middle('nextMs', nexts),
    ...middle('allMs', alls),
  };
}

function middle(key: string, values: number[]): Measurement {
  return values.length === 0 ? {} : { [key]: median(values) };
}

/**
 * The same in a host of its own, because a crash in a thread is the host's.
 *
 * @throws {Error} if the host ends in another way.
 */
export async function crashOfHost(trial: Trial, mode: Mode): Promise<Measurement> {
  const script = fileURLToPath(new URL('../harness/trial.js', import.meta.url));
  const inHost = JSON.stringify({ ...trial, what: 'crash in this process' });
  const host = fork(script, ['isolation', inHost, mode], { stdio: 'ignore' });
  const [code, signal] = await once(host, 'exit');
  if (signal === 'SIGSEGV') return { endsHost: 1 };
  throw new Error(
    `a crash in a thread ends the host by SIGSEGV; this one ended with ${signal ?? code}`,
  );
}
