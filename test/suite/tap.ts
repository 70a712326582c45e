/** What a run of ava says about itself in TAP, its output for programs. */

export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

export interface TapReport extends Totals {
  /** One text for each failed test: its title, and below it what ava says about it. */
  failures: string[];
  /** The titles of the tests that were skipped. */
  skips: string[];
}

/**
 * Reads ava's TAP output. `exitCode` has the last word: output that ends early, or that reports no failure
 * although ava failed, counts as one failure more.
 */
export function readTap(output: string, exitCode: number | null): TapReport {
  const lines = output.split('\n');
  const failures: string[] = [];
  const skips: string[] = [];
  let todos = 0;
  for (const [index, line] of lines.entries()) {
    const skipped = /^ok \d+ - (.*) # SKIP$/.exec(line)?.[1];
    if (skipped !== undefined) skips.push(skipped);
    const title = /^not ok \d+ - (.*)$/.exec(line)?.[1];
    if (title === undefined) continue;
    if (title.endsWith(' # TODO')) todos += 1;
    else failures.push([title, ...diagnostics(lines, index + 1)].join('\n'));
  }
  const passed = footer(lines, 'pass');
  // Also has what failed without a line, such as tests that never ran because their file crashed.
  let failed = (footer(lines, 'fail') ?? todos) - todos;
  if (passed === undefined || (exitCode !== 0 && failed === 0)) {
    failures.push(`ava ended with ${exitCode ?? 'a signal'} and does not say why`);
    failed += 1;
  }
  return { passed: passed ?? 0, failed, skipped: footer(lines, 'skip') ?? 0, failures, skips };
}

/** Adds up several runs. */
export function sumTotals(runs: readonly Totals[]): Totals {
  const totals = { passed: 0, failed: 0, skipped: 0 };
  for (const { passed, failed, skipped } of runs) {
    totals.passed += passed;
    totals.failed += failed;
    totals.skipped += skipped;
  }
  return totals;
}

/** The closing line of every command that runs tests. CI reads it: its form does not change. */
export function totalsLine({ passed, failed, skipped }: Totals): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/** What the test has logged, such as the seed of its random input, and the indented block after it. */
function diagnostics(lines: readonly string[], start: number): string[] {
  let end = start;
  while (/^(?: {2}|# {3})/.test(lines[end] ?? '')) end++;
  return lines.slice(start, end).filter((line) => !/^ {2}(---|\.\.\.)$/.test(line));
}

function footer(lines: readonly string[], name: string): number | undefined {
  const line = lines.findLast((text) => text.startsWith(`# ${name} `));
  const count = Number(line?.slice(`# ${name} `.length));
  return line === undefined || !Number.isInteger(count) ? undefined : count;
}
