/**
 * What a registry must be like, as follows from what was done to it and what callers were told: it asks the engine for
 * nothing. `audit.ts` compares the two.
 */

import type { LoadedHandler } from '../../src/index.js';
import type { KnownVersion } from './versions.js';

export interface ModelVersion {
  readonly handler: LoadedHandler;
  readonly known: KnownVersion;
}

export class EndpointModel {
  /** The active version. */
  active: ModelVersion | undefined;
  /** Lanes that it should have. */
  threads = 0;
  /** Loads and swaps so far, failed ones included: each takes a number. */
  attempts = 0;
  /** Versions that may not have retired yet, by number. */
  readonly versions = new Map<number, ModelVersion>();

  /** Something new serves; what served before drains. Says what is wrong with it. */
  replaced(by: ModelVersion, threads: number): string | null {
    const { version } = by.handler;
    this.threads = threads;
    const expected = this.attempts;
    this.active = by;
    this.versions.set(version, by);
    return version === expected ? null : `version ${version} was made, and ${expected} was due`;
  }

  unloaded(): void {
    this.active = undefined;
  }
}

/** All endpoints of one registry, by id. */
export class Model {
  readonly endpoints = new Map<string, EndpointModel>();
  /** Loads that were going on then have failed, and are taken down. */
  isClosed = false;

  of(id: string): EndpointModel {
    const known = this.endpoints.get(id);
    if (known !== undefined) return known;
    const made = new EndpointModel();
    this.endpoints.set(id, made);
    return made;
  }

  /** Every version that may not have retired. */
  versions(): ModelVersion[] {
    return [...this.endpoints.values()].flatMap(({ versions }) => [...versions.values()]);
  }

  /** The registry is being closed: nothing serves, and everything may be dropped. */
  closed(): void {
    this.isClosed = true;
    for (const endpoint of this.endpoints.values()) endpoint.unloaded();
    for (const { known } of this.versions()) known.mayDrop.add('close');
  }
}
