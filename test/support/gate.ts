/** Native calls that last exactly as long as a test wants: requests to the fixture `gate`. */

import type { ExecutionContext } from 'ava';
import { eventually } from './polling.js';

const DEADLINE_MS = 60_000;

/** One request to the fixture `gate`: it says when it runs, and runs until it is opened. */
export class Gate {
  readonly request: Int32Array = new Int32Array(new SharedArrayBuffer(8));

  /** Whether the native call has begun. */
  get entered(): boolean {
    return Atomics.load(this.request, 0) === 1;
  }

  async untilEntered(): Promise<void> {
    await eventually(
      () => this.entered,
      (entered) => entered,
      'the gate is entered',
    );
  }

  /** Blocks this thread until the native call has begun: nothing else here can happen before. */
  untilEnteredBlocking(): void {
    const endMs = performance.now() + DEADLINE_MS;
    while (!this.entered) {
      if (performance.now() > endMs) throw new Error('the gate is not entered');
    }
  }

  open(): void {
    Atomics.store(this.request, 1, 1);
  }
}

/** A gate that is open at the latest when the test is over: no native call outlives it. */
export function gate(t: ExecutionContext): Gate {
  const made = new Gate();
  t.teardown(() => made.open());
  return made;
}

/** Makes any number of such gates. */
export function gateMaker(t: ExecutionContext): (count?: number) => Gate[] {
  const made: Gate[] = [];
  t.teardown(() => {
    for (const gate of made) gate.open();
  });
  return (count = 1) => {
    const gates = Array.from({ length: count }, () => new Gate());
    made.push(...gates);
    return gates;
  };
}
