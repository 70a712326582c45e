/** What the end of a pre-flight child means: a report, or the error that refuses the library. */

import { type LoadError, LoadTimeoutError, PreflightError } from '../errors.js';
import type { HandlerInfo } from '../lane-protocol.js';
import { messageOf } from '../library/system-errors.js';
import { loadErrorFor } from '../load-error.js';
import type { VersionIdentity } from '../request-errors.js';
import type { ChildReport } from './child.js';
import type { PreflightReport } from './preflight.js';
import { MESSAGES_FD, type PreflightMessage, type PreflightStep } from './protocol.js';

export interface Subject {
  /** The library as the caller named it. */
  path: string;
  identity: VersionIdentity;
  loadTimeoutMs: number;
}

const NO_INFO: HandlerInfo = { name: null, version: null, description: null };

/** Where a library was, in words that say whose code was running. */
const PLACES: Record<PreflightStep, string> = {
  start: 'before it was loaded: the child process itself could not start',
  open: 'while it was being opened: look at its constructors and C++ globals',
  abi: 'in handler_abi_version',
  info: 'in handler_info',
  init: 'in handler_init',
  'self-test': 'in handler_entry, with the self-test',
  shutdown: 'in handler_shutdown',
  unload:
    'while it was being unloaded: look at its destructors, and at threads that handler_shutdown has left behind',
  exit: 'when the process ended: look at its destructors and atexit functions',
};

/** @throws {LoadError} if the library must not be loaded. */
export function judge(child: ChildReport, subject: Subject): PreflightReport {
  const error = verdict(child, subject);
  if (error !== null) throw error;
  const info = find(child.messages, 'info')?.info ?? NO_INFO;
  const unloaded = find(child.messages, 'unloaded');
  return {
    tookMs: child.tookMs,
    info,
    unloads: unloaded?.unloads ?? null,
    threadsLeft: find(child.messages, 'left')?.threads ?? null,
    descriptorsLeft: unloaded?.descriptors ?? null,
    selfTestMs: find(child.messages, 'response')?.ranMs ?? null,
  };
}

/** The last step that began. */
export function lastStep(messages: readonly PreflightMessage[]): PreflightStep {
  return messages.findLast((message) => message.type === 'step')?.step ?? 'start';
}

/** The error that refuses the library; null if nothing speaks against it. */
export function verdict(child: ChildReport, subject: Subject): LoadError | null {
  const { messages, end, stderr } = child;
  const { path, identity, loadTimeoutMs } = subject;
  const step = lastStep(messages);
  const place = PLACES[step];
  const refuse = (
    reason: PreflightError['reason'],
    message: string,
    fields: {
      at?: PreflightStep;
      signal?: NodeJS.Signals;
      exitCode?: number;
      cause?: unknown;
    } = {},
  ) => {
    const { at = step, cause, ...rest } = fields;
    const said = stderr === '' ? '' : `; it printed: ${stderr}`;
    return new PreflightError(
      { reason, step: at, stderr, ...rest },
      `${message}${said}`,
      path,
      cause === undefined ? identity : { ...identity, cause },
    );
  };

  if (end.how === 'not-started') {
    return refuse(
      'not-started',
      `no child process could be started to try ${path}: ${messageOf(end.cause)}; raise the limit that was reached, or set preflight to false to load libraries untried`,
      { cause: end.cause },
    );
  }
  if (end.how === 'timed-out') {
    return new LoadTimeoutError(
      loadTimeoutMs,
      `${path} was still busy in pre-flight after ${loadTimeoutMs} ms, ${place}; make that quicker, or raise loadTimeoutMs`,
      path,
      { ...identity, step },
    );
  }
  if (end.how === 'flooded') {
    const message = `${path} wrote to descriptor ${MESSAGES_FD} of the process that tried it, ${place}, which is not its own; more came than pre-flight has to say`;
    return refuse('child-failed', message);
  }
  const refused = find(messages, 'refused');
  if (refused !== undefined) return loadErrorFor(refused.failure, path, identity, 'preflight');
  const threads = find(messages, 'left')?.threads ?? 0;
  const refuseThreads = (fields: { signal?: NodeJS.Signals }) =>
    refuse(
      'threads-left',
      `${path} left ${threads} thread${threads === 1 ? '' : 's'} running after handler_shutdown, which would run on in unmapped memory; join every thread there`,
      { at: 'shutdown', ...fields },
    );
  if (end.how === 'crashed') {
    const { signal } = end;
    // What happens to a thread whose code is unmapped is not always the same; why it happens is.
    const isUnmapped = step === 'unload' || find(messages, 'unloaded')?.unloads === true;
    if (threads > 0 && isUnmapped) return refuseThreads({ signal });
    return refuse('crashed', `${path} crashed (${signal}) in pre-flight, ${place}`, { signal });
  }
  if (end.how === 'thread-ended') {
    const message = `${path} ended the thread that it was called on, ${place}; it must not call pthread_exit`;
    return refuse('thread-ended', message);
  }
  const failed = find(messages, 'failed');
  if (failed !== undefined) {
    return refuse('child-failed', `trying ${path} in a child process failed: ${failed.message}`);
  }
  const test = find(messages, 'self-test-failed');
  if (test !== undefined) {
    return refuse(
      'self-test-failed',
      `the self-test of ${path} failed: handler_entry returned ${test.handlerCode}${test.message === '' ? '' : `: ${test.message}`}`,
      { at: 'self-test' },
    );
  }
  const exitCode = end.how === 'exited' ? end.exitCode : 0;
  if (step !== 'exit' || exitCode !== 0) {
    const message = `${path} ended the process with code ${exitCode} in pre-flight, ${place}; it must not call exit`;
    return refuse('exited', message, { exitCode });
  }
  // Where the library stays mapped, a thread of its own runs on and harms nobody.
  if (threads > 0 && find(messages, 'unloaded')?.unloads === true) return refuseThreads({});
  return null;
}

function find<T extends PreflightMessage['type']>(
  messages: readonly PreflightMessage[],
  type: T,
): Extract<PreflightMessage, { type: T }> | undefined {
  return messages.find((message) => message.type === type) as
    | Extract<PreflightMessage, { type: T }>
    | undefined;
}
