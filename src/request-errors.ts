/** The words of the errors that a request can end with. Their classes are in errors.ts. */

import {
  CrashLoopError,
  DroppedError,
  type DropReason,
  EndpointStuckError,
  HandlerFailedError,
  InvalidResponseError,
  LaneExitedError,
  NotLoadedError,
  OutOfMemoryError,
  QueueFullError,
  type QueueLimit,
  ResponseTooLargeError,
  TimeoutError,
  type TimeoutPhase,
} from './errors.js';
import type { ProcessEnd } from './lane-protocol.js';
import { messageOf } from './library/system-errors.js';
import type { Isolation, ResolvedEndpointOptions } from './options.js';

/** Which version of which endpoint: goes into every error and event. */
export interface VersionIdentity {
  readonly endpoint: string;
  readonly version: number;
}

export function notServing(identity: VersionIdentity): NotLoadedError {
  return new NotLoadedError(
    `version ${identity.version} of '${identity.endpoint}' takes no more requests; execute on the endpoint to reach its active version`,
    identity,
  );
}

/**
 * Makes an error without a stack. A stack costs 5 to 10 microseconds, ten times what the rest of a rejection does, and these
 * come by the ten thousand just when there is no time for it; most are made in a timer, so it would show no caller either.
 */
function withoutStack<E extends Error>(make: () => E): E {
  const { stackTraceLimit } = Error;
  // Not assigned: where intrinsics are frozen that would throw.
  Reflect.set(Error, 'stackTraceLimit', 0);
  try {
    return make();
  } finally {
    Reflect.set(Error, 'stackTraceLimit', stackTraceLimit);
  }
}

export function queueFull(
  identity: VersionIdentity,
  { maxInFlight, maxQueue, maxQueueBytes }: ResolvedEndpointOptions,
  limit: QueueLimit,
): QueueFullError {
  const waiting =
    limit === 'maxQueue'
      ? `${maxQueue} more are waiting`
      : `those that wait have no room for this one in ${maxQueueBytes} bytes`;
  return withoutStack(
    () =>
      new QueueFullError(
        { limit, maxQueue, maxQueueBytes },
        `'${identity.endpoint}' holds ${maxInFlight} requests and ${waiting}; send slower, or raise threads, maxInFlight or ${limit}`,
        identity,
      ),
  );
}

export function endpointStuck(
  identity: VersionIdentity,
  { maxStuckLanes }: ResolvedEndpointOptions,
  stuckLanes: number,
): EndpointStuckError {
  return withoutStack(
    () =>
      new EndpointStuckError(
        stuckLanes,
        `all lanes of '${identity.endpoint}' are stuck in native calls that ignore the cancel flag (${stuckLanes}, of which ${maxStuckLanes} may be replaced); fix the handler and swap it, or raise maxStuckLanes`,
        identity,
      ),
  );
}

export function timedOut(
  identity: VersionIdentity,
  timeoutMs: number,
  phase: TimeoutPhase,
  isolation: Isolation,
): TimeoutError {
  const what =
    phase === 'queued'
      ? 'it was still queued and will never run; add threads or send slower'
      : {
          thread:
            'its native call was told to cancel and goes on until it returns; poll handler_cancelled in the handler',
          process:
            'its native call was told to cancel and is killed if it does not return in time; poll handler_cancelled in the handler',
        }[isolation];
  const cpuReclaimed = phase === 'queued' || isolation === 'process';
  return withoutStack(
    () =>
      new TimeoutError(
        { timeoutMs, phase, cpuReclaimed },
        `the request to '${identity.endpoint}' took longer than ${timeoutMs} ms: ${what}`,
        identity,
      ),
  );
}

export function dropped(
  identity: VersionIdentity,
  reason: DropReason,
  phase: TimeoutPhase,
): DroppedError {
  const why = {
    swap: 'the version was swapped out at once; use swapGraceful to let requests finish',
    unload: 'the endpoint was unloaded without a drain; give unload a drainTimeoutMs',
    'drain-timeout': 'it had not finished by the drain timeout; raise drainTimeoutMs',
    close: 'the registry was closed before it had finished; raise closeTimeoutMs',
  }[reason];
  return withoutStack(
    () =>
      new DroppedError(
        { reason, phase },
        `the ${phase} request to version ${identity.version} of '${identity.endpoint}' was dropped: ${why}`,
        identity,
      ),
  );
}

export function handlerFailed(
  identity: VersionIdentity,
  code: number,
  message: string,
): HandlerFailedError {
  const said = message === '' ? ' without a message' : `: ${message}`;
  return new HandlerFailedError(
    { code, message },
    `the handler '${identity.endpoint}' returned error ${code}${said}`,
    identity,
  );
}

export function responseTooLarge(
  identity: VersionIdentity,
  { maxPayloadBytes }: ResolvedEndpointOptions,
  length: number,
): ResponseTooLargeError {
  // A handler may say that it is too large and not by how much, which leaves the length at 0 or whatever it was.
  const actualBytes = length > maxPayloadBytes ? length : null;
  const said = actualBytes === null ? 'more bytes than it had room for' : `${actualBytes} bytes`;
  return new ResponseTooLargeError(
    { limitBytes: maxPayloadBytes, actualBytes },
    `the handler '${identity.endpoint}' answered with ${said}, and maxPayloadBytes is ${maxPayloadBytes}; raise it or make the handler answer with less`,
    identity,
  );
}

export function invalidResponse(identity: VersionIdentity, defect: string): InvalidResponseError {
  return new InvalidResponseError(
    `the handler '${identity.endpoint}' returned success with ${defect}; its response must be readable memory of the length it says`,
    identity,
  );
}

export function outOfMemory(identity: VersionIdentity, cause: unknown): OutOfMemoryError {
  return new OutOfMemoryError(
    `there is no memory for a large request to '${identity.endpoint}' (${cause}); send fewer at once, or lower maxPayloadBytes`,
    { ...identity, cause },
  );
}

/** `cause` is what the thread said, `end` how the lane's process ended if it had one. */
export function laneExited(
  identity: VersionIdentity,
  cause: unknown,
  end: ProcessEnd | null,
): LaneExitedError {
  const { signal = null, exitCode = null } = end ?? {};
  const lane = end === null ? 'worker thread' : 'lane process';
  return new LaneExitedError(
    { signal, exitCode },
    `a ${lane} of '${identity.endpoint}' ended (${describeEnd(cause, end)}) and is replaced; send the request that it was running again only if it may run twice`,
    end === null ? { ...identity, cause } : identity,
  );
}

/** How a lane ended, in words. */
export function describeEnd(cause: unknown, end: ProcessEnd | null): string {
  if (end === null) return messageOf(cause);
  const { signal, exitCode, reason } = end;
  const how =
    signal !== null ? `by ${signal}` : exitCode !== null ? `with exit code ${exitCode}` : null;
  return [how, reason].filter((part) => part !== null).join(': ');
}

export function crashLoop(
  identity: VersionIdentity,
  crashes: number,
  cause: unknown,
): CrashLoopError {
  const last = messageOf(cause);
  return new CrashLoopError(
    crashes,
    `${crashes} lanes of '${identity.endpoint}' were lost in a row, and none of them had answered a request; fix the handler and swap it. A new lane is tried from time to time. What became of the last one: ${last}`,
    { ...identity, cause },
  );
}
