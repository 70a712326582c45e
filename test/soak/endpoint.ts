/** One endpoint in one round of the soak: what all who send requests to it, or change it, share. */

import type { HandlerRegistry, LoadedHandler } from '../../src/index.js';
import type { Broken } from './broken.js';
import type { Kind } from './kinds.js';
import type { Ledger } from './ledger.js';
import type { Payloads } from './payloads.js';
import type { Random } from './random.js';
import type { Versions } from './versions.js';

export interface SoakEndpoint {
  readonly kind: Kind;
  /** Choices of a part of it: each has its own. */
  readonly random: (part: string) => Random;
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
