/**
 * Loads a compiled module with other globals and imports than its own: the code that the library runs, in a world that a test
 * controls.
 */

import { readFileSync } from 'node:fs';

export interface Surroundings {
  /** What the module finds instead of globals, by name. */
  readonly globals: Readonly<Record<string, unknown>>;
  /** What it imports, by specifier; default exports as `default`. */
  readonly modules: Readonly<Record<string, object>>;
}

export type Exports = Record<string, unknown>;

/** The text of the compiled module at `path` below `src/`. */
export function compiledSource(path: string): string {
  return readFileSync(new URL(`../../src/${path}`, import.meta.url), 'utf8');
}

/** A change to the text of a compiled module: `from` occurs exactly once. */
export interface Change {
  readonly from: string;
  readonly to: string;
}

export function changed(source: string, { from, to }: Change): string {
  const places = source.split(from).length - 1;
  if (places !== 1) throw new Error(`a change fits in ${places} places: ${from}`);
  return source.replace(from, () => to);
}

/** Runs the text of a compiled module. What is private in its classes can be reached by names that start with `$`. */
export function runModule(source: string, { globals, modules }: Surroundings): Exports {
  const exported: string[] = [];
  const body = source
    .replace(/^import \{([^}]*)\} from '([^']+)';$/gm, (_, names: string, from: string) => {
      return `const {${names.replace(/ as /g, ': ')}} = modules['${from}'];`;
    })
    .replace(/^import \* as (\w+) from '([^']+)';$/gm, "const $1 = modules['$2'];")
    .replace(/^import (\w+) from '([^']+)';$/gm, "const $1 = modules['$2'].default;")
    .replace(/^export ((?:async )?(?:class|const|function)) (\w+)/gm, (_, kind, name: string) => {
      exported.push(name);
      return `${kind} ${name}`;
    })
    .replace(/#(?=[a-zA-Z])/g, '$');
  const text = `'use strict';\n${body}\nreturn { ${exported.join(', ')} };`;
  const names = Object.keys(globals);
  return new Function(...names, 'modules', text)(...Object.values(globals), modules) as Exports;
}
