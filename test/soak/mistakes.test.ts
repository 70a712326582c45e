/** The soak notices mistakes that were made in the engine on purpose. */

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import type { Mistake } from './mistake-hooks.js';

const main = fileURLToPath(new URL('main.js', import.meta.url));
const preload = new URL('mistake.js', import.meta.url).href;

/** The problems that a few seconds of one endpoint's soak find. */
function problemsWith(mistake: Mistake, only: string): Promise<string[]> {
  // The first library of each stays, with two lanes, so that what happens depends on no choice of time.
  const stays = ['--change-every', '3600', '--seed', '2', '--patience', '1'];
  const soak = ['--minutes', '0.06', ...stays, '--json', '--only', only];
  const args = ['--expose-gc', '--import', preload, main, ...soak];
  const env = { ...process.env, CHANGEOVER_TEST_MISTAKE: JSON.stringify(mistake) };
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { env, timeout: 150_000 }, (error, stdout) => {
      if (error === null) resolve([]);
      else if (error.code !== 1) reject(error);
      else resolve(Object.keys((JSON.parse(stdout) as { problems: object }).problems));
    });
  });
}

interface Row {
  readonly mistake: Mistake;
  readonly only: string;
  readonly problem: RegExp;
}

const rows: Record<string, Row> = {
  'a lost lane that is not replaced': {
    mistake: {
      module: 'lane-machine.js',
      from: `this.#count('serving', 'starting') < this.#limits.threads`,
      to: `this.#count('serving', 'starting') < 1`,
    },
    only: 'crash-loops',
    problem: /^crash-loops: left in peace, it does not recover/,
  },
  'a circuit that opens and sets no timer': {
    mistake: {
      module: 'lane-machine.js',
      from: `this.#set({ purpose: 'retry' }, retryMs);`,
      to: '',
    },
    only: 'crash-loops',
    problem: /^crash-loops: (wedged, it refuses|left in peace, it does not)/,
  },
  'a request that is counted twice': {
    mistake: {
      module: 'dispatcher.js',
      from: 'this.#totals.succeeded += 1;',
      to: 'this.#totals.succeeded += 2;',
    },
    only: 'deployments',
    problem: /^deployments@\d+: succeeded: said/,
  },
};

for (const [what, { mistake, only, problem }] of Object.entries(rows)) {
  test.serial(`noticed: ${what}`, async (t) => {
    t.timeout(160_000);
    const problems = await problemsWith(mistake, only);
    t.true(
      problems.some((text) => problem.test(text)),
      problems.join('\n'),
    );
  });
}
