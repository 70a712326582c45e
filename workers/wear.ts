/** Says once that a lane should be replaced, although nothing is wrong with it. It serves on until it is told to leave. */

import type { LaneMessage, WearReason } from '../src/lane-protocol.js';

export class Wear {
  readonly #requests: number;
  readonly #tell: (message: LaneMessage) => void;
  #served = 0;
  #told = false;

  /** `requests` is how many the lane is to serve; Infinity for any number. */
  constructor(requests: number, tell: (message: LaneMessage) => void) {
    this.#requests = requests;
    this.#tell = tell;
  }

  /** The lane has served one more. */
  served(): void {
    this.#served += 1;
    if (this.#served === this.#requests) this.worn('requests');
  }

  worn(reason: WearReason): void {
    if (this.#told) return;
    this.#told = true;
    this.#tell({ type: 'worn', reason });
  }
}
