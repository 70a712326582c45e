/** What the engine's tests share: a registry of their own, gates, polling with a deadline. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { fixture, fixturesDir } from '../fixtures/paths.js';
import {
  type HandlerError,
  HandlerRegistry,
  type RegistryOptions,
  type VersionStats,
} from '../src/index.js';

export { fixture };

const POLL_MS = 2;
const PATIENCE_MS = 20_000;

/** Resolves once `read` returns something that `accept` accepts; fails with the last value seen. */
export async function eventually<T>(
  read: () => T | Promise<T>,
  accept: (value: T) => boolean,
  what: string,
): Promise<T> {
  const endMs = performance.now() + PATIENCE_MS;
  for (;;) {
    const value = await read();
    if (accept(value)) return value;
    if (performance.now() > endMs) {
      throw new Error(`${what}: not after ${PATIENCE_MS} ms; last seen: ${JSON.stringify(value)}`);
    }
    await pause(POLL_MS);
  }
}

/** Blocks this thread, event loop and all. */
export function blockMainThread(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** A request to the fixture `gate`: it says when it runs, and runs until it is opened. */
export class Gate {
  readonly request: Uint8Array;
  readonly #words: Int32Array;

  constructor() {
    const memory = new SharedArrayBuffer(8);
    this.request = new Uint8Array(memory);
    this.#words = new Int32Array(memory);
  }

  /** Whether the native call has begun. */
  get entered(): boolean {
    return Atomics.load(this.#words, 0) === 1;
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
    const endMs = performance.now() + PATIENCE_MS;
    while (!this.entered) {
      if (performance.now() > endMs) throw new Error('the gate is not entered');
    }
  }

  open(): void {
    Atomics.store(this.#words, 1, 1);
  }
}

/** Makes gates, all of which are opened at the end of the test: no native call outlives it. */
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

export async function temporaryDir(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'changeover-test-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** A registry over the fixtures with one lane and a cache of its own, closed at the end of the test. */
export async function makeRegistry(
  t: ExecutionContext,
  options: RegistryOptions = {},
): Promise<HandlerRegistry> {
  const cacheDir = await temporaryDir(t);
  const registry = new HandlerRegistry({
    handlersDir: fixturesDir,
    cacheDir,
    threads: 1,
    ...options,
  });
  t.teardown(() => registry.close({ timeoutMs: 10_000 }));
  return registry;
}

/** What a promise is rejected with. Attached at once, so that no rejection goes unhandled. */
export function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (value) => {
      throw new Error(`it was not rejected but gave ${String(value)}`);
    },
    (reason: unknown) => reason,
  );
}

/** The fields of a rejection that tests compare. */
export async function failure<F extends string>(
  promise: Promise<unknown>,
  ...fields: F[]
): Promise<Record<string, unknown>> {
  return fieldsOf(await rejection(promise), ...fields);
}

export function fieldsOf(reason: unknown, ...fields: string[]): Record<string, unknown> {
  const error = reason as HandlerError & Record<string, unknown>;
  const code: unknown = error?.code ?? `no code: ${String(reason)}`;
  return Object.fromEntries([['code', code], ...fields.map((field) => [field, error[field]])]);
}

/** The statistics of the active version of `id`. */
export function activeStats(registry: HandlerRegistry, id: string): VersionStats {
  const versions = registry.stats().endpoints.find((endpoint) => endpoint.id === id)?.versions;
  const version = versions?.find(({ state }) => state === 'active');
  if (version === undefined) throw new Error(`'${id}' has no active version`);
  return version;
}

/** The active version of `id`, which must be there. */
export function activeOf(registry: HandlerRegistry, id: string) {
  const handler = registry.get(id);
  if (handler === undefined) throw new Error(`'${id}' is not loaded`);
  return handler;
}

/** Records the order of events with the fields that matter. */
export function record<T>(log: T[]): (entry: T) => void {
  return (entry) => void log.push(entry);
}
