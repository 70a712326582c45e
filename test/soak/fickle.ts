/** Has the lanes that start of one endpoint refused now and then: its handler fails to initialise while a file is there. */

import { rmSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { EndpointOptions } from '../../src/index.js';
import type { SoakEndpoint } from './endpoint.js';

/** How long lanes can start, on average, and how long they cannot, at most. */
const FINE_MS = 1500;
const MOST_REFUSING_MS = 2500;

export class Fickle {
  readonly #path: string;
  /** Loads that go on: they are to succeed. */
  #loads = 0;
  #wantsRefusal = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** What the endpoint's versions need. */
  get options(): Pick<EndpointOptions, 'env'> {
    return { env: { CHANGEOVER_TEST_FICKLE: this.#path } };
  }

  async run(endpoint: SoakEndpoint): Promise<void> {
    const { kind, stop, ledger } = endpoint;
    const random = endpoint.random('fickle');
    const waits = async (ms: number) =>
      pause(ms, undefined, { signal: stop }).catch(() => undefined);
    while (!stop.aborted) {
      await waits(random.pauseMs(FINE_MS));
      this.#wants(!stop.aborted);
      ledger.step(kind.id, 'lanes that start are refused');
      await waits(random.int(50, MOST_REFUSING_MS));
      this.#wants(false);
      ledger.step(kind.id, 'lanes can start');
    }
  }

  /** Meanwhile no lane is refused. */
  async during<T>(load: () => Promise<T>): Promise<T> {
    this.#loads += 1;
    this.#apply();
    try {
      return await load();
    } finally {
      this.#loads -= 1;
      this.#apply();
    }
  }

  #wants(refusal: boolean): void {
    this.#wantsRefusal = refusal;
    this.#apply();
  }

  #apply(): void {
    if (this.#wantsRefusal && this.#loads === 0) writeFileSync(this.#path, '');
    else rmSync(this.#path, { force: true });
  }
}
