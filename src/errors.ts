/**
 * Every error a caller can meet: one class and one literal `code` each. Match on `code`: it survives
 * bundling and duplicated packages, which `instanceof` does not.
 *
 * Lanes cannot throw these across a thread (structured clone drops class and code), so they send
 * plain fields and the host builds the error here.
 */

import type { PreflightStep } from './preflight/protocol.js';

/** Base of all errors of this library. */
export abstract class HandlerError extends Error {
  abstract readonly code: `ERR_HANDLER_${string}`;
  /** The endpoint concerned, where there is one. */
  readonly endpoint: string | undefined;
  /** The version concerned, where there is one. */
  readonly version: number | undefined;

  constructor(message: string, fields: ErrorFields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.endpoint = fields.endpoint;
    this.version = fields.version;
  }

  override get name(): string {
    return this.constructor.name;
  }
}

export interface ErrorFields {
  endpoint?: string;
  version?: number;
  cause?: unknown;
}

/**
 * Says whom an error concerns that was made where this was not known: in the checks of a file or a
 * request. What it says already stays. Returns it.
 */
export function concerning<E>(
  error: E,
  { endpoint, version }: { endpoint: string; version: number },
): E {
  const isNobodys = error instanceof HandlerError && error.endpoint === undefined;
  return isNobodys ? Object.assign(error, { endpoint, version }) : error;
}

// ---- What the caller asked for -----------------------------------------------------------------

/** The endpoint has no active version, or the version asked for takes no more requests. */
export class NotLoadedError extends HandlerError {
  readonly code = 'ERR_HANDLER_NOT_LOADED';
}

/** An id that is not 1 to 64 characters of `A-Z a-z 0-9 _ -`. */
export class InvalidIdError extends HandlerError {
  readonly code = 'ERR_HANDLER_INVALID_ID';
}

/** An option or argument of the wrong type or outside its range. */
export class InvalidOptionError extends HandlerError {
  readonly code = 'ERR_HANDLER_INVALID_OPTION';
  /** The option's name. */
  readonly option: string;

  constructor(option: string, message: string, fields: ErrorFields = {}) {
    super(message, fields);
    this.option = option;
  }
}

/** The registry is closed or closing. */
export class RegistryClosedError extends HandlerError {
  readonly code = 'ERR_HANDLER_CLOSED';
}

// ---- Loading -----------------------------------------------------------------------------------

/** Base of the errors that refuse a library. The active version, if any, is untouched. */
export abstract class LoadError extends HandlerError {
  /** The library's absolute path. */
  readonly path: string;

  constructor(message: string, path: string, fields: ErrorFields = {}) {
    super(message, fields);
    this.path = path;
  }
}

/** There is no file at the library's path, or it may not be read. */
export class LibraryNotFoundError extends LoadError {
  readonly code = 'ERR_HANDLER_LIBRARY_NOT_FOUND';
}

/** Why a file is not a library that this process can load. */
export type LibraryDefect =
  | 'not-a-file'
  | 'not-a-library'
  | 'wrong-platform'
  | 'wrong-architecture'
  | 'truncated'
  | 'changed-while-copied';

/** The file is not a whole shared library for this platform and architecture. */
export class LibraryInvalidError extends LoadError {
  readonly code = 'ERR_HANDLER_LIBRARY_INVALID';
  readonly defect: LibraryDefect;

  constructor(defect: LibraryDefect, message: string, path: string, fields: ErrorFields = {}) {
    super(message, path, fields);
    this.defect = defect;
  }
}

/**
 * Why a library could be somebody else's: others may write the file or a directory on the way to it, one of them belongs to
 * somebody else, or a link leads out of the handlers directory.
 */
export type LibraryDanger = 'writable-by-others' | 'foreign-owner' | 'leads-outside';

/** Somebody who may not run code here could have put the library there. */
export class UnsafeLibraryError extends LoadError {
  readonly code = 'ERR_HANDLER_LIBRARY_UNSAFE';
  readonly danger: LibraryDanger;
  /** The file or directory that is to blame. */
  readonly culprit: string;

  constructor(
    danger: LibraryDanger,
    culprit: string,
    message: string,
    path: string,
    fields: ErrorFields = {},
  ) {
    super(message, path, fields);
    this.danger = danger;
    this.culprit = culprit;
  }
}

/** The flag of `node` that grants what is missing. */
export type PermissionFlag =
  | '--allow-fs-read'
  | '--allow-fs-write'
  | '--allow-worker'
  | '--allow-child-process'
  | '--allow-addons'
  | '--allow-net';

/** Node runs with its permission model (`--permission`), or without addons, and something that a load needs is not granted. */
export class PermissionDeniedError extends LoadError {
  readonly code = 'ERR_HANDLER_PERMISSION';
  readonly flag: PermissionFlag;

  constructor(flag: PermissionFlag, message: string, path: string, fields: ErrorFields = {}) {
    super(message, path, fields);
    this.flag = flag;
  }
}

/** The library is not the one that `integrity` names. */
export class IntegrityError extends LoadError {
  readonly code = 'ERR_HANDLER_INTEGRITY';
  /** The hashes that would have done, as in `integrity`. */
  readonly expected: readonly string[];
  /** The hash of what was found, in the same format. */
  readonly actual: string;

  constructor(
    hashes: { expected: readonly string[]; actual: string },
    message: string,
    path: string,
    fields: ErrorFields = {},
  ) {
    super(message, path, fields);
    this.expected = hashes.expected;
    this.actual = hashes.actual;
  }
}

/** The private copy could not be made (the cache directory is full, read-only or not private), or was removed by somebody else. */
export class CacheDirError extends LoadError {
  readonly code = 'ERR_HANDLER_CACHE_DIR';
}

/** Another library or symbol that this one needs is missing. */
export class MissingDependencyError extends LoadError {
  readonly code = 'ERR_HANDLER_MISSING_DEPENDENCY';
}

/** The library does not export a symbol that the ABI requires. */
export class MissingSymbolError extends LoadError {
  readonly code = 'ERR_HANDLER_MISSING_SYMBOL';
  readonly symbol: string;

  constructor(symbol: string, message: string, path: string, fields: ErrorFields = {}) {
    super(message, path, fields);
    this.symbol = symbol;
  }
}

/** The library was built for another version of the handler ABI. */
export class AbiMismatchError extends LoadError {
  readonly code = 'ERR_HANDLER_ABI_MISMATCH';
  readonly expected: number;
  readonly actual: number;

  constructor(
    abi: { expected: number; actual: number },
    message: string,
    path: string,
    fields: ErrorFields = {},
  ) {
    super(message, path, fields);
    this.expected = abi.expected;
    this.actual = abi.actual;
  }
}

/**
 * The library has to be bound to its own dependencies, and that would take away what it has to share with the process: the memory
 * allocator, or data such as `std::cerr` and `environ`. Which is rare: as a rule both can be had.
 */
export class BindingConflictError extends LoadError {
  readonly code = 'ERR_HANDLER_BINDING_CONFLICT';
  /** Names that it must get from itself or its dependencies, and that the node executable has too; at most 20. */
  readonly own: readonly string[];
  /** Names that it must get where ordinary binding finds them; at most 20. */
  readonly shared: readonly string[];
  /** Why not both. */
  readonly obstacle: string;

  constructor(
    conflict: Pick<BindingConflictError, 'own' | 'shared' | 'obstacle'>,
    message: string,
    path: string,
    fields: ErrorFields = {},
  ) {
    super(message, path, fields);
    this.own = conflict.own;
    this.shared = conflict.shared;
    this.obstacle = conflict.obstacle;
  }
}

/** `handler_init` returned an error. */
export class InitFailedError extends LoadError {
  readonly code = 'ERR_HANDLER_INIT_FAILED';
  /** What `handler_init` returned. */
  readonly handlerCode: number;
  /** The message it gave. */
  readonly handlerMessage: string;

  constructor(
    handler: { code: number; message: string },
    message: string,
    path: string,
    fields: ErrorFields = {},
  ) {
    super(message, path, fields);
    this.handlerCode = handler.code;
    this.handlerMessage = handler.message;
  }
}

/** The dynamic loader or a lane's start failed in a way that has no class of its own. */
export class LoadFailedError extends LoadError {
  readonly code = 'ERR_HANDLER_LOAD_FAILED';
}

/** The library had not passed pre-flight, or not every lane was ready, within `loadTimeoutMs`. */
export class LoadTimeoutError extends LoadError {
  readonly code = 'ERR_HANDLER_LOAD_TIMEOUT';
  readonly timeoutMs: number;
  /** Where the library hung, if it was in pre-flight. */
  readonly step: PreflightStep | undefined;

  constructor(
    timeoutMs: number,
    message: string,
    path: string,
    fields: ErrorFields & { step?: PreflightStep } = {},
  ) {
    super(message, path, fields);
    this.timeoutMs = timeoutMs;
    this.step = fields.step;
  }
}

/**
 * How a library failed in pre-flight. `crashed`: a signal ended the child process. `exited`: the library ended it.
 * `thread-ended`: the library ended its thread. `threads-left`: threads of its own ran on after `handler_shutdown`.
 * `self-test-failed`: the self-test was not answered as it should be. `not-started`, `child-failed`: there was no verdict.
 */
export type PreflightFailure =
  | 'crashed'
  | 'exited'
  | 'thread-ended'
  | 'threads-left'
  | 'self-test-failed'
  | 'not-started'
  | 'child-failed';

/** The library did in a child process what this process would not have survived, or failed its self-test. */
export class PreflightError extends LoadError {
  readonly code = 'ERR_HANDLER_PREFLIGHT';
  readonly reason: PreflightFailure;
  /** Which step it was. */
  readonly step: PreflightStep;
  /** The signal that ended the child process, if one did. */
  readonly signal: NodeJS.Signals | undefined;
  /** The code that the library ended the child process with, if it did. */
  readonly exitCode: number | undefined;
  /** The end of what was printed to stderr there. */
  readonly stderr: string;

  constructor(
    failure: Pick<PreflightError, 'reason' | 'step' | 'stderr'> & {
      signal?: NodeJS.Signals;
      exitCode?: number;
    },
    message: string,
    path: string,
    fields: ErrorFields = {},
  ) {
    super(message, path, fields);
    this.reason = failure.reason;
    this.step = failure.step;
    this.signal = failure.signal;
    this.exitCode = failure.exitCode;
    this.stderr = failure.stderr;
  }
}

/** A load or swap would leave more than `maxDrainingVersions` versions of the endpoint draining; failed loads that hang count. */
export class DrainingLimitError extends LoadError {
  readonly code = 'ERR_HANDLER_DRAINING_LIMIT';
}

// ---- Requests ----------------------------------------------------------------------------------

/** A request is not bytes, a string or a JSON value, or its context is not what it should be. */
export class InvalidRequestError extends HandlerError {
  readonly code = 'ERR_HANDLER_INVALID_REQUEST';
}

/** `handler_entry` returned an error code. */
export class HandlerFailedError extends HandlerError {
  readonly code = 'ERR_HANDLER_FAILED';
  /** What `handler_entry` returned. */
  readonly handlerCode: number;
  /** The message it gave; empty if none. */
  readonly handlerMessage: string;

  constructor(
    handler: { code: number; message: string },
    message: string,
    fields: ErrorFields = {},
  ) {
    super(message, fields);
    this.handlerCode = handler.code;
    this.handlerMessage = handler.message;
  }
}

/** Where a request was when its deadline passed. */
export type TimeoutPhase = 'queued' | 'running';

/**
 * The deadline passed. `queued`: the handler never ran and never will. `running`: the handler's cancel
 * flag is raised; in a thread the native call then goes on until it returns by itself, in a process of its own it is killed if it has not
 * returned within `cancelGraceMs`.
 */
export class TimeoutError extends HandlerError {
  readonly code = 'ERR_HANDLER_TIMEOUT';
  readonly timeoutMs: number;
  readonly phase: TimeoutPhase;
  /**
   * Whether the CPU is certain to come back, whatever the handler does: the request never ran, or its process is killed if the call has
   * not returned `cancelGraceMs` after this error. False in a thread: nothing can stop native code there.
   */
  readonly cpuReclaimed: boolean;

  constructor(
    timeout: { timeoutMs: number; phase: TimeoutPhase; cpuReclaimed: boolean },
    message: string,
    fields: ErrorFields = {},
  ) {
    super(message, fields);
    this.timeoutMs = timeout.timeoutMs;
    this.phase = timeout.phase;
    this.cpuReclaimed = timeout.cpuReclaimed;
  }
}

/** What dropped a request. */
export type DropReason = 'swap' | 'unload' | 'drain-timeout' | 'close';

/** The version was taken away before the request was answered. */
export class DroppedError extends HandlerError {
  readonly code = 'ERR_HANDLER_DROPPED';
  readonly reason: DropReason;
  /** `running` if the native call had begun, and may still be running. */
  readonly phase: TimeoutPhase;

  constructor(
    drop: { reason: DropReason; phase: TimeoutPhase },
    message: string,
    fields: ErrorFields = {},
  ) {
    super(message, fields);
    this.reason = drop.reason;
    this.phase = drop.phase;
  }
}

/** The option that says how much may wait: in requests, or in bytes. */
export type QueueLimit = 'maxQueue' | 'maxQueueBytes';

/** All slots are taken, and `maxQueue` requests or `maxQueueBytes` bytes wait already. */
export class QueueFullError extends HandlerError {
  readonly code = 'ERR_HANDLER_QUEUE_FULL';
  /** Which of the two limits was reached. */
  readonly limit: QueueLimit;
  readonly maxQueue: number;
  readonly maxQueueBytes: number;

  constructor(
    queue: { limit: QueueLimit; maxQueue: number; maxQueueBytes: number },
    message: string,
    fields: ErrorFields = {},
  ) {
    super(message, fields);
    this.limit = queue.limit;
    this.maxQueue = queue.maxQueue;
    this.maxQueueBytes = queue.maxQueueBytes;
  }
}

/** A size that was over its limit, in bytes. */
export interface Oversize {
  limitBytes: number;
  /** Null if it is not known. */
  actualBytes: number | null;
}

/** Base of the errors about something larger than its limit. */
export abstract class OversizeError extends HandlerError {
  readonly limitBytes: number;
  readonly actualBytes: number | null;

  constructor(size: Oversize, message: string, fields: ErrorFields = {}) {
    super(message, fields);
    this.limitBytes = size.limitBytes;
    this.actualBytes = size.actualBytes;
  }
}

/** The request, or its context, is larger than the limit. It was not sent. */
export class PayloadTooLargeError extends OversizeError {
  readonly code = 'ERR_HANDLER_PAYLOAD_TOO_LARGE';
  declare readonly actualBytes: number;
}

/**
 * The handler's response is larger than `maxPayloadBytes`. `actualBytes` is null if the handler has returned
 * `HANDLER_RESPONSE_TOO_LARGE` without saying how long its response would be.
 */
export class ResponseTooLargeError extends OversizeError {
  readonly code = 'ERR_HANDLER_RESPONSE_TOO_LARGE';
}

/** The handler returned success with a response that cannot be read, such as a null pointer. */
export class InvalidResponseError extends HandlerError {
  readonly code = 'ERR_HANDLER_INVALID_RESPONSE';
}

/** Every lane of the endpoint is stuck in a native call, and `maxStuckLanes` were replaced already. */
export class EndpointStuckError extends HandlerError {
  readonly code = 'ERR_HANDLER_STUCK';
  readonly stuckLanes: number;

  constructor(stuckLanes: number, message: string, fields: ErrorFields = {}) {
    super(message, fields);
    this.stuckLanes = stuckLanes;
  }
}

/** Memory for a large request could not be had. It was not sent. */
export class OutOfMemoryError extends HandlerError {
  readonly code = 'ERR_HANDLER_OUT_OF_MEMORY';
}

/**
 * The lane that ran the request ended: its process crashed, or its worker thread came to its heap limit. The request may have had
 * effects.
 */
export class LaneExitedError extends HandlerError {
  readonly code = 'ERR_HANDLER_LANE_EXITED';
  /** The signal that ended the lane's process, such as `SIGSEGV`; null if none did, and for threads. */
  readonly signal: string | null;
  /** What the lane's process exited with; null if a signal ended it, and for threads. */
  readonly exitCode: number | null;

  constructor(
    end: { signal: string | null; exitCode: number | null },
    message: string,
    fields: ErrorFields = {},
  ) {
    super(message, fields);
    this.signal = end.signal;
    this.exitCode = end.exitCode;
  }
}

/**
 * Lanes of the endpoint have crashed again and again with no request answered in between. It tries a new lane from time to
 * time and recovers with the first one that answers; swapping in a good version recovers it at once. The last crash is the `cause`.
 */
export class CrashLoopError extends HandlerError {
  readonly code = 'ERR_HANDLER_CRASH_LOOP';
  /** Lanes lost in a row. */
  readonly crashes: number;

  constructor(crashes: number, message: string, fields: ErrorFields = {}) {
    super(message, fields);
    this.crashes = crashes;
  }
}
