/** What the engine's tests share: registries that are closed again, gates, polling, and what the process holds. */

import { copyFile, mkdtemp, readdir, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { fixture, fixturesDir } from '../fixtures/paths.js';
import { HandlerRegistry, type RegistryOptions } from '../src/index.js';

export { fixture };

/** For what only Linux can tell: mappings, threads and descriptors come from /proc. */
export const onLinux = process.platform === 'linux' ? test : test.skip;

/** A response's claim is only checked where the platform can tell. */
export const UNLOADED = process.platform === 'linux' ? 'unloaded' : 'unverified';

const DEADLINE_MS = 20_000;
const POLL_MS = 2;

/** An empty directory of the test's own, which is removed after it. */
export async function scratch(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'changeover-test-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

export interface OwnRegistry {
  registry: HandlerRegistry;
  /** Private copies of this registry alone. */
  cacheDir: string;
}

/**
 * A registry on the fixtures with one lane a version and a cache directory of its own. After the test it is
 * closed, and the test fails if that leaves anything behind.
 */
export async function openRegistry(
  t: ExecutionContext,
  options: RegistryOptions = {},
): Promise<OwnRegistry> {
  const cacheDir = await scratch(t);
  const registry = new HandlerRegistry({
    threads: 1,
    handlersDir: fixturesDir,
    cacheDir,
    ...options,
  });
  t.teardown(async () => {
    const { leftBehind } = await registry.close();
    if (leftBehind.length > 0) throw new Error(`close left behind ${inspect(leftBehind)}`);
    const left = await readdir(cacheDir);
    if (left.length > 0) throw new Error(`close left in the cache directory ${inspect(left)}`);
  });
  return { registry, cacheDir };
}

/** A request to the fixture `gate`: its native call lasts until the test releases it. */
export interface Gate {
  readonly request: Int32Array;
  /** Resolves once the native call has begun. */
  started(): Promise<void>;
  release(): void;
}

/** A gate that is open at the latest when the test is over. */
export function gate(t: ExecutionContext): Gate {
  const request = new Int32Array(new SharedArrayBuffer(8));
  const release = () => void Atomics.store(request, 1, 1);
  t.teardown(release);
  const started = async () => {
    await eventually(
      () => Atomics.load(request, 0),
      (word) => word === 1,
    );
  };
  return { request, started, release };
}

/** Polls until `wanted` accepts what `read` gives, and returns it; fails with the last value seen. */
export async function eventually<T>(
  read: () => T | Promise<T>,
  wanted: (value: T) => boolean,
  deadlineMs = DEADLINE_MS,
): Promise<T> {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const value = await read();
    if (wanted(value)) return value;
    if (performance.now() > endMs) {
      throw new Error(`still ${inspect(value)} after ${deadlineMs} ms; wanted ${wanted}`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Whether a promise has settled. Lets everything run that is due. */
export async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = () => {
    settled = true;
  };
  promise.then(settle, settle);
  await turns(5);
  return settled;
}

/** Lets the event loop go round. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}

/** What a promise was rejected with; fails if it was not. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  let value: unknown;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`expected a rejection, got ${inspect(value)}`);
}

/** A text that a promise was resolved with, or the code of the error that it was rejected with. */
export async function outcome(promise: Promise<{ text(): string }>): Promise<string> {
  try {
    return (await promise).text();
  } catch (error) {
    return String((error as { code?: unknown }).code ?? error);
  }
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

/** The files below `directory` that this process maps, each once, removed ones included. */
export async function mappedIn(directory: string): Promise<string[]> {
  const maps = await readFile('/proc/self/maps', 'utf8');
  const paths = maps.split('\n').map((line) => line.slice(line.indexOf('/')));
  return [...new Set(paths.filter((path) => path.startsWith(`${directory}/`)))];
}

export async function threadCount(): Promise<number> {
  return (await readdir('/proc/self/task')).length;
}

export async function descriptorCount(): Promise<number> {
  return (await readdir('/proc/self/fd')).length;
}
