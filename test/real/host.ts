/**
 * Loads one library as a backend would, and says what it sees: a program of its own, which a
 * library may crash. Its argument is a `Task`, its output lines are `Seen`. It ends by itself, when
 * nothing keeps it alive any more.
 */

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { childProcesses, settleMemory } from '../../bench/harness/process-state.js';
import { type DrainReport, HandlerRegistry } from '../../src/index.js';
import { loadCRuntime } from '../../workers/native-library.js';
import type { Check, Retirement, Sample, Seen, Task } from './checks.js';
import { nativeMemory } from './memory.js';

const ID = 'library';
const LANES = 2;
const CALLERS = 4;
const SWAPS_UNDER_LOAD = 3;
/** A busy machine is no fault of the library's. */
const PATIENT_MS = 60_000;
const DEADLINE_MS = 1;
/** Settling memory takes as long as several swaps. */
const SAMPLED_SWAPS = 5;
const LOOKS = 3;

const task = JSON.parse(process.argv[2] ?? '') as Task;
const say = (seen: Seen): void => void process.stdout.write(`${JSON.stringify(seen)}\n`);
const begin = (check: Check): void => say({ type: 'began', check });

const [usual, large] = await Promise.all([readFile(task.usualPath), readFile(task.largePath)]);
const registry = new HandlerRegistry({
  cacheDir: task.cacheDir,
  threads: LANES,
  isolation: task.isolation,
  // Responses to 16 MiB may have more.
  maxPayloadBytes: 32 * 1024 * 1024,
  defaultTimeoutMs: PATIENT_MS,
  loadTimeoutMs: PATIENT_MS,
  drainTimeoutMs: PATIENT_MS,
  // A call that nobody waits for any more returns by itself, if it gets the time.
  cancelGraceMs: PATIENT_MS,
});

/**
 * Private copies that this process maps: the files below the cache directory that are named for the
 * endpoint.
 */
function mappedCopies(): Set<string> {
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const paths = lines.map((line) => line.slice(line.indexOf('/')).replace(/ \(deleted\)$/, ''));
  const isCopy = (path: string) =>
    path.startsWith(`${task.cacheDir}/`) && basename(path).startsWith(`${ID}-`);
  return new Set(paths.filter(isCopy));
}

let served = 0;
/** The copies of the version that serves now, and of all that came before. */
let own: string[] = [];
const known = new Set<string>();

/** The next version, in turn. Its copies are those that were not mapped before. */
function loaded(): void {
  own = [...mappedCopies()].filter((path) => !known.has(path));
  for (const path of own) known.add(path);
  const version = registry.get(ID)?.info.version ?? null;
  assert.equal(version, task.versions[served % 2], 'the version that was loaded serves');
}

const retirements: Retirement[] = [];

function retired(report: DrainReport, copies: readonly string[]): void {
  const mapped = mappedCopies();
  retirements.push({
    library: report.library,
    reason: report.reason ?? null,
    mapped: copies.some((path) => mapped.has(path)),
  });
}

async function swap(wrong: string[], options: { preflight?: boolean } = {}): Promise<void> {
  const before = own;
  served += 1;
  const path = task.libraries[served % 2] ?? '';
  const { drained } = await registry.swapGraceful(ID, path, undefined, options);
  loaded();
  const report = await drained;
  assert(report !== undefined, 'a swap has an old version');
  retired(report, before);
  if (report.dropped > 0) wrong.push(`a swap dropped ${report.dropped}`);
}

const textOf = (error: unknown): string => {
  const { code, message } = error as { code?: string; message?: string };
  return `${code ?? 'no code'}: ${message ?? String(error)}`;
};

/** The response to the usual request, which never changes. */
async function ask(expected: Uint8Array, timeoutMs = PATIENT_MS): Promise<string | null> {
  try {
    const { bytes } = await registry.executeWithTimeout(ID, {}, usual, timeoutMs);
    return Buffer.from(bytes).equals(expected) ? null : `a response of ${bytes.length} bytes`;
  } catch (error) {
    return textOf(error);
  }
}

/**
 * A panic is an error of its request, or the end of its process; the next request is answered
 * either way.
 */
async function panics({ request, error }: NonNullable<Task['panic']>): Promise<string[]> {
  // Without unwinding there is nothing that a thread could survive.
  if (error === null && task.isolation === 'thread') return [];
  const wanted =
    error === null
      ? 'ERR_HANDLER_LANE_EXITED, SIGABRT'
      : `ERR_HANDLER_FAILED, ${error.code} ${error.message}`;
  const seen = await registry.execute(ID, {}, request).then(
    () => 'a response',
    (reason: { code: string; signal?: string; handlerCode?: number; handlerMessage?: string }) =>
      `${reason.code}, ${reason.signal ?? `${reason.handlerCode} ${reason.handlerMessage}`}`,
  );
  const after = await ask(first);
  return [
    ...(seen === wanted ? [] : [`a panic is ${seen}, not ${wanted}`]),
    ...(after === null ? [] : [`after a panic: ${after}`]),
  ];
}

begin('result');
await registry.loadFrom(ID, task.libraries[0]);
loaded();
const first = Buffer.from((await registry.execute(ID, {}, usual)).bytes);
await writeFile(task.usualResponsePath, first);

if (task.panic !== null) say({ type: 'panic', wrong: await panics(task.panic) });

begin('load');
{
  const failures: string[] = [];
  let answered = 0;
  let loading = true;
  const callers = Array.from({ length: CALLERS }, async () => {
    while (loading) {
      const failure = await ask(first);
      if (failure === null) answered += 1;
      else failures.push(failure);
    }
  });
  for (let swaps = 0; swaps < SWAPS_UNDER_LOAD; swaps++) await swap(failures);
  loading = false;
  await Promise.all(callers);
  say({ type: 'load', swaps: SWAPS_UNDER_LOAD, answered, failures });
}

begin('deadlines');
{
  const wrong: string[] = [];
  let answered = 0;
  let timedOut = 0;
  const stuck = () => wrong.push('a lane is stuck');
  registry.on('laneStuck', stuck);
  for (let asked = 0; asked < task.size.deadlines; asked += CALLERS) {
    const failures = await Promise.all(
      Array.from({ length: CALLERS }, () => ask(first, DEADLINE_MS)),
    );
    for (const failure of failures) {
      if (failure === null) answered += 1;
      else if (failure.startsWith('ERR_HANDLER_TIMEOUT')) timedOut += 1;
      else wrong.push(failure);
    }
  }
  const after = await ask(first);
  if (after !== null) wrong.push(`afterwards: ${after}`);
  registry.off('laneStuck', stuck);
  say({ type: 'deadlines', answered, timedOut, wrong });
}

begin('large');
await writeFile(task.largeResponsePath, (await registry.execute(ID, {}, large)).bytes);

begin('swaps');
{
  const wrong: string[] = [];
  const samples: Sample[] = [];
  const trim = loadCRuntime().func('malloc_trim', 'int', ['size_t']);
  for (let swaps = 1; swaps <= task.size.swaps; swaps++) {
    // The child process of a pre-flight takes nothing of this one, but half of the time.
    await swap(wrong, { preflight: false });
    const answers = await Promise.all(Array.from({ length: CALLERS }, () => ask(first)));
    wrong.push(...answers.filter((answer) => answer !== null));
    if (swaps % SAMPLED_SWAPS !== 0) continue;
    samples.push(await sample(swaps, trim));
  }
  say({ type: 'swaps', samples, wrong });
}

begin('unload');
{
  const before = own;
  retired(await registry.unload(ID, {}), before);
  const { leftBehind } = await registry.close();
  const processes = childProcesses();
  say({
    type: 'unload',
    retirements,
    mappedAtEnd: mappedCopies().size,
    leftBehind: [
      ...leftBehind.map((version) => JSON.stringify(version)),
      ...processes.map((pid) => `process ${pid}`),
    ],
  });
}
begin('exit');
say({ type: 'done' });

/**
 * The least of a few looks: buffers that were collected are freed by a thread of V8's, when it gets
 * to it.
 */
async function sample(swaps: number, trim: (left: number) => number): Promise<Sample> {
  const looks: Sample[] = [];
  for (let look = 0; look < LOOKS; look++) {
    await settleMemory();
    // What was freed and is kept for the next is the allocator's affair, and comes and goes by some
    // 20 MiB.
    trim(0);
    looks.push({ swaps, ...nativeMemory(), copies: mappedCopies().size });
  }
  return looks.reduce((one, other) => (other.privateKiB < one.privateKiB ? other : one));
}
