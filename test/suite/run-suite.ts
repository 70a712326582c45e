/**
 * Runs test files with ava, on any version of Node, and says what came of it.
 *
 * Whatever the tests print counts as noise: a test that is about a warning captures it, so that
 * nobody has to learn which warnings mean nothing.
 */

import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { packageRoot } from '../../fixtures/paths.js';
import { type Part, partsOf } from './files.js';
import { readTap, sumTotals, type TapReport } from './tap.js';

/**
 * A part hangs if nothing is heard of it for so long. ava ends files that are silent for less, but
 * a process does not end while a thread of it is in native code.
 */
const MOST_SILENCE_MS = 5 * 60_000;

/** A skipped test that names what it needs is no failure. See test/support/needs.ts. */
const EXPLAINED_SKIP = / \[needs [^\]]+\]$/;

const ava = join(packageRoot, 'node_modules', 'ava', 'entrypoints', 'cli.mjs');

export interface SuiteOptions {
  /** The Node that runs ava and the tests. */
  binary: string;
  /** Relative to the package. */
  files: readonly string[];
  /** Told of each test as it ends. */
  onTest?: (ok: boolean, title: string) => void;
  /** Given the whole output as it comes, for whoever keeps it. */
  onOutput?: (text: string) => void;
}

export interface SuiteResult extends TapReport {
  seconds: number;
}

/**
 * Resolves with what came of it. Noise, and a skipped test that does not say what it needs, count
 * as one failure each.
 */
export async function runSuite(options: SuiteOptions): Promise<SuiteResult> {
  const startedMs = performance.now();
  const reports: TapReport[] = [];
  for (const part of partsOf(options.files)) {
    const { report, printed } = await runPart(part, options);
    reports.push(report, faults(report, printed));
  }
  return {
    ...sumTotals(reports),
    failures: reports.flatMap((report) => report.failures),
    skips: reports.flatMap((report) => report.skips),
    seconds: (performance.now() - startedMs) / 1000,
  };
}

/** What is wrong with a part although each of its tests may have passed. */
export function faults({ skips }: Pick<TapReport, 'skips'>, printed: string): TapReport {
  const failures = skips
    .filter((title) => !EXPLAINED_SKIP.test(title))
    .map((title) => `${title}: skipped without saying what it needs, see test/support/needs.ts`);
  if (printed !== '') {
    failures.push(`tests printed what they should have captured:\n${indent(printed)}`);
  }
  return { passed: 0, failed: failures.length, skipped: 0, failures, skips: [] };
}

const indent = (text: string): string => text.trimEnd().replaceAll(/^/gm, '    ');

async function runPart(
  { files, concurrency }: Part,
  { binary, onTest, onOutput }: SuiteOptions,
): Promise<{ report: TapReport; printed: string }> {
  // Programs that a test starts by name, such as npm, run on this Node too.
  const PATH = `${dirname(binary)}:${process.env['PATH'] ?? ''}`;
  const limit = concurrency === null ? [] : ['--concurrency', String(concurrency)];
  const child = spawn(binary, [ava, '--tap', ...limit, ...files], {
    cwd: packageRoot,
    env: { ...process.env, PATH },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  let output = '';
  let lineStart = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    alarm.refresh();
    output += text;
    onOutput?.(text);
    for (let end = output.indexOf('\n', lineStart); end !== -1; ) {
      const line = /^(not )?ok \d+ - (.*)$/.exec(output.slice(lineStart, end));
      if (line !== null) onTest?.(line[1] === undefined, line[2] ?? '');
      lineStart = end + 1;
      end = output.indexOf('\n', lineStart);
    }
  });
  let printed = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
    onOutput?.(text);
  });
  const alarm = setTimeout(() => {
    child.kill('SIGKILL');
    // Processes that it started may hold the other ends open.
    child.stdout.destroy();
    child.stderr.destroy();
  }, MOST_SILENCE_MS);
  try {
    const exitCode = await ended;
    return { report: readTap(output, exitCode), printed };
  } finally {
    clearTimeout(alarm);
  }
}
