/**
 * The ring's two sides, from the compiled modules that the library itself runs, with a simulated `Atomics`, clock and memory
 * in place of the real ones, and with one passage replaced where a mutation is tried.
 */

import { readFileSync } from 'node:fs';
import type { RingConsumer } from '../../src/ring/consumer.js';
import * as layout from '../../src/ring/layout.js';
import type { RingProducer } from '../../src/ring/producer.js';
import type { Machine } from './machine.js';

export type RingModule = 'producer' | 'consumer';

/** A change to the compiled text of one module. `from` occurs exactly once. */
export interface Mutation {
  readonly module: RingModule;
  readonly from: string;
  readonly to: string;
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
  producer: readFileSync(new URL('../../src/ring/producer.js', import.meta.url), 'utf8'),
  consumer: readFileSync(new URL('../../src/ring/consumer.js', import.meta.url), 'utf8'),
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
    '../watch-policy.js': { WatchPolicy: AlwaysWatch },
    'node:assert': { strict: assertion },
  };
  const load = (module: RingModule): object => {
    const code = asFunctionBody(mutated(sources[module], module, mutation));
    return new Function('Atomics', 'IgnoringAtomics', 'performance', 'modules', code)(
      machine.atomics,
      machine.ignoringAtomics,
      machine.performance,
      modules,
    ) as object;
  };
  return { ...load('producer'), ...load('consumer') } as RingClasses;
}

/** Whether a lane watches is up to the script, by `$watches`; not watching is the same with and without a pause. */
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

function mutated(source: string, module: RingModule, mutation: Mutation | undefined): string {
  if (mutation?.module !== module) return source;
  const places = source.split(mutation.from).length - 1;
  if (places !== 1) {
    throw new Error(`a mutation of ${module} fits in ${places} places: ${mutation.from}`);
  }
  return source.replace(mutation.from, () => mutation.to);
}

/**
 * An ES module as the body of a function that returns its exports. Private names become names that start with `$`, and calls
 * that are statements are marked as such.
 */
function asFunctionBody(source: string): string {
  const exported: string[] = [];
  const body = source
    .replace(/^import \{([^}]*)\} from '([^']+)';$/gm, (_, names: string, from: string) => {
      return `const {${names.replace(/ as /g, ': ')}} = modules['${from}'];`;
    })
    .replace(/^export (class|const|function) (\w+)/gm, (_, kind: string, name: string) => {
      exported.push(name);
      return `${kind} ${name}`;
    })
    .replace(/(?<=[;{})]\s*\n\s*)Atomics\./g, 'IgnoringAtomics.')
    .replace(/#(?=[a-zA-Z])/g, '$');
  return `'use strict';\n${body}\nreturn { ${exported.join(', ')} };`;
}
