/** One endpoint in one round of the soak: what all who send requests to it, or change it, share. */

import type { HandlerRegistry, LoadedHandler, VersionStats } from '../../src/index.js';
import type { Broken } from './broken.js';
import type { Fickle } from './fickle.js';
import type { Forks } from './forks.js';
import type { Kind } from './kinds.js';
import type { Ledger } from './ledger.js';
import type { EndpointModel } from './model.js';
import { MAX_PAYLOAD_BYTES, type Payloads } from './payloads.js';
import type { Random } from './random.js';
import type { Versions } from './versions.js';

export interface SoakEndpoint {
  readonly kind: Kind;
  /** Choices of a part of it: each has its own. */
  readonly random: (part: string) => Random;
  readonly registry: HandlerRegistry;
  /** What it must be like. */
  readonly model: EndpointModel;
  readonly versions: Versions;
  readonly ledger: Ledger;
  readonly payloads: Payloads;
  readonly forks: Forks;
  /** For endpoints whose lanes are to be refused. */
  readonly fickle: Fickle;
  readonly broken: readonly Broken[];
  /** From the end of one change to the next, on average. */
  readonly changeEveryMs: number;
  /** Aborted when nothing new is to be begun. */
  readonly stop: AbortSignal;
  /** Aborted when the registry is closed, in the middle of everything. */
  readonly closing: AbortSignal;
}

/** The active version, if there is one. */
export function activeOf({ registry, kind }: SoakEndpoint): LoadedHandler | undefined {
  return registry.get(kind.id);
}

/** What the registry says of that version. */
export function activeStatsOf({ registry, kind }: SoakEndpoint): VersionStats | undefined {
  return registry
    .endpoint(kind.id)
    .stats()
    ?.versions.find(({ state }) => state === 'active');
}

export function maxPayloadBytesOf({ kind }: SoakEndpoint): number {
  return kind.options.maxPayloadBytes ?? MAX_PAYLOAD_BYTES;
}
