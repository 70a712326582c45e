/**
 * What the programs of the fault matrix share: each is a small backend that tells the process that started it, line by line, what it
 * asked for and what it got. Lines are written synchronously, so what was told before a crash is told.
 */

import { writeSync } from 'node:fs';
import { exitProcess, HandlerRegistry, type RegistryOptions } from '../../src/index.js';

/** One line. `who` says which kind of request it is, `fields` what an error or a report says. */
export type Line =
  | { type: 'accepted'; request: number; who: string }
  | { type: 'settled'; request: number; fields: Fields }
  | { type: 'said'; what: string; fields: Fields }
  | { type: 'recovered'; ms: number }
  | { type: 'done' };

export type Fields = Record<string, unknown>;

interface Answer {
  text(): string;
}

const FOREVER = Number.POSITIVE_INFINITY;
export const PATIENCE_MS = 60_000;
/** A hang is waited for until this many good loads would have been done: a busy machine slows both. */
const GOOD_LOADS = 10;
const LEAST_HANG_MS = 2000;
/**
 * When a call that never ends is given up. A lane that has nothing else to do has to have begun it by then, however busy the machine is: a
 * request that is late is refused before its call.
 */
export const GIVE_UP_MS = 2000;

export function tell(line: Line): void {
  let rest = Buffer.from(`${JSON.stringify(line)}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      // The pipe is full, and does not block: whoever reads it is busy.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}

/** The arguments of a program: one object, as JSON. */
export function given<T>(): T {
  return JSON.parse(process.argv[2] ?? '{}') as T;
}

/** A registry with one lane a version, which finds stuck calls soon. Requests time out only where a program says so. */
export function open(options: RegistryOptions): HandlerRegistry {
  return new HandlerRegistry({
    threads: 1,
    cancelGraceMs: 50,
    cleanupIntervalMs: 0,
    loadTimeoutMs: PATIENCE_MS,
    defaultTimeoutMs: FOREVER,
    ...options,
  });
}

let requests = 0;

/** Tells of a request, and resolves once it is settled, however that was. */
export async function ask(who: string, answer: Promise<Answer>): Promise<Fields> {
  const request = ++requests;
  tell({ type: 'accepted', request, who });
  const fields = await answer.then((response) => ({ ok: response.text() }), fieldsOf);
  tell({ type: 'settled', request, fields });
  return fields;
}

/** Tells how an operation went. */
export async function say(what: string, operation: Promise<unknown>): Promise<Fields> {
  const fields = await operation.then(plain, fieldsOf);
  tell({ type: 'said', what, fields });
  return fields;
}

/** Waits until a native call runs. It must not end by itself, or this may come too late to see it. */
export async function untilRunning(registry: HandlerRegistry): Promise<void> {
  const versions = () => registry.stats().endpoints.flatMap((endpoint) => endpoint.versions);
  while (!versions().some(({ running }) => running > 0)) await new Promise(setImmediate);
}

/** Does a good load, and tells how long to wait for one that hangs, so that it has come to the hang by then. */
export async function hangTimeoutMs(goodLoad: () => Promise<unknown>): Promise<number> {
  const beginMs = performance.now();
  await goodLoad();
  return Math.max(LEAST_HANG_MS, GOOD_LOADS * (performance.now() - beginMs));
}

/** Waits until a request to `id` is answered with success, and tells how long that took from now. */
export async function recover(registry: HandlerRegistry, id: string): Promise<void> {
  const beginMs = performance.now();
  while (performance.now() - beginMs < PATIENCE_MS) {
    const answered = await registry.executeWithTimeout(id, {}, 'good', PATIENCE_MS).then(
      () => true,
      () => new Promise<false>((resolve) => setTimeout(resolve, 5, false)),
    );
    if (!answered) continue;
    tell({ type: 'recovered', ms: performance.now() - beginMs });
    return;
  }
}

/** Asks `id` again and again, a few at a time, until `until` is settled. */
export async function askUntil(
  registry: HandlerRegistry,
  id: string,
  until: Promise<unknown>,
): Promise<void> {
  let over = false;
  const end = () => {
    over = true;
  };
  until.then(end, end);
  do {
    const meanwhile = [1, 2, 3].map(() => registry.executeWithTimeout(id, {}, 'good', FOREVER));
    await Promise.all(meanwhile.map((answer) => ask('meanwhile', answer)));
    await new Promise((resolve) => setTimeout(resolve, 10));
  } while (!over);
}

/** How a program closes its registry. */
export interface Closing {
  /** Absent if nothing has to be left behind: then it takes as long as it takes. */
  closeMs?: number;
  /** Whether all that can be unloaded is unloaded before, however long that takes: a short close then leaves nothing else behind. */
  unloadFirst?: boolean;
}

/** Closes the registry, tells what that left behind, and ends the process, stuck calls or not. */
export async function finish(
  registry: HandlerRegistry,
  { closeMs, unloadFirst = false }: Closing,
): Promise<never> {
  if (unloadFirst) await Promise.all(registry.list().map(({ id }) => registry.unload(id)));
  await close(registry, closeMs);
  return exitProcess(0);
}

/** Closes the registry, and tells what that left behind. */
export async function close(registry: HandlerRegistry, timeoutMs = PATIENCE_MS): Promise<void> {
  const { dropped, leftBehind } = await registry.close({ timeoutMs });
  tell({ type: 'said', what: 'close', fields: { dropped, leftBehind: leftBehind.length } });
  tell({ type: 'done' });
}

/** What a program can tell of an error: its class, and its fields that are plain values. */
export function fieldsOf(reason: unknown): Fields {
  if (!(reason instanceof Error)) return { thrown: String(reason) };
  return { class: reason.name, ...plain(reason), message: reason.message };
}

function plain(value: unknown): Fields {
  const entries = Object.entries(value ?? {});
  return Object.fromEntries(entries.filter(([, field]) => Object(field) !== field));
}
