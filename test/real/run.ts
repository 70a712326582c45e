/** Runs one library in one isolation, and judges what came of it. */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildBoth, versionOf } from './build.js';
import type { Check, Row, Sample, Seen, Size, Task, Verdict } from './checks.js';
import type { Library } from './library.js';

/** Longer than any library takes, on a busy machine as well. */
const PATIENCE_MS = 300_000;

/**
 * In some tens of swaps the process still warms up: by 10 mappings and 50 to 170 KiB a swap,
 * whatever is loaded. A lane's stack that nobody gives back is 3 mappings for each of two lanes at
 * each swap, a version that stays at least one page of data and 4 mappings.
 */
const MAPPINGS_SLACK = 24;
const KIB_PER_SWAP = 256;
/** Copies that thread-locals may keep until the next unload, and the one that serves. */
const MOST_COPIES_SWEPT = 3;

const program = fileURLToPath(new URL('./host.js', import.meta.url));
const commandLine = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

type Isolation = Row['isolation'];
type Of<T extends Seen['type']> = Extract<Seen, { type: T }>;

export async function runRow(library: Library, isolation: Isolation, size: Size): Promise<Row> {
  const scratch = await mkdtemp(join(await realpath(tmpdir()), 'changeover-real-'));
  try {
    return await runIn(scratch, library, isolation, size);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

interface Prepared {
  built: { 1: string; 2: string };
  requests: { usual: Buffer; large: Buffer };
  inspected: Verdict;
}

const prepared = new Map<string, Promise<Prepared>>();

/** What is the same in threads and in processes, once. */
function preparedOf(library: Library): Promise<Prepared> {
  const made = prepared.get(library.name) ?? prepare(library);
  prepared.set(library.name, made);
  return made;
}

async function prepare(library: Library): Promise<Prepared> {
  const built = await buildBoth(library);
  const requests = await library.requests();
  return { built, requests, inspected: await inspect(library, built[1], requests.usual) };
}

async function runIn(
  scratch: string,
  library: Library,
  isolation: Isolation,
  size: Size,
): Promise<Row> {
  const { built, requests, inspected } = await preparedOf(library);
  const at = (name: string) => join(scratch, name);
  const task: Task = {
    libraries: [built[1], built[2]],
    versions: [versionOf(library.source, 1), versionOf(library.source, 2)],
    isolation,
    panic: library.panic ?? null,
    usualPath: at('usual'),
    largePath: at('large'),
    usualResponsePath: at('usual-response'),
    largeResponsePath: at('large-response'),
    cacheDir: at('cache'),
    size,
  };
  await writeFile(task.usualPath, requests.usual);
  await writeFile(task.largePath, requests.large);
  await mkdir(task.cacheDir, { mode: 0o700 });
  const ended = await runHost(task);
  const left = await readdir(task.cacheDir);
  const agrees = async (request: Buffer, path: string) =>
    (await library.agrees(request, await readFile(path), built[1]))
      ? []
      : [`not what ${library.judge} says`];
  const came = new Verdicts(ended);
  return {
    library: library.name,
    isolation,
    verdicts: [
      inspected,
      await came.to('result', async () => [
        ...(await agrees(requests.usual, task.usualResponsePath)),
        ...(came.all('panic')?.wrong ?? []),
      ]),
      await came.to('load', () => ofLoad(came.seen('load'))),
      await came.to('deadlines', () => came.seen('deadlines').wrong),
      await came.to('large', () => agrees(requests.large, task.largeResponsePath)),
      {
        ...(await came.to('swaps', () => ofSwaps(library, isolation, came.seen('swaps')))),
        ...noteOf(growthNote(came.all('swaps')?.samples ?? [])),
      },
      {
        ...(await came.to('unload', () => ofUnload(library, isolation, came.seen('unload')))),
        ...noteOf(fateOf(came.all('unload'))),
      },
      await came.to('exit', () => ofExit(library, ended, left)),
    ],
  };
}

interface Ended {
  seen: Seen[];
  stderr: string;
  exitCode: number | null;
  signal: NodeJS.Signals | null;
}

async function runHost(task: Task): Promise<Ended> {
  const args = ['--expose-gc', program, JSON.stringify(task)];
  const env = { ...process.env, RUST_BACKTRACE: '0', OPENSSL_CONF: '' };
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [exitCode, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  // What a crash has cut off is no line.
  const lines = stdout.split('\n').slice(0, -1);
  return { seen: lines.map((line) => JSON.parse(line) as Seen), stderr, exitCode, signal };
}

/**
 * What is said of each check: that it was not reached, that the host ended in it, or what was seen.
 */
class Verdicts {
  readonly #ended: Ended;

  constructor(ended: Ended) {
    this.#ended = ended;
  }

  all<T extends Seen['type']>(type: T): Of<T> | undefined {
    return this.#ended.seen.find((line): line is Of<T> => line.type === type);
  }

  seen<T extends Seen['type']>(type: T): Of<T> {
    const found = this.all(type);
    if (found === undefined) throw new Error(`the host has not said '${type}'`);
    return found;
  }

  async to(check: Check, judge: () => string[] | Promise<string[]>): Promise<Verdict> {
    const begun = this.#ended.seen.filter((line) => line.type === 'began');
    const isDone = this.all('done') !== undefined;
    if (!begun.some((line) => line.check === check)) {
      return { check, wrong: ['the host had ended'] };
    }
    if (!isDone && begun.at(-1)?.check === check) {
      const { signal, exitCode, stderr } = this.#ended;
      return { check, wrong: [`the host ended: ${signal ?? exitCode} ${lastWord(stderr)}`.trim()] };
    }
    return { check, wrong: await judge() };
  }
}

function ofLoad({ failures, answered }: Of<'load'>): string[] {
  const counted = [...new Set(failures)].map(
    (text) => `${failures.filter((failure) => failure === text).length} times ${text}`,
  );
  return answered > 0 ? counted : [...counted, 'nothing was answered'];
}

interface Growth {
  mappings: number;
  kibPerSwap: number;
}

/** Of as few samples nothing can be told. */
const FEWEST_SAMPLES = 6;

/** From when the first swaps have warmed everything up. Null if there were too few of them. */
function growthOf(samples: readonly Sample[]): Growth | null {
  if (samples.length < FEWEST_SAMPLES) return null;
  const settled = samples.slice(1);
  const [first, last] = [settled[0], settled.at(-1)];
  if (first === undefined || last === undefined) return null;
  return {
    mappings: last.mappings - first.mappings,
    kibPerSwap: Math.round(growthOfLeast(settled)),
  };
}

/**
 * Between the least of both halves: what waits to be collected comes and goes, what is left behind
 * is always there.
 */
function growthOfLeast(samples: readonly Sample[]): number {
  const half = Math.floor(samples.length / 2);
  const least = (some: readonly Sample[]) =>
    some.reduce((one, other) => (other.privateKiB < one.privateKiB ? other : one));
  const [before, after] = [least(samples.slice(0, half)), least(samples.slice(half))];
  return (after.privateKiB - before.privateKiB) / (after.swaps - before.swaps);
}

function ofSwaps({ inThreads }: Library, isolation: Isolation, seen: Of<'swaps'>): string[] {
  const growth = growthOf(seen.samples);
  const wrong = [...new Set(seen.wrong)];
  const copies = Math.max(0, ...seen.samples.map((sample) => sample.copies));
  const mostCopies =
    isolation === 'process'
      ? 0
      : { unloaded: 1, swept: MOST_COPIES_SWEPT, stays: Infinity }[inThreads];
  if (copies > mostCopies) wrong.push(`${copies} private copies mapped`);
  // What asks to stay does, and the report says so.
  if (growth === null || (isolation === 'thread' && inThreads === 'stays')) return wrong;
  if (growth.mappings > MAPPINGS_SLACK) wrong.push(`${growth.mappings} mappings more`);
  if (growth.kibPerSwap > KIB_PER_SWAP) wrong.push(`${growth.kibPerSwap} KiB more each`);
  return wrong;
}

function ofUnload(
  { inThreads, reason: expected }: Library,
  isolation: Isolation,
  seen: Of<'unload'>,
): string[] {
  const wrong = seen.leftBehind.map((what) => `left behind: ${what}`);
  const fate = isolation === 'process' ? 'unloaded' : inThreads;
  for (const { library, reason, mapped } of seen.retirements) {
    if ((library === 'resident') !== mapped) {
      wrong.push(`the report says ${library}, and it is ${mapped ? '' : 'not '}mapped`);
    }
    if (library === 'unloaded' ? fate === 'stays' : fate === 'unloaded') {
      wrong.push(`${library}: ${reason ?? 'without a reason'}`);
    }
    if (library !== 'unloaded' && expected?.test(reason ?? '') === false) {
      wrong.push(`not the reason: ${reason}`);
    }
  }
  return [...new Set(wrong)];
}

function ofExit({ says }: Library, { exitCode, signal, stderr }: Ended, left: string[]): string[] {
  const wrong = exitCode === 0 ? [] : [`ended with ${signal ?? exitCode}`];
  const strange = stderr.split('\n').filter((line) => line !== '' && says?.test(line) !== true);
  if (strange.length > 0) wrong.push(`said: ${strange[0]}`);
  if (says !== undefined && !stderr.split('\n').some((line) => says.test(line))) {
    wrong.push('what it prints never came');
  }
  if (left.length > 0) wrong.push(`private copies are left: ${left.join(', ')}`);
  return wrong;
}

interface Inspected {
  binding: { mode: string } | null;
  refused: { code: string; message: string } | null;
  dependencies: { name: string; path?: string | null }[] | null;
  handlerSymbols: string[] | null;
  preflight: { unloads: boolean | null; info: { name: string | null } } | null;
  warnings: { code: string }[];
}

async function inspect(library: Library, path: string, request: Buffer): Promise<Verdict> {
  const scratch = await mkdtemp(join(tmpdir(), 'changeover-real-'));
  try {
    const requestPath = join(scratch, 'request');
    await writeFile(requestPath, request);
    return await inspectWith(library, path, requestPath);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function inspectWith(library: Library, path: string, requestPath: string): Promise<Verdict> {
  const args = [commandLine, 'inspect', path, '--json', '--self-test', requestPath];
  const [code, stdout] = await new Promise<[number | string, string]>((resolve) => {
    execFile(process.execPath, args, (error, text) => resolve([error?.code ?? 0, text]));
  });
  if (code !== 0) {
    const refused = stdout === '' ? null : (JSON.parse(stdout) as Inspected).refused;
    return { check: 'inspect', wrong: [`exit code ${code}: ${refused?.code} ${refused?.message}`] };
  }
  const { binding, dependencies, handlerSymbols, preflight, warnings } = JSON.parse(
    stdout,
  ) as Inspected;
  const wrong: string[] = [];
  for (const name of library.dependencies) {
    const path = dependencies?.find((dependency) => dependency.name === name)?.path;
    if (typeof path !== 'string')
      wrong.push(`${name}: ${path === null ? 'not found' : 'not told'}`);
  }
  for (const symbol of ['handler_abi_version', 'handler_entry']) {
    if (handlerSymbols?.includes(symbol) !== true) wrong.push(`${symbol} is not listed`);
  }
  if (library.binding !== undefined && binding?.mode !== library.binding) {
    wrong.push(`its binding is ${binding?.mode}, not ${library.binding}`);
  }
  const codes = warnings.map((warning) => warning.code).sort();
  if (codes.join() !== [...library.warnings].sort().join()) {
    wrong.push(
      `warns of ${codes.join(', ') || 'nothing'}, not of ${library.warnings.join(', ') || 'nothing'}`,
    );
  }
  if (preflight?.unloads !== (library.inThreads === 'unloaded')) {
    wrong.push(`'unloads' is ${preflight?.unloads}`);
  }
  return { check: 'inspect', wrong };
}

function growthNote(samples: readonly Sample[]): string | null {
  const growth = growthOf(samples);
  if (growth === null) return null;
  const signed = (value: number) => (value > 0 ? `+${value}` : String(value));
  return `${signed(growth.mappings)} mappings, ${signed(growth.kibPerSwap)} KiB each`;
}

/** What became of the versions, in one line. */
function fateOf(seen: Of<'unload'> | undefined): string | null {
  const fates = seen?.retirements.map(({ library, reason }) =>
    library === 'unloaded' ? library : `${library}: ${reason}`,
  );
  return fates === undefined ? null : [...new Set(fates)].join('; ');
}

/** What a program says as it ends: the error, or the last line. */
function lastWord(text: string): string {
  const lines = text.trim().split('\n');
  return lines.find((line) => /Error|error:/.test(line)) ?? lines.at(-1) ?? '';
}

const noteOf = (note: string | null): { note?: string } => (note === null ? {} : { note });
