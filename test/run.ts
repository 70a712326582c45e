/** Runs the tests: `npm test`. */

import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { packageRoot } from '../fixtures/paths.js';
import { messageOf } from '../src/library/system-errors.js';
import { allTestFiles, matchingFiles } from './suite/files.js';
import { showProgress } from './suite/progress.js';
import { runSuite, type SuiteResult } from './suite/run-suite.js';
import { totalsLine } from './suite/tap.js';

const usage = `Usage: npm test [-- [FILE...] [options]]

Runs the test files whose path contains FILE (default: all but test/real/, the
conformance suite over real libraries). Most run side by side; those that need
the machine for themselves come last, one by one.

  --json    print the result as JSON; progress goes to standard error
  --help    print this

Fails if a test fails, if a test prints anything, or if a test is skipped
without saying what it needs. Exit status: 0, 1 if it failed, 2 if the command
line cannot be followed.
`;

/** Of the whole suite on two idle cores, until it has run here once. */
const USUAL_SECONDS = 290;

/** How long the whole suite took the last time, and how many tests it had. */
const lastRunPath = join(packageRoot, 'node_modules', '.cache', 'changeover', 'last-test-run.json');

interface LastRun {
  seconds: number;
  tests: number;
}

await main();

async function main(): Promise<void> {
  let files: string[];
  let values: { json: boolean; help: boolean };
  try {
    const parsed = parseArgs({
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    values = parsed.values;
    files = matchingFiles(parsed.positionals);
  } catch (error) {
    console.error(`${messageOf(error)}\nRun with --help to see the options.`);
    process.exitCode = 2;
    return;
  }
  if (values.help) return void process.stdout.write(usage);
  const isWhole = files.length === allTestFiles().length;
  const last = await lastRun();
  process.stderr.write(await opening(files.length, isWhole, last));
  const progress = showProgress(isWhole ? (last?.tests ?? null) : null);
  const result = await runSuite({
    binary: process.execPath,
    files,
    onTest: (ok, title) => progress.test(ok, title),
  });
  progress.end();
  if (isWhole) await remember(result);
  if (values.json) console.log(JSON.stringify(result, null, 2));
  else print(result);
  if (result.failed > 0) process.exitCode = 1;
}

async function opening(count: number, isWhole: boolean, last: LastRun | null): Promise<string> {
  const seconds = last?.seconds ?? USUAL_SECONDS;
  const minutes = (seconds / 60).toFixed(1);
  const duration = isWhole
    ? `, about ${minutes} minutes ${last === null ? 'on two idle cores' : '(as the last time here)'}`
    : '';
  const [cc, cxx, rust] = await Promise.all([
    versionOf(process.env['CC'] ?? 'cc'),
    versionOf(process.env['CXX'] ?? 'c++'),
    versionOf(process.env['RUSTC'] ?? 'rustc'),
  ]);
  return [
    `${count} test file${count === 1 ? '' : 's'} on Node ${process.versions.node}${duration}`,
    `  C, C++   ${cc ?? 'missing'}, ${cxx ?? 'missing'}: needed for the fixtures, handler.h, sanitizers and the demo`,
    `  Rust     ${rust ?? 'missing'}: only for one row of the fault matrix, which says so without it`,
    '',
  ].join('\n');
}

async function versionOf(command: string): Promise<string | null> {
  const [program = '', ...args] = command.trim().split(/\s+/);
  try {
    const { stdout } = await promisify(execFile)(program, [...args, '--version']);
    return stdout.split('\n', 1)[0] ?? null;
  } catch {
    return null; // That it is missing is what is asked.
  }
}

async function lastRun(): Promise<LastRun | null> {
  try {
    return JSON.parse(await readFile(lastRunPath, 'utf8')) as LastRun;
  } catch {
    return null; // The first run here, or one that was cut off; both only cost the estimate.
  }
}

async function remember({ seconds, passed, failed, skipped }: SuiteResult): Promise<void> {
  await mkdir(dirname(lastRunPath), { recursive: true });
  const run: LastRun = { seconds, tests: passed + failed + skipped };
  await writeFile(lastRunPath, JSON.stringify(run));
}

function print(result: SuiteResult): void {
  for (const failure of result.failures) console.log(`\n✘ ${failure}`);
  for (const title of result.skips) console.log(`- skipped: ${title}`);
  console.log(`\nin ${result.seconds.toFixed(0)} s\n${totalsLine(result)}`);
}
