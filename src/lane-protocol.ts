/**
 * What the main thread and a lane say to each other outside the ring: the task that starts a lane and
 * the messages on its port. Plain data only: structured clone drops classes and codes.
 */

import type { RingShape } from './ring/layout.js';

/** What a lane is started with: the argument of its one Piscina task. */
export interface LaneTask {
  memory: SharedArrayBuffer;
  shape: RingShape;
  lane: number;
  port: import('node:worker_threads').MessagePort;
  /** The private copy. */
  libraryPath: string;
  /** Most bytes of one response. */
  maxPayloadBytes: number;
  /** Stack for native code, in bytes. */
  stackBytes: number;
  /** Regions that exist already; later ones come by the port. */
  regions: Region[];
  /** Mail announced before this task was made. */
  mail: number;
}

/** Request memory outside the ring: a shared buffer and the number that slots call it by. */
export interface Region {
  id: number;
  memory: SharedArrayBuffer;
}

/** Host to lane. */
export type HostMessage =
  | { type: 'region'; region: Region }
  /** The lane may let go of the buffer. */
  | { type: 'forget'; id: number };

/** Lane to host. A doorbell is the bare value `null`: it is sent often. */
export type LaneMessage =
  | null
  | { type: 'ready'; info: HandlerInfo }
  | { type: 'refused'; failure: LoadFailure }
  /** A response too large for its slot; the slot's status says that it was posted. */
  | { type: 'response'; slot: number; bytes: ArrayBuffer };

/** What the library says of itself through `handler_info`; null where it says nothing. */
export interface HandlerInfo {
  name: string | null;
  version: string | null;
  description: string | null;
}

/** Why a lane could not load its library. */
export type LoadFailure =
  | { kind: 'missing-symbol'; symbol: string }
  | { kind: 'abi-mismatch'; expected: number; actual: number }
  | { kind: 'init-failed'; code: number; message: string }
  | { kind: 'missing-dependency'; message: string }
  | { kind: 'loader'; message: string };
