/** What a lane process is started with. */

import type { LoadPlan } from '../../src/library/load-plan.js';

/** Descriptors that it inherits. */
export const SOCKET_FD = 3;
export const MEMORY_FD = 4;
export const CANCEL_FLAGS_FD = 5;
/** The reading end of a pipe whose other end the host holds: this process ends when that is closed. */
export const LIFELINE_FD = 6;

/** Its exit code if the handler has ended its main thread with `pthread_exit`. */
export const THREAD_ENDED_CODE = 113;

/** Its one argument, as JSON. */
export interface ProgramTask {
  /** For whoever looks at the list of processes. */
  lane: string;
  hostPid: number;
  /** The library, and how it is opened. */
  plan: LoadPlan;
  maxPayloadBytes: number;
  stackBytes: number;
  cancelFlagsBytes: number;
}
