/** What the soak knows of a loaded version. Kept as long as the engine's own object, no longer. */

import { fixture } from '../../fixtures/paths.js';
import type { DropReason, LoadedHandler, OutcomeTotals } from '../../src/index.js';
import { NO_TOTALS } from '../support/outcomes.js';
import { handlers, type Library } from './handlers.js';

export class KnownVersion {
  /** Requests sent to it. */
  requests = 0;
  /** Those of them that have not settled. */
  unsettled = 0;
  /** Those that are to end the process they run in, and processes that were killed from outside. */
  crashing = 0;
  /** Processes that were killed from outside. */
  killed = 0;
  /** Requests that ended with the lane that ran them, since the last one that was answered. */
  crashesInRow = 0;
  /** Requests that were accepted and then taken away, since it takes no more. */
  dropped = 0;
  /** Guards that callers hold now. */
  guards = 0;
  /** What may drop its requests from now on. */
  readonly mayDrop = new Set<DropReason>();
  /** By how they ended, as callers were told: what the version's own statistics must say. */
  readonly totals: OutcomeTotals = { ...NO_TOTALS };
  readonly #counted = new Set<number>();

  constructor(readonly library: Library) {}

  /** Requests that have had an answer. */
  get ended(): number {
    return Object.values(this.totals).reduce((sum, count) => sum + count, 0) - this.totals.shed;
  }

  /** With the last lane that held it, the library may have been unloaded: the next one counts from the start. */
  countAnew(): void {
    this.#counted.clear();
  }

  /** Says so if a number that must come once comes again. */
  countOnce(count: number): string | null {
    if (this.#counted.has(count)) return `the count ${count} came twice`;
    this.#counted.add(count);
    return null;
  }
}

const libraries = Object.keys(handlers) as Library[];
const byPath = new Map(libraries.map((library) => [fixture(library), library]));

export class Versions {
  readonly #known = new WeakMap<LoadedHandler, KnownVersion>();

  of(handler: LoadedHandler): KnownVersion {
    const known = this.#known.get(handler);
    if (known !== undefined) return known;
    const library = byPath.get(handler.path);
    if (library === undefined) throw new Error(`${handler.path} must not have been loaded`);
    const found = new KnownVersion(library);
    this.#known.set(handler, found);
    return found;
  }
}
