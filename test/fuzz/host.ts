/**
 * A host that is given one broken build after the other while it serves, and tells, line by line, what it is about to load and what came of
 * that. Lines are written synchronously: if it dies, the last one says of what.
 */

import { writeSync } from 'node:fs';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { mappedFiles, openHandles } from '../../bench/harness/process-state.js';
import { fixture, neighbour } from '../../fixtures/paths.js';
import { HandlerError, HandlerRegistry } from '../../src/index.js';
import { outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { flipped, type Mutant, truncations, unrelocated, withoutSections } from './mutants.js';

/** Its one argument, as JSON. */
export interface HostTask {
  /** For the mutants, and for what the registry keeps. */
  readonly scratch: string;
  readonly cacheDir: string;
  readonly seed: number;
  /** Mutants with flipped bits. */
  readonly runs: number;
  /** One mutant of that name, or all there are. */
  readonly only: string | null;
  readonly preflight: boolean;
  /** What is broken: a handler that is loaded as it is, one whose copy is changed, or what that brings along. */
  readonly subject: 'plain' | 'changed' | 'brought';
  /** What is asked, of mutants and of the good build, both of which echo it. */
  readonly request: string;
}

/** How a mutant was received. */
export interface Tried {
  readonly type: 'tried';
  /** Of the error that refused it; null if it was accepted. */
  readonly code: string | null;
  /** What the endpoint answered then: the version that had been active, or the mutant. */
  readonly answer: string;
  /** What became of an accepted one once it was replaced: from the report of its drain. */
  readonly library: string | null;
}

export type HostLine =
  | { readonly type: 'trying'; readonly mutant: string }
  | Tried
  /** What is there at the end: more threads than at the beginning, and mapped copies. */
  | { readonly type: 'left'; readonly threads: number; readonly mapped: number };

/** For a mutant, which may hang. */
const LOAD_TIMEOUT_MS = 10_000;
/** For the good build: more than a busy machine needs. */
const PATIENCE_MS = 60_000;

const tell = (line: HostLine): void => void writeSync(1, `${JSON.stringify(line)}\n`);

const task = JSON.parse(process.argv[2] ?? '') as HostTask;
const isPlain = task.subject === 'plain';
const good = fixture(isPlain ? 'echo' : 'brings');
const path = join(task.scratch, 'libhandler_mutant.so');
const beside = join(task.scratch, basename(neighbour));
/** What is broken, and where it is put. */
const [original, target] = task.subject === 'brought' ? [neighbour, beside] : [good, path];
if (!isPlain) {
  await copyFile(good, path);
  await copyFile(neighbour, beside);
}
const { request } = task;
const selfTest = { request, check: (said: { text(): string }) => said.text() === request };
const options = {
  threads: 1,
  cacheDir: task.cacheDir,
  loadTimeoutMs: PATIENCE_MS,
  closeTimeoutMs: PATIENCE_MS,
};

function makeMutants(library: Uint8Array): Mutant[] {
  const whole = [
    ...truncations(library, 'the library'),
    ...truncations(withoutSections(library), 'the library without section headers'),
    unrelocated(library),
  ];
  // A cut is noticed before anything is changed, so one kind of handler is enough.
  const all = [...(isPlain ? whole : []), ...flipped(library, task.seed, task.runs)];
  return task.only === null ? all : all.filter(({ name }) => name === task.only);
}

/** Swaps to the mutant under the version that serves, and back if it was taken. */
async function attempt(registry: HandlerRegistry): Promise<Tried> {
  const preflight = task.preflight && { selfTest };
  const error: unknown = await registry
    .swapGraceful('x', path, undefined, { preflight, loadTimeoutMs: LOAD_TIMEOUT_MS })
    .then(
      () => null,
      (reason: unknown) => reason,
    );
  const answer = await outcome(registry.execute('x', {}, request));
  if (error !== null) {
    const code = error instanceof HandlerError ? error.code : `untyped: ${String(error)}`;
    return { type: 'tried', code, answer, library: null };
  }
  const { drained } = await registry.swapGraceful('x', good, undefined, {
    preflight: false,
    loadTimeoutMs: PATIENCE_MS,
  });
  return { type: 'tried', code: null, answer, library: (await drained)?.library ?? null };
}

const library = new Uint8Array(await readFile(original));
const registry = new HandlerRegistry(options);
await registry.loadFrom('x', good, { preflight: false });
const threadsBefore = openHandles().threads;
let resident = 0;
for (const { name, bytes } of makeMutants(library)) {
  await writeFile(target, bytes, { mode: 0o755 });
  tell({ type: 'trying', mutant: name });
  const tried = await attempt(registry);
  if (tried.library === 'resident') resident += 1;
  tell(tried);
}
const threads = await eventually(
  () => openHandles().threads,
  (count) => count <= threadsBefore,
);
await registry.close();
const mapped = mappedFiles(task.cacheDir) - resident;
tell({ type: 'left', threads: threads - threadsBefore, mapped });
