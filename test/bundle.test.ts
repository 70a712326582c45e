/** Each program that a thread or child process runs is one file, with a source map that leads to its sources. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import test from 'ava';
import { packageRoot } from '../fixtures/paths.js';

const compiledDir = join(packageRoot, 'dist', 'workers');

/** Paths below workers/ of what the engine starts, as its sources name them. */
function programs(): string[] {
  const found = new Set<string>();
  for (const directory of ['src', 'workers']) {
    const root = join(packageRoot, directory);
    for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.ts')) continue;
      const source = readFileSync(join(root, name), 'utf8');
      for (const [, path = ''] of source.matchAll(/new URL\('([^']+\.js)', import\.meta\.url\)/g)) {
        found.add(path.replace(/^(?:\.\.\/)+workers\/|^\.\//, ''));
      }
    }
  }
  return [...found].sort();
}

test('what is started as a thread or a process is all that is looked at here', (t) => {
  t.true(programs().includes('lane.js'));
  t.true(programs().includes('process/program.js'));
});

for (const program of programs()) {
  const path = join(compiledDir, program);

  test(`${program} imports nothing but koffi and modules of Node`, (t) => {
    const imports = readFileSync(path, 'utf8').matchAll(
      /(?:^(?:import|export) [^;]*?from |^import |\bimport\()["']([^"']+)["']/gm,
    );
    const imported = [...imports].map(([, from = '']) => from);
    t.true(imported.some((from) => from.startsWith('node:')));
    t.deepEqual(
      imported.filter((from) => from !== 'koffi' && !from.startsWith('node:')),
      [],
    );
  });

  test(`the source map of ${program} leads to files of the package`, (t) => {
    const map = JSON.parse(readFileSync(`${path}.map`, 'utf8')) as { sources: string[] };
    const sources = map.sources.map((source) => resolve(dirname(path), source));
    t.true(sources.includes(join(packageRoot, 'workers', program.replace(/js$/, 'ts'))));
    t.deepEqual(
      sources.filter((source) => !existsSync(source)),
      [],
    );
  });
}
