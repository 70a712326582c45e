/** One endpoint of the soak: what all who send requests to it, or change it, share. */

import type { HandlerRegistry, LoadedHandler } from '../../src/index.js';
import type { Broken } from './broken.js';
import type { Kind } from './kinds.js';
import type { Ledger } from './ledger.js';
import type { Payloads } from './payloads.js';
import type { Versions } from './versions.js';

export interface SoakEndpoint {
  readonly kind: Kind;
  readonly seed: number;
  readonly registry: HandlerRegistry;
  readonly versions: Versions;
  readonly ledger: Ledger;
  readonly payloads: Payloads;
  readonly broken: readonly Broken[];
  /** Aborted when nothing new is to be begun. */
  readonly stop: AbortSignal;
}

/** The active version, if there is one. */
export function activeOf({ registry, kind }: SoakEndpoint): LoadedHandler | undefined {
  return registry.get(kind.id);
}
