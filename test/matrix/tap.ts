/** What a finished run of ava says about itself in TAP, its output for programs. */

export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

export interface TapReport extends Totals {
  /** One text for each failed test: its title, and below it what ava says about it. */
  failures: string[];
}

/**
 * Reads ava's TAP output. `exitCode` has the last word: output that ends early, or that reports no failure
 * although ava failed, counts as one failure more.
 */
export function readTap(output: string, exitCode: number | null): TapReport {
  const lines = output.split('\n');
  const failures: string[] = [];
  let todos = 0;
  for (const [index, line] of lines.entries()) {
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
  return { passed: passed ?? 0, failed, skipped: footer(lines, 'skip') ?? 0, failures };
}

/** The indented block after a test's line. */
function diagnostics(lines: readonly string[], start: number): string[] {
  let end = start;
  while (lines[end]?.startsWith('  ')) end++;
  return lines.slice(start, end).filter((line) => !/^ {2}(---|\.\.\.)$/.test(line));
}

function footer(lines: readonly string[], name: string): number | undefined {
  const line = lines.findLast((text) => text.startsWith(`# ${name} `));
  const count = Number(line?.slice(`# ${name} `.length));
  return line === undefined || !Number.isInteger(count) ? undefined : count;
}
