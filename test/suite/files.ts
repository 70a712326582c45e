/** Which test files there are, and which of them must have the machine for themselves. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../fixtures/paths.js';

/**
 * These files run one after the other, when nothing else does. All others pass beside whatever
 * else is going on; these measure memory and mappings over minutes, or keep all cores busy alone.
 */
const ALONE: readonly string[] = ['test/real/libraries.test.ts', 'test/soak/soak.test.ts'];

/**
 * What needs the packages of a dozen libraries and minutes of both cores. It is run by name:
 * `npm test -- real`.
 */
const BY_NAME_ONLY = 'test/real/';

/** The parts of a run: files of one part run as many at a time as `concurrency` says. */
export interface Part {
  readonly files: readonly string[];
  /** Null: one for each core. */
  readonly concurrency: number | null;
}

/** The files that `npm test` runs, relative to the package, in the order of their names. */
export function allTestFiles(): string[] {
  return everyTestFile().filter((file) => !file.startsWith(BY_NAME_ONLY));
}

function everyTestFile(): string[] {
  return readdirSync(join(packageRoot, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => `test/${file.replaceAll('\\', '/')}`)
    .sort();
}

/** Divides `files` into what may run side by side and what may not. */
export function partsOf(files: readonly string[]): Part[] {
  const parts: Part[] = [
    { files: files.filter((file) => !ALONE.includes(file)), concurrency: null },
    { files: files.filter((file) => ALONE.includes(file)), concurrency: 1 },
  ];
  return parts.filter((part) => part.files.length > 0);
}

/**
 * The test files that `names` stand for: a file, a folder, or any part of a path.
 *
 * @throws if a name stands for none.
 */
export function matchingFiles(names: readonly string[]): string[] {
  if (names.length === 0) return allTestFiles();
  const every = everyTestFile();
  const chosen = new Set<string>();
  for (const name of names) {
    const found = every.filter((file) => file.includes(name));
    if (found.length === 0) {
      throw new Error(`expected a test file or a part of its path, got ${JSON.stringify(name)}`);
    }
    for (const file of found) chosen.add(file);
  }
  return [...chosen].sort();
}
