/** The load test as a user runs it: a process of its own, on the fixtures. */

import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import type { LoadReport } from '../../bench/load/report.js';
import { fixture } from '../../fixtures/paths.js';
import { scratch } from '../support/files.js';
import { atMost } from '../support/turns.js';

const bench = fileURLToPath(new URL('../../bench/main.js', import.meta.url));

interface Finished {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Each sends as much as it can: many side by side would leave each other no time to serve. */
const inTurn = atMost(2);

function runLoad(...args: string[]): Promise<Finished> {
  return inTurn(() => start(args));
}

function start(args: string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: 110_000 };
    execFile(process.execPath, [bench, '--load', ...args], limits, (error, stdout, stderr) => {
      if (error === null) resolve({ exitCode: 0, stdout, stderr });
      else if (typeof error.code === 'number') resolve({ exitCode: error.code, stdout, stderr });
      else reject(error);
    });
  });
}

const reportIn = ({ stdout }: Finished) => JSON.parse(stdout) as LoadReport;

const SHORT = ['--duration', '600ms', '--warm-up', '100ms'];
const SWAP = ['--library', fixture('version_a'), '--swap-to', fixture('version_b')];

for (const [kind, load] of Object.entries({
  'at a rate': ['--rate', '500', '--timeout', '60s'],
  'from callers': ['--concurrency', '4', '--threads', '2', '--timeout', '60s'],
})) {
  const scheduled = load.includes('--rate');
  test(`${kind}, a swap half-way loses nothing`, async (t) => {
    const finished = await runLoad(...SWAP, ...SHORT, ...load, '--json');

    t.is(finished.stderr, '');
    t.is(finished.exitCode, 0);
    const report = reportIn(finished);
    t.true(report.answered > 0);
    t.is(report.failed, 0);
    t.is(report.requests, report.answered);
    t.deepEqual(
      report.versions.map(({ version }) => version),
      [1, 2],
    );
    t.true(report.versions.every(({ answered }) => answered > 0));
    t.is(
      report.versions.reduce((sum, { answered }) => sum + answered, 0),
      report.answered,
    );
    const { swap, latency } = report;
    if (swap === undefined || 'error' in swap) return t.fail(JSON.stringify(swap));
    t.is(swap.lost, 0);
    t.is(swap.drain?.dropped, 0);
    if (process.platform === 'linux') t.is(swap.drain?.library, 'unloaded');
    t.true(latency !== null && latency.count > 0 && latency.count <= report.answered);
    if (scheduled) {
      // By the schedule some were due in each time, however late they were sent.
      t.not(swap.p99Ms.around, null);
      t.true((latency?.count ?? 0) < report.answered, 'the warm-up is not measured');
    }
  });
}

test('sends the payload and the metadata', async (t) => {
  const payload = join(await scratch(t), 'payload.bin');
  await writeFile(payload, Buffer.alloc(70_000, 1));
  const finished = await runLoad(
    ...['--library', fixture('echo'), '--payload', payload, '--metadata', '{"a":1}'],
    ...['--duration', '200ms', '--warm-up', '0s', '--json'],
  );

  t.is(finished.exitCode, 0);
  t.is(reportIn(finished).payloadBytes, 70_000);
});

test('the report as text has what happened in it', async (t) => {
  const { exitCode, stdout } = await runLoad(...SWAP, ...SHORT, '--rate', '300', '--exact');

  t.is(exitCode, 0);
  for (const row of ['library', 'requests', 'rate', 'latency', 'main thread', 'swap', 'memory']) {
    t.regex(stdout, new RegExp(`^${row} `, 'm'));
  }
  t.regex(stdout, /300 requests a second, 128 B each/);
  t.regex(stdout, /, 0 failed$/m);
  t.regex(stdout, / 0 lost$/m);
});

test('requests that fail are counted by code, with what to do', async (t) => {
  const finished = await runLoad('--library', fixture('fails'), ...SHORT, '--json');

  t.is(finished.exitCode, 1);
  const { answered, failed, requests, errors, latency } = reportIn(finished);
  t.is(answered, 0);
  t.is(failed, requests);
  t.is(latency, null);
  t.deepEqual(
    errors.map(({ code, count }) => [code, count]),
    [['ERR_HANDLER_FAILED', failed]],
  );
});

test('a swap that fails is reported, and the old version goes on', async (t) => {
  const args = ['--library', fixture('version_a'), '--swap-to', fixture('missing_entry')];
  const finished = await runLoad(...args, ...SHORT, '--json');

  t.is(finished.exitCode, 1);
  const { swap, failed, versions } = reportIn(finished);
  t.is(failed, 0);
  t.deepEqual(
    versions.map(({ version }) => version),
    [1],
  );
  t.true(swap !== undefined && 'error' in swap && /handler_entry/.test(swap.error));
});

test('ends although a call never returns', async (t) => {
  const args = ['--library', fixture('endless'), '--concurrency', '1', '--timeout', '50ms'];
  const { exitCode, stdout, stderr } = await runLoad(...args, ...SHORT);

  t.is(exitCode, 1);
  t.regex(stdout, /ERR_HANDLER_TIMEOUT/);
  t.regex(stderr, /^load: left behind: [^\n]+\n$/);
});

const echo = ['--library', fixture('echo')];
const refused: Record<string, string[]> = {
  'no library': [],
  'a library that does not exist': ['--library', '/no/such/library.so'],
  'a file that is no library': ['--library', bench],
  'an unknown option': [...echo, '--no-such-option'],
  'a rate and callers': [...echo, '--rate', '5', '--concurrency', '5'],
  'a payload and its length': [...echo, '--payload', bench, '--payload-bytes', '5'],
  'a rate of nothing': [...echo, '--rate', '0'],
  'a time without a unit': [...echo, '--duration', '10'],
  'metadata that is no JSON': [...echo, '--metadata', '{a'],
  'exactness without a schedule': [...echo, '--exact'],
};

for (const [what, args] of Object.entries(refused)) {
  test(`refuses ${what} in one line`, async (t) => {
    const { exitCode, stdout, stderr } = await runLoad(...args);

    t.is(exitCode, 2);
    t.is(stdout, '');
    t.regex(stderr, /^load: [^\n]+\n$/);
  });
}

test('--help says what there is', async (t) => {
  const { exitCode, stdout } = await runLoad('--help');

  t.is(exitCode, 0);
  for (const option of ['--library', '--payload', '--rate', '--timeout', '--swap-to', '--json']) {
    t.true(stdout.includes(option), option);
  }
});
