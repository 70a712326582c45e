/**
 * What a registry tells those who listen, and the emitter that keeps a listener's mistakes away from the engine.
 */

import { EventEmitter } from 'eventemitter3';
import type { ShedError } from './dispatcher.js';
import type { DrainReport } from './drain-report.js';
import type { DropReason, TimeoutPhase } from './errors.js';
import type { HandlerInfo, WearReason } from './lane-protocol.js';
import type { VersionIdentity } from './request-errors.js';

/** Every event's name and the one argument its listeners get. */
export interface RegistryEvents {
  /** A version is being loaded. */
  loading: [VersionIdentity & { path: string }];
  /**
   * A version that is being loaded gets `path` for a library that it asks for by `name`, because that was loaded before, and not `instead`,
   * which it would get in a process of its own.
   */
  dependencyShadowed: [VersionIdentity & { name: string; path: string; instead: string }];
  /** A version has become active. */
  loaded: [VersionIdentity & { path: string; sha256: string; info: HandlerInfo; tookMs: number }];
  /** A version could not be loaded; the one that was active still is. */
  loadFailed: [VersionIdentity & { path: string; error: unknown }];
  /** A new version has taken an older one's place. */
  swapped: [VersionIdentity & { from: number; graceful: boolean }];
  /** A version takes no more requests. `reason` is what will drop those that remain. */
  draining: [VersionIdentity & { activeRequests: number; reason: DropReason }];
  /** The last request has left a draining version. */
  drained: [VersionIdentity];
  /** A version's lanes are gone. */
  retired: [VersionIdentity & { report: DrainReport }];
  /** A caller was answered with a timeout. */
  timeout: [VersionIdentity & { phase: TimeoutPhase; timeoutMs: number }];
  /** A caller was answered while the native call goes on. */
  abandoned: [VersionIdentity & { lane: number }];
  /**
   * An abandoned call has outlived its grace. `replaced` says whether another lane takes over, `killed` whether the call was ended,
   * with the process it was in.
   */
  laneStuck: [VersionIdentity & { lane: number; replaced: boolean; killed: boolean }];
  /** A lane's thread or process ended by itself. Of a process, `error` is a `LaneExitedError`. */
  laneExited: [VersionIdentity & { lane: number; error: unknown }];
  /** A lane serves in the place of a stuck one. */
  laneReplaced: [VersionIdentity & { lane: number; by: number }];
  /** A lane serves in the place of one that is worn, which leaves. */
  laneRecycled: [VersionIdentity & { lane: number; by: number; reason: WearReason }];
  /** Lanes were lost in a row: requests are refused until a new one has come up, the next after `retryMs`. */
  crashLoop: [VersionIdentity & { crashes: number; retryMs: number; error: unknown }];
  /** After `crashLoop`: a request was answered. */
  crashLoopEnded: [VersionIdentity];
  /** A request was refused for want of room. */
  shed: [VersionIdentity & { error: ShedError }];
}

/** Where versions report. */
export type Report = <E extends keyof RegistryEvents>(
  event: E,
  ...details: RegistryEvents[E]
) => void;

/** A typed emitter whose `emit` never throws: a listener's error becomes a process warning. */
export class RegistryEmitter extends EventEmitter<RegistryEvents> {
  override emit<E extends keyof RegistryEvents>(
    event: E,
    ...details: EventEmitter.EventArgs<RegistryEvents, E>
  ): boolean {
    try {
      return super.emit(event, ...details);
    } catch (error) {
      // Uncaught, it would end the process, for a mistake that concerns the listener alone.
      const warning = new Error(`a listener for '${String(event)}' threw: ${error}`, {
        cause: error,
      });
      process.emitWarning(Object.assign(warning, { name: 'ListenerWarning' }));
      return true;
    }
  }
}
