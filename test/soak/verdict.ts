/** Whether a request ended as it may: the rules that the soak holds the engine to. */

import type { HandlerError, HandlerResponse, VersionState } from '../../src/index.js';
import type { Call } from './handlers.js';
import type { KnownVersion } from './versions.js';

/** A request that was sent, with what decides how it may end. */
export interface Sent {
  readonly call: Call;
  readonly version: KnownVersion;
  readonly number: number;
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
  const detail = code === 'ERR_HANDLER_DROPPED' ? error['reason'] : error?.['phase'];
  return {
    outcome: detail === undefined ? code : `${code} (${String(detail)})`,
    problem: isAllowed(sent, error, tookMs) ? null : `must not end with ${code}: ${error?.message}`,
  };
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
  const { call, timeoutMs } = sent;
  if (call.error !== undefined && hasFields(error, call.error)) return true;
  switch (error?.['code']) {
    case 'ERR_HANDLER_TIMEOUT':
      // Timers count whole milliseconds.
      return timeoutMs !== undefined && error['timeoutMs'] === timeoutMs && tookMs > timeoutMs - 1;
    case 'ERR_HANDLER_DROPPED':
      return sent.version.mayDrop.has(error['reason'] as never);
    case 'ERR_HANDLER_NOT_LOADED':
      return sent.state !== 'active';
    case 'ERR_HANDLER_QUEUE_FULL':
      return sent.floods && sent.inFlight >= Number(error['maxQueue']);
    case 'ERR_HANDLER_STUCK':
      return sent.sticks;
    default:
      return false;
  }
}

export function hasFields(error: unknown, fields: Readonly<Record<string, unknown>>): boolean {
  const found = error as Record<string, unknown> | null;
  return Object.entries(fields).every(([name, value]) => found?.[name] === value);
}
