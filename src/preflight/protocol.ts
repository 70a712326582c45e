/**
 * What the host and a pre-flight child say to each other. The task goes in by stdin: one line of JSON, then the bytes of the
 * self-test's context and request. Messages come back on a descriptor of their own, one line of JSON each, so that whatever a
 * library prints is not mistaken for one.
 */

import type { HandlerInfo, LoadFailure } from '../lane-protocol.js';
import type { LoadPlan } from '../library/load-plan.js';

/** Where the child writes its messages. */
export const MESSAGES_FD = 3;

/**
 * What pre-flight does, in this order. `open` runs constructors, `unload` destructors, and `exit` the destructors of a library
 * that cannot be unloaded.
 */
export type PreflightStep =
  | 'start'
  | 'open'
  | 'abi'
  | 'info'
  | 'init'
  | 'self-test'
  | 'shutdown'
  | 'unload'
  | 'exit';

export interface PreflightTask {
  /** The library, and how it is opened. */
  plan: LoadPlan;
  stackBytes: number;
  maxPayloadBytes: number;
  /** Bytes that follow the task's line. */
  bodyBytes: number;
  /** The child ends if this is not its parent any more. */
  parentPid: number;
  /** After so many seconds it ends by itself, whatever the library does. */
  lifetimeSeconds: number;
  /** Lengths of what follows the task's line; null for no self-test. */
  selfTest: { requestIdLength: number; metadataLength: number; requestLength: number } | null;
}

/** What cannot be told (on any platform but Linux) is null. */
export type PreflightMessage =
  /** Sent before the step begins, so that the last one sent is the one that did not come back. */
  | { type: 'step'; step: PreflightStep; atMs: number }
  | { type: 'refused'; failure: LoadFailure }
  /** `handler_entry` returned an error, or a response that cannot be read. */
  | { type: 'self-test-failed'; handlerCode: number; message: string }
  /** The self-test's response, in base64. */
  | { type: 'response'; bytes: string; ranMs: number }
  | { type: 'info'; info: HandlerInfo }
  /** After `handler_shutdown`, before the unload. */
  | { type: 'left'; threads: number | null }
  | { type: 'unloaded'; unloads: boolean | null; descriptors: number | null }
  /** Something in the child itself went wrong. */
  | { type: 'failed'; message: string };
