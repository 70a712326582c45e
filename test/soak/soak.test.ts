/** The soak as a user runs it: a few seconds of it, in a process of its own. */

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { scratch } from '../support/files.js';
import { kinds } from './kinds.js';

const main = fileURLToPath(new URL('main.js', import.meta.url));

interface Finished {
  exitCode: number;
  stdout: string;
  stderr: string;
}

function soak(...args: string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const command = ['--expose-gc', main, ...args];
    execFile(process.execPath, command, { timeout: 100_000 }, (error, stdout, stderr) => {
      if (error === null) resolve({ exitCode: 0, stdout, stderr });
      else if (typeof error.code === 'number') resolve({ exitCode: error.code, stdout, stderr });
      else reject(error);
    });
  });
}

test('nothing is lost, wrong or left behind', async (t) => {
  const file = join(await scratch(t), 'soak.md');
  // What else the machine does must not count.
  const args = ['--minutes', '0.03', '--seed', '7', '--patience', '60', '--json', '--report', file];
  const finished = await soak(...args);

  const report = JSON.parse(finished.stdout);
  t.deepEqual(report.problems, {});
  t.is(finished.exitCode, 0);
  t.true(report.passed);
  t.is(report.lost, 0);
  t.is(report.seed, 7);
  // Every caller sends at least one, and where nothing but graceful swaps happens each is answered.
  const callers = kinds.reduce((sum, kind) => sum + kind.callers, 0);
  const undisturbed = kinds.find(({ id }) => id === 'deployments')?.callers ?? callers;
  t.true(report.requests.sent >= callers);
  t.is(report.requests.settled, report.requests.sent);
  t.true(report.outcomes.answered >= undisturbed);
  t.regex(await readFile(file, 'utf8'), /\*\*Nothing was lost, wrong or left behind\.\*\*/);
});

const refused: Record<string, string[]> = {
  'an unknown option': ['--no-such-option'],
  'no time at all': ['--minutes', '0'],
  'half a seed': ['--seed', '0.5'],
  'no patience': ['--patience', '0'],
  'an endpoint that there is not': ['--only', 'nothing'],
};

for (const [what, args] of Object.entries(refused)) {
  test(`refuses ${what} in one line`, async (t) => {
    const { exitCode, stdout, stderr } = await soak(...args);

    t.is(exitCode, 2);
    t.is(stdout, '');
    t.regex(stderr, /^soak: [^\n]+\n$/);
  });
}

test('--help says what there is', async (t) => {
  const { exitCode, stdout } = await soak('--help');

  t.is(exitCode, 0);
  for (const option of [
    '--minutes',
    '--seed',
    '--change-every',
    '--patience',
    '--only',
    '--json',
    '--report',
  ]) {
    t.true(stdout.includes(option), option);
  }
});
