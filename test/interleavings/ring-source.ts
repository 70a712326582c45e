/**
 * The ring's two sides, from the compiled modules that the library itself runs, with a simulated `Atomics`, clock and memory
 * in place of the real ones, and with one passage replaced where a mutation is tried.
 */

import type { RingConsumer } from '../../src/ring/consumer.js';
import * as layout from '../../src/ring/layout.js';
import type { RingProducer } from '../../src/ring/producer.js';
import { type Change, changed, compiledSource, runModule } from '../support/compiled.js';
import type { Machine } from './machine.js';

export type RingModule = 'producer' | 'consumer';

/** A change to the compiled text of one module. */
export interface Mutation extends Change {
  readonly module: RingModule;
}

/** What is private to a `RingProducer`, and is its thread's own memory. */
export interface ProducerState {
  $free: Int32Array;
  $freeCount: number;
}

/** What is private to a `RingConsumer`. */
export interface ConsumerState {
  $watches: boolean;
}

export interface RingClasses {
  RingProducer: new (
    ...parameters: ConstructorParameters<typeof RingProducer>
  ) => RingProducer & ProducerState;
  RingConsumer: new (
    ...parameters: ConstructorParameters<typeof RingConsumer>
  ) => RingConsumer & ConsumerState;
}

const sources: Record<RingModule, string> = {
  producer: compiledSource('ring/producer.js'),
  consumer: compiledSource('ring/consumer.js'),
};

/**
 * The two classes over a machine's memory. The submission queue has `queueLength` places instead of 64 and more, so that short
 * scripts go all the way round it.
 */
export function ringClasses(
  machine: Machine,
  queueLength: number,
  mutation?: Mutation,
): RingClasses {
  const modules: Record<string, object> = {
    './layout.js': {
      ...layout,
      ringLayout: (shape: layout.RingShape) => ({
        ...layout.ringLayout(shape),
        queueMask: queueLength - 1,
      }),
      ringViews: () => ({ words: machine.view(1), doubles: machine.view(2), bytes: null }),
    },
    '../shared-memory.js': { reserveShared: () => null },
    // Not watching is explored too: by lanes whose last wait was long.
    '../watch-policy.js': { WatchPolicy: AlwaysWatch },
    'node:assert': { strict: assertion },
  };
  const globals = {
    Atomics: machine.atomics,
    IgnoringAtomics: machine.ignoringAtomics,
    performance: machine.performance,
  };
  const load = (module: RingModule) => {
    const applies = mutation?.module === module;
    const source = applies ? changed(sources[module], mutation) : sources[module];
    return runModule(withMarkedStatements(source), { globals, modules });
  };
  return { ...load('producer'), ...load('consumer') } as unknown as RingClasses;
}

class AlwaysWatch {
  allows(): boolean {
    return true;
  }
  succeeded(): void {}
  failed(): void {}
}

function assertion(holds: unknown, message: string): void {
  if (!holds) throw new Error(`assertion failed: ${message}`);
}

/** Marks calls that are statements: nobody looks at what they return. */
function withMarkedStatements(source: string): string {
  return source.replace(/(?<=[;{})]\s*\n\s*)Atomics\./g, 'IgnoringAtomics.');
}
