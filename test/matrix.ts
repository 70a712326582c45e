/**
 * Runs the tests on several versions of Node, one after the other: `npm run test:matrix`.
 *
 * The compiled tests are the same for all, and so are the libraries: koffi and the fixtures do not depend on
 * the version of Node. Tests start their child processes with `process.execPath`, so those follow.
 */

import { parseArgs } from 'node:util';
import { messageOf } from '../src/library/system-errors.js';
import { hasBinaries, installNode, resolveVersion } from './matrix/node-binary.js';
import { allTestFiles } from './suite/files.js';
import { runSuite, type SuiteResult } from './suite/run-suite.js';
import { sumTotals, type Totals, totalsLine } from './suite/tap.js';

/** The oldest that package.json allows, and the newest of each line that is or will be LTS. */
const DEFAULT_VERSIONS = ['20.19.0', '22', '24', '26'];

const usage = `Usage: npm run test:matrix [-- [VERSION...] [options]]

Runs the tests on each VERSION of Node: 22, 22.20 or 22.20.0, but for those
that have nothing to do with it; what takes longest (the faults of
docs/reliability.md, 200 swaps under load) on the last VERSION only
(default: ${DEFAULT_VERSIONS.join(', ')}). Versions are installed from npm into
node_modules/.cache/node, for Linux x64 only.

  --json    print the result as JSON; progress goes to standard error
  --help    print this

Exit status: 0 if all tests passed on all versions, 1 if not, 2 if the command
line cannot be followed.
`;

/**
 * Nothing of Node is in these: models in simulated memory, orders of events, C alone, texts and figures,
 * and whether the soak notices what it is to notice. `npm test` runs them once, for all.
 */
const SAME_EVERYWHERE = [
  'test/bench/',
  'test/fuzz/',
  'test/interleavings/',
  'test/lane-machine.test.ts',
  'test/library/elf/',
  'test/library/format/',
  'test/lifecycle/',
  'test/soak/memory.test.ts',
  'test/soak/mistakes.test.ts',
  'test/soak/verdict.test.ts',
  'test/soak/wedges.test.ts',
  'test/suite/',
  'test/sanitizer/',
  'test/header.test.ts',
];
/** What takes longest by far: a process for each of 140 faults and endings, and 200 swaps under load. */
const ON_THE_LAST = ['test/reliability/', 'test/swap-under-load.test.ts'];

function testFiles(isLast: boolean): string[] {
  const left = isLast ? SAME_EVERYWHERE : [...SAME_EVERYWHERE, ...ON_THE_LAST];
  return allTestFiles().filter((file) => !left.some((prefix) => file.startsWith(prefix)));
}

interface VersionResult extends SuiteResult {
  /** The exact version, or what was asked for if that could not be resolved. */
  node: string;
}

await main();

async function main(): Promise<void> {
  let options: { versions: string[]; json: boolean; help: boolean };
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    console.error(`${messageOf(error)}\nRun with --help to see the options.`);
    process.exitCode = 2;
    return;
  }
  const { versions, json, help } = options;
  if (help) return void process.stdout.write(usage);
  const progress = json ? console.error : console.log;

  const results: VersionResult[] = [];
  if (hasBinaries) {
    for (const [index, wanted] of versions.entries()) {
      const files = testFiles(index === versions.length - 1);
      const result = await testOn(wanted, files, (text) =>
        progress(`[${index + 1}/${versions.length}] Node ${text}`),
      );
      for (const failure of result.failures) progress(`\n✘ Node ${result.node}: ${failure}\n`);
      results.push(result);
    }
  } else {
    progress(
      `Skipped: there are binaries of Node for Linux x64 only, and this is ${process.platform} ` +
        `${process.arch}. Use "npm test" with each version that you have.`,
    );
  }
  const totals = sumTotals(results);
  if (json) console.log(JSON.stringify({ versions: results, totals }, null, 2));
  else print(results, totals);
  if (totals.failed > 0) process.exitCode = 1;
}

function parseOptions(args: string[]): { versions: string[]; json: boolean; help: boolean } {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const wrong = positionals.find((version) => !/^\d+(\.\d+){0,2}$/.test(version));
  if (wrong !== undefined)
    throw new Error(`expected a version such as 22 or 22.20.0, got ${wrong}`);
  return { versions: positionals.length > 0 ? positionals : DEFAULT_VERSIONS, ...values };
}

/** Never rejects: a version that cannot be installed has failed. */
async function testOn(
  wanted: string,
  files: readonly string[],
  progress: (text: string) => void,
): Promise<VersionResult> {
  let node = wanted;
  let result: SuiteResult;
  try {
    node = await resolveVersion(wanted);
    progress(`${node}: installing`);
    const binary = await installNode(node);
    progress(`${node}: running the tests`);
    result = await runSuite({ binary, files });
  } catch (error) {
    result = {
      passed: 0,
      failed: 1,
      skipped: 0,
      failures: [messageOf(error)],
      skips: [],
      seconds: 0,
    };
  }
  progress(`${node}: ${totalsLine(result)} in ${result.seconds.toFixed(1)} s`);
  return { node, ...result };
}

function print(results: readonly VersionResult[], totals: Totals): void {
  const header = ['Node', 'passed', 'failed', 'skipped', 'seconds'];
  const rows = results.map(({ node, passed, failed, skipped, seconds }) =>
    [node, passed, failed, skipped, seconds.toFixed(1)].map(String),
  );
  console.log('');
  for (const [node = '', ...numbers] of [header, ...rows]) {
    console.log(`${node.padEnd(10)}${numbers.map((text) => text.padStart(9)).join('')}`);
  }
  console.log(`\n${totalsLine(totals)}`);
}
