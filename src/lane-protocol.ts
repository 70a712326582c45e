/**
 * What the main thread and a lane say to each other outside the ring: the task that starts a lane and
 * the messages on its port. Plain data only: structured clone drops classes and codes.
 */

import type { LoadPlan } from './library/load-plan.js';
import type { RingShape } from './ring/layout.js';

/** What a lane is started with, before there is a library: the argument of its one Piscina task. */
export interface LaneStart {
  memory: SharedArrayBuffer;
  shape: RingShape;
  lane: number;
  /** The memory of its outbox (see ring/outbox.ts). */
  outbox: SharedArrayBuffer;
  /** The threads of all lanes of this process (see lane-threads.ts). */
  laneThreads: SharedArrayBuffer;
  /** Where its thread notes what koffi maps for it (see call-memory.ts). */
  callMemory: SharedArrayBuffer;
  port: import('node:worker_threads').MessagePort;
}

/** What a lane is to open, and how it is to serve: the first message on its port. */
export interface LaneOrder {
  /** The library, and how it is opened. */
  plan: LoadPlan;
  /** When the version was begun with, in seconds since the system was started: no thread of the library is older. */
  sinceSeconds: number;
  /** Most bytes of one response. */
  maxPayloadBytes: number;
  /** Stack for native code, in bytes. */
  stackBytes: number;
  /** Regions that exist already; later ones come by the port. */
  regions: Region[];
  /** Mail announced before this order was made. */
  mail: number;
  /** After how many requests the lane says that it is worn; Infinity for never. */
  recycleAfterRequests: number;
  /** For a lane that has its handler run in a process of its own. */
  process: ProcessTask | null;
}

/** All that a lane knows once it has its order. */
export type LaneTask = LaneStart & LaneOrder;

/** What a lane needs to know of its process. */
export interface ProcessTask {
  /** For whoever looks at the list of processes. */
  name: string;
  /** The cancel flags of the version: one 32-bit word a slot. */
  cancelFlags: { descriptor: number; byteLength: number };
  /** All of its environment: what the option `env` gives, and how the dynamic loader is set up. */
  env: Readonly<Record<string, string>>;
  /** Resident memory at which the lane says that it is worn; Infinity for never. */
  maxRssBytes: number;
  /** How long it may take to shut its library down. */
  stopTimeoutMs: number;
}

/** How a lane's process ended. */
export interface ProcessEnd {
  exitCode: number | null;
  /** The signal that ended it. */
  signal: string | null;
  /** What else is to be said, such as why it could not be started. */
  reason: string | null;
}

/** Why a lane is to be replaced although nothing is wrong with it. */
export type WearReason = 'requests' | 'age' | 'memory';

/** Request memory outside the ring: a shared buffer and the number that slots call it by. */
export interface Region {
  id: number;
  memory: SharedArrayBuffer;
}

/** Host to lane, once it has its order. */
export type HostMessage =
  | { type: 'region'; region: Region }
  /** The lane may let go of the buffer. */
  | { type: 'forget'; id: number }
  /** Memory of a response that the lane has posted, for the next one. */
  | { type: 'recycled'; memory: ArrayBuffer }
  /** The lane may give back what it keeps for responses. */
  | { type: 'trim' };

/** Lane to host. A doorbell is the bare value `null`: it is sent often. */
export type LaneMessage =
  | null
  | { type: 'ready'; info: HandlerInfo }
  | { type: 'refused'; failure: LoadFailure }
  /** A response too large for its slot; the slot's status says that it was posted. */
  | { type: 'response'; slot: number; bytes: ArrayBuffer }
  /** What the lane has kept for responses. Nobody needs it any more. */
  | { type: 'trimmed' }
  /** The last lane to leave has kept these mapped. */
  | { type: 'kept'; libraries: KeptLibrary[] }
  /** The lane serves on, but should be replaced. */
  | { type: 'worn'; reason: WearReason }
  /** The lane's process has ended by itself, or in another way than it should have. */
  | { type: 'ended'; end: ProcessEnd };

/** A library that could have been unmapped and was not, since a thread is in it. */
export interface KeptLibrary {
  path: string;
  /** In words. */
  reason: string;
}

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
  /** Somebody has removed the private copy. */
  | { kind: 'copy-gone'; copyPath: string }
  | { kind: 'loader'; message: string };
