/**
 * Runs the tests again and again, to find those that fail by chance: `npm run test:repeat`.
 *
 * Stops at the first failure and keeps its whole output, since that run may not come again.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../fixtures/paths.js';
import { messageOf } from '../src/library/system-errors.js';
import { installNode, resolveVersion } from './matrix/node-binary.js';
import { matchingFiles } from './suite/files.js';
import { showProgress } from './suite/progress.js';
import { runSuite, type SuiteResult } from './suite/run-suite.js';
import { sumTotals, totalsLine } from './suite/tap.js';

const usage = `Usage: npm run test:repeat -- RUNS [FILE...] [options]

Runs the tests RUNS times in a row, or only the test files whose path contains
FILE. Stops at the first failure and keeps the whole output of that run.

  --busy N      beside N loops that keep a core busy each (default 0)
  --node V,...  on these versions of Node, one after the other (default: this
                one); installed from npm, for Linux x64 only
  --json        print the result as JSON; progress goes to standard error
  --help        print this

Exit status: 0 if nothing failed, 1 if something did, 2 if the command line
cannot be followed.
`;

const outputDir = join(packageRoot, 'node_modules', '.cache', 'changeover');

/** A busy loop ends by itself, should this process be killed before it could end it. */
const BUSY_AT_MOST_MS = 30 * 60_000;

interface Options {
  runs: number;
  files: string[];
  busy: number;
  versions: string[];
  json: boolean;
  help: boolean;
}

interface Run extends SuiteResult {
  node: string;
}

await main();

async function main(): Promise<void> {
  let options: Options;
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    console.error(`${messageOf(error)}\nRun with --help to see the options.`);
    process.exitCode = 2;
    return;
  }
  if (options.help) return void process.stdout.write(usage);
  const runs: Run[] = [];
  let keptOutput: string | null = null;
  for (const wanted of options.versions) {
    const node = await resolveVersion(wanted);
    const binary = await installNode(node);
    for (let run = 1; run <= options.runs && keptOutput === null; run++) {
      process.stderr.write(`Node ${node}, run ${run} of ${options.runs}\n`);
      const { result, outputPath } = await runOnce(node, binary, run, options);
      runs.push({ node, ...result });
      const line = `${totalsLine(result)} in ${result.seconds.toFixed(0)} s`;
      process.stderr.write(`Node ${node}, run ${run} of ${options.runs}: ${line}\n`);
      if (result.failed === 0) await rm(outputPath);
      else keptOutput = outputPath;
    }
  }
  report(runs, keptOutput, options.json);
  if (keptOutput !== null) process.exitCode = 1;
}

function parseOptions(args: string[]): Options {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      busy: { type: 'string', default: '0' },
      node: { type: 'string', default: process.versions.node },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const [runs = '', ...names] = values.help ? ['1'] : positionals;
  return {
    runs: wholeNumber('RUNS', runs, 1),
    files: matchingFiles(names),
    busy: wholeNumber('--busy', values.busy, 0),
    versions: values.node.split(',').filter((version) => version !== ''),
    json: values.json,
    help: values.help,
  };
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= 1000) return value;
  throw new Error(`expected ${name} to be a number from ${least} to 1000, got "${text}"`);
}

async function runOnce(
  node: string,
  binary: string,
  run: number,
  { files, busy }: Options,
): Promise<{ result: SuiteResult; outputPath: string }> {
  await mkdir(outputDir, { recursive: true });
  const outputPath = join(outputDir, `repeat-node${node}-run${run}.log`);
  const output = createWriteStream(outputPath);
  const progress = showProgress(null);
  const loops = startBusyLoops(busy);
  try {
    const result = await runSuite({
      binary,
      files,
      onTest: (ok, title) => progress.test(ok, title),
      onOutput: (text) => output.write(text),
    });
    return { result, outputPath };
  } finally {
    progress.end();
    for (const loop of loops) loop.kill('SIGKILL');
    await new Promise<void>((resolve) => output.end(resolve));
  }
}

function startBusyLoops(count: number): ChildProcess[] {
  const program = `const end = Date.now() + ${BUSY_AT_MOST_MS}; while (Date.now() < end);`;
  return Array.from({ length: count }, () =>
    spawn(process.execPath, ['-e', program], { stdio: 'ignore' }),
  );
}

function report(runs: readonly Run[], keptOutput: string | null, json: boolean): void {
  if (json) {
    console.log(JSON.stringify({ runs, keptOutput, totals: sumTotals(runs) }, null, 2));
    return;
  }
  const last = runs.at(-1);
  if (keptOutput !== null && last !== undefined) {
    for (const failure of last.failures) console.log(`\n✘ ${failure}`);
    console.log(`\nThe whole output is in ${relative(process.cwd(), keptOutput)}`);
  }
  console.log(`\n${runs.length} runs\n${totalsLine(sumTotals(runs))}`);
}
