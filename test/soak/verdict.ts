/** Whether a request ended as it may: the rules that the soak holds the engine to. */

import type {
  HandlerError,
  HandlerResponse,
  Isolation,
  OutcomeTotals,
  VersionState,
} from '../../src/index.js';
import type { Call } from './handlers.js';
import type { KnownVersion } from './versions.js';

/** A request that was sent, with what decides how it may end. */
export interface Sent {
  readonly call: Call;
  readonly version: KnownVersion;
  readonly number: number;
  readonly isolation: Isolation;
  /** Of the version, when the request was sent. */
  readonly state: VersionState;
  /** Requests in flight there, this one not included. */
  readonly inFlight: number;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly abortedBefore: boolean;
  /** Whether so much is sent there at once that there may be no room. */
  readonly floods: boolean;
  /** Whether every lane there may be stuck. */
  readonly sticks: boolean;
  /** Crashes in a row after which requests are refused there. */
  readonly crashLoopAfter: number;
}

export type Ending = { readonly response: HandlerResponse } | { readonly reason: unknown };

export interface Verdict {
  /** What it is counted as. */
  readonly outcome: string;
  /** What is wrong with it. */
  readonly problem: string | null;
}

export function judge(sent: Sent, ending: Ending, tookMs: number): Verdict {
  if ('response' in ending) {
    return { outcome: 'answered', problem: problemOfResponse(sent, ending.response) };
  }
  const { reason } = ending;
  if (sent.signal?.aborted && reason === sent.signal.reason) {
    return { outcome: 'aborted by the caller', problem: null };
  }
  const error = reason as HandlerError & Record<string, unknown>;
  const code = String(error?.code ?? reason);
  const detail = detailOf(code, error);
  return {
    outcome: detail === undefined ? code : `${code} (${String(detail)})`,
    problem: isAllowed(sent, error, tookMs) ? null : `must not end with ${code}: ${error?.message}`,
  };
}

/** What tells the endings with one code apart. */
function detailOf(code: string, error: Record<string, unknown>): unknown {
  switch (code) {
    case 'ERR_HANDLER_DROPPED':
      return error['reason'];
    case 'ERR_HANDLER_LANE_EXITED':
      return error['signal'] ?? `exit code ${error['exitCode']}`;
    default:
      return error?.['phase'];
  }
}

/** Which of the version's counters it must have raised; null if it was not accepted and needs no counting. */
export function countedAs(
  { signal, abortedBefore }: Sent,
  ending: Ending,
  wasShed: boolean,
): keyof OutcomeTotals | null {
  if ('response' in ending) return 'succeeded';
  const { reason } = ending;
  if (signal?.aborted && reason === signal.reason) return abortedBefore ? null : 'aborted';
  if (wasShed) return 'shed';
  const { code, phase } = reason as { code?: unknown; phase?: unknown };
  switch (code) {
    case 'ERR_HANDLER_FAILED':
      return 'failed';
    case 'ERR_HANDLER_INVALID_RESPONSE':
    case 'ERR_HANDLER_RESPONSE_TOO_LARGE':
      return 'badResponse';
    case 'ERR_HANDLER_TIMEOUT':
      return phase === 'queued' ? 'timedOutQueued' : 'timedOutRunning';
    case 'ERR_HANDLER_DROPPED':
    case 'ERR_HANDLER_STUCK':
    case 'ERR_HANDLER_CRASH_LOOP':
      return 'dropped';
    case 'ERR_HANDLER_LANE_EXITED':
      return 'laneExited';
    default:
      return null;
  }
}

function problemOfResponse(sent: Sent, response: HandlerResponse): string | null {
  const { call, state, number } = sent;
  if (state !== 'active') return `a ${state} version has answered`;
  if (sent.abortedBefore) return 'answered although it was aborted before';
  if (response.version !== number) return `answered by version ${response.version}`;
  if (call.check === undefined) return `answered instead of ${String(call.error?.['code'])}`;
  return call.check(response);
}

function isAllowed(sent: Sent, error: Record<string, unknown>, tookMs: number): boolean {
  const { call, version } = sent;
  if (call.error !== undefined && hasFields(error, call.error)) return true;
  switch (error?.['code']) {
    case 'ERR_HANDLER_TIMEOUT':
      return isTrueTimeout(sent, error, tookMs);
    case 'ERR_HANDLER_DROPPED':
      return version.mayDrop.has(error['reason'] as never);
    case 'ERR_HANDLER_LANE_EXITED':
      // Whatever it was about to do.
      return version.killed > 0 && hasFields(error, { signal: 'SIGKILL', exitCode: null });
    case 'ERR_HANDLER_NOT_LOADED':
      return sent.state !== 'active';
    case 'ERR_HANDLER_QUEUE_FULL':
      return sent.floods && sent.inFlight >= Number(error['maxQueue']);
    case 'ERR_HANDLER_STUCK':
      return sent.sticks;
    case 'ERR_HANDLER_CRASH_LOOP': {
      // Each crash in the row takes a request that crashes or a process that was killed; a version without such is
      // never in a loop.
      const crashes = Number(error['crashes']);
      return crashes >= sent.crashLoopAfter && version.crashing >= crashes;
    }
    default:
      return false;
  }
}

function isTrueTimeout(sent: Sent, error: Record<string, unknown>, tookMs: number): boolean {
  const { timeoutMs, isolation } = sent;
  const cpuReclaimed = error['phase'] === 'queued' || isolation === 'process';
  if (timeoutMs === undefined || !hasFields(error, { timeoutMs, cpuReclaimed })) return false;
  // Timers count whole milliseconds.
  return tookMs > timeoutMs - 1;
}

export function hasFields(error: unknown, fields: Readonly<Record<string, unknown>>): boolean {
  const found = error as Record<string, unknown> | null;
  return Object.entries(fields).every(([name, value]) => found?.[name] === value);
}
