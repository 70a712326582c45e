/** The README's tables against the code: what is written in two places differs sooner or later. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { packageRoot } from '../fixtures/paths.js';
import { resolveRegistryOptions } from '../src/options.js';

/** Everything in backticks in the first column of the table below a heading. */
async function firstColumn(heading: string): Promise<string[]> {
  const readme = await readFile(join(packageRoot, 'README.md'), 'utf8');
  const section = readme.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  const cells = [...section.matchAll(/^\| (`.*?) \|/gm)].map(([, cell = '']) => cell);
  return cells.flatMap((cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, name = '']) => name));
}

function same(t: ExecutionContext, written: readonly string[], real: readonly string[]): void {
  t.deepEqual([...written].sort(), [...new Set(real)].sort());
}

test('every option is in the table, and nothing else', async (t) => {
  const { endpoint, ...registry } = resolveRegistryOptions({ resourceLimits: {} });
  const names = [...Object.keys(registry), ...Object.keys(endpoint)];
  same(t, await firstColumn('Limits and defaults'), names);
});

test('every error code is in the table, and nothing else', async (t) => {
  const source = await readFile(join(packageRoot, 'src', 'errors.ts'), 'utf8');
  const codes = [...source.matchAll(/code = '(ERR_\w+)'/g)].map(([, code = '']) => code);
  t.true(codes.length > 0);
  same(t, await firstColumn('Errors'), codes);
});
