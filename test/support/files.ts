/** Directories and libraries of a test's own. */

import { copyFile, mkdtemp, readdir, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { fixture } from '../../fixtures/paths.js';

/** An empty directory, which is removed after the test. */
export async function scratch(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'changeover-test-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** A copy of a fixture at a path of its own. */
export async function copyOf(id: string, path: string): Promise<string> {
  await copyFile(fixture(id), path);
  return path;
}

/** The private copies below a cache directory. */
export async function copiesIn(cacheDir: string): Promise<string[]> {
  const stores = await readdir(cacheDir);
  const names = await Promise.all(stores.map((store) => readdir(join(cacheDir, store))));
  return names.flat();
}
