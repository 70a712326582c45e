/** Registries on the fixtures that are closed again, and what tests ask of them. */

import { readdir } from 'node:fs/promises';
import type { ExecutionContext } from 'ava';
import { fixturesDir } from '../../fixtures/paths.js';
import {
  HandlerRegistry,
  type LoadedHandler,
  type RegistryOptions,
  type VersionStats,
} from '../../src/index.js';
import { scratch } from './files.js';
import { eventually } from './polling.js';

export interface OwnRegistry {
  registry: HandlerRegistry;
  /** Private copies of this registry alone. */
  cacheDir: string;
}

/**
 * A registry on the fixtures with one lane a version, without pre-flight and with a cache directory of its own. A test that is about
 * several lanes or about pre-flight says so: both cost more than most of what is tested.
 *
 * After the test it is closed, and the test fails if a private copy is left, which goes last of all.
 */
export async function openRegistry(
  t: ExecutionContext,
  options: RegistryOptions = {},
): Promise<OwnRegistry> {
  const cacheDir = await scratch(t);
  const registry = new HandlerRegistry({
    threads: 1,
    preflight: false,
    handlersDir: fixturesDir,
    cacheDir,
    // A busy machine may take longer than users would wait.
    loadTimeoutMs: 60_000,
    ...options,
  });
  t.teardown(async () => {
    await registry.close();
    // A test may have closed it itself with little time; then the last of it goes when its native calls have returned.
    await eventually(
      () => readdir(cacheDir),
      (left) => left.length === 0,
      'close leaves nothing in the cache directory',
    );
  });
  return { registry, cacheDir };
}

/** The active version of `id`, which must be there. */
export function activeOf(registry: HandlerRegistry, id: string): LoadedHandler {
  const handler = registry.get(id);
  if (handler === undefined) throw new Error(`'${id}' is not loaded`);
  return handler;
}

/** Its statistics. */
export function activeStats(registry: HandlerRegistry, id: string): VersionStats {
  const versions = registry.stats().endpoints.find((endpoint) => endpoint.id === id)?.versions;
  const version = versions?.find(({ state }) => state === 'active');
  if (version === undefined) throw new Error(`'${id}' has no active version`);
  return version;
}
