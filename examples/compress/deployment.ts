/** The swap to the second compressor, and how it went. */
import { performance } from 'node:perf_hooks';
import type { DrainReport, HandlerRegistry } from '../../src/index.js';

export class Deployment {
  /** From the call of swapGraceful until the new version was active. */
  swapMs = 0;
  /** Requests of the old version that had not returned by then. */
  pendingRequests = 0;
  /** Settles when the old version has been retired; undefined if there was none. */
  drained: Promise<DrainReport> | undefined;

  readonly #registry: HandlerRegistry;
  readonly #library: string;

  constructor(registry: HandlerRegistry, library: string) {
    this.#registry = registry;
    this.#library = library;
  }

  /** Resolves when new requests go to the new version. Does not wait for the old one to drain. */
  async start(): Promise<void> {
    const startMs = performance.now();
    const swap = await this.#registry.swapGraceful('compress', this.#library);
    this.swapMs = performance.now() - startMs;
    this.pendingRequests = swap.oldRequestsPending;
    this.drained = swap.drained;
  }
}
