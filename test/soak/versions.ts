/** What the soak knows of a loaded version. Kept as long as the engine's own object, no longer. */

import { fixture } from '../../fixtures/paths.js';
import type { DropReason, LoadedHandler } from '../../src/index.js';
import { handlers, type Library } from './handlers.js';

export class KnownVersion {
  /** Requests sent to it. */
  requests = 0;
  /** Those of them that end the process they run in. */
  crashing = 0;
  /** Requests that ended with the lane that ran them, since the last one that was answered. */
  crashesInRow = 0;
  /** Requests that were accepted and then taken away, since it takes no more. */
  dropped = 0;
  /** Guards that callers hold now. */
  guards = 0;
  /** What may drop its requests from now on. */
  readonly mayDrop = new Set<DropReason>();
  readonly #counted = new Set<number>();

  constructor(readonly library: Library) {}

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
