/**
 * Broken builds, by the hundred: with pre-flight none of them takes the host down, or the version that serves.
 *
 * `CHANGEOVER_RUNS` says how many have bits flipped (default 40), `CHANGEOVER_SEED` which. A failure says its seed.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { scratch } from '../support/files.js';
import { needs } from '../support/needs.js';
import type { HostLine, HostTask, Tried } from './host.js';

const RUNS = Number(process.env['CHANGEOVER_RUNS'] ?? 40);
const SEED = Number(process.env['CHANGEOVER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** How its parts lie in the file is only known here. */
const onLinuxX64 = needs('Linux x64', process.platform === 'linux' && process.arch === 'x64');

const REQUEST = 'what is asked';
const LOOKED_FOR = `CHANGEOVER_SEED=${SEED} CHANGEOVER_RUNS=${RUNS}`;

interface HostReport {
  readonly tried: readonly (Tried & { readonly mutant: string })[];
  /** What it was trying last. */
  readonly last: string;
  readonly end: readonly [exitCode: number | null, signal: string | null];
  readonly left: Extract<HostLine, { type: 'left' }> | undefined;
  /** In its cache directory. */
  readonly copies: readonly string[];
  readonly stderr: string;
}

async function runHost(
  t: ExecutionContext,
  task: Pick<HostTask, 'only' | 'preflight' | 'subject'>,
): Promise<HostReport> {
  const directory = await scratch(t);
  const cacheDir = await scratch(t);
  const given: HostTask = {
    ...task,
    scratch: directory,
    cacheDir,
    request: REQUEST,
    seed: SEED,
    runs: RUNS,
  };
  const host = spawn(
    process.execPath,
    [fileURLToPath(new URL('host.js', import.meta.url)), JSON.stringify(given)],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  t.teardown(() => void host.kill('SIGKILL'));
  const ended = once(host, 'close') as Promise<[number | null, string | null]>;
  let stderr = '';
  host.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const tried: (Tried & { mutant: string })[] = [];
  let last = 'nothing';
  let left: HostReport['left'];
  for await (const text of createInterface({ input: host.stdout })) {
    const line = JSON.parse(text) as HostLine;
    if (line.type === 'trying') last = line.mutant;
    else if (line.type === 'tried') tried.push({ ...line, mutant: last });
    else left = line;
  }
  const end = await ended;
  return { tried, last, end, left, copies: await readdir(cacheDir), stderr };
}

const SUBJECTS = {
  plain: 'no broken build takes the host down, or the version that serves',
  changed: 'nor does one whose copy is changed before it is loaded',
  brought: 'nor does a broken library that comes along',
} as const;

for (const [subject, title] of Object.entries(SUBJECTS)) {
  onLinuxX64(title, (t) => survives(t, subject as HostTask['subject']));
}

async function survives(t: ExecutionContext, subject: HostTask['subject']): Promise<void> {
  t.timeout(600_000);
  t.log(LOOKED_FOR);
  const task = { only: null, preflight: true, subject };
  const { tried, last, end, left, copies, stderr } = await runHost(t, task);

  t.deepEqual(end, [0, null], `with ${last}; ${LOOKED_FOR}; ${stderr}`);
  const wrong = tried.filter(
    ({ code, answer }) =>
      answer !== REQUEST || !(code ?? 'ERR_HANDLER_').startsWith('ERR_HANDLER_'),
  );
  t.deepEqual(wrong, [], LOOKED_FOR);
  t.deepEqual(left, { type: 'left', threads: 0, mapped: 0 });
  t.deepEqual(copies, []);
  const codes = tried.map(({ code }) => code ?? 'accepted');
  for (const code of new Set(codes))
    t.log(`${code}: ${codes.filter((one) => one === code).length}`);
}

onLinuxX64('one that takes the host down is noticed, and named', async (t) => {
  const only = 'the library without relocations';
  const { tried, last, end, stderr } = await runHost(t, {
    only,
    preflight: false,
    subject: 'plain',
  });

  // By a signal, or because the loader gives up the whole process, and says so.
  if (end[1] === null) t.regex(stderr, /ld\.so/);
  t.notDeepEqual(end, [0, null]);
  t.deepEqual([last, tried], [only, []]);
});
