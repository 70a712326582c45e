/** What can be asked of a comparison with another commit: its command line. */

import { parseArgs } from 'node:util';
import { number, UsageError, usageError } from '../harness/command-line.js';
import type { Question } from '../harness/question.js';
import { questions } from '../questions.js';
import { FEWEST_PAIRS, WITHIN } from './compare.js';
import { FEWEST_VALUES } from './interval.js';

export interface AgainstOptions {
  asked: readonly Question[];
  ref: string;
  /** The ratio that every figure must reach; undefined: none is judged. */
  atLeast: number | undefined;
  mode: 'short' | 'quick';
  fewestPairs: number;
  mostPairs: number;
  /** For each question. */
  mostMs: number;
  json: boolean;
}

const DEFAULT_MOST_PAIRS = 200;
const DEFAULT_MOST_MINUTES = 10;

export const usage = `npm run bench -- QUESTION ... --against REF [options]

Builds another commit in a temporary directory and compares this checkout with it, changes that are not committed included: short
trials of the engine alone, in pairs that run one right after the other in alternating order (A B, B A, ...), until the 95 %
confidence interval of the median of the pairs' ratios lies within ${WITHIN * 100} % of that median, for each figure of the question.

A ratio above 1 always means that this checkout is better: more requests a second, or less time or memory.

  QUESTION ...      ${questions.map(({ name }) => name).join(', ')}
  --against REF     the other commit: a branch, a tag, HEAD~5, ...
  --at-least N      the ratio that is wanted, such as 0.97: exit status 1 if an interval lies below it
  --max-pairs N     most pairs for each question (default: ${DEFAULT_MOST_PAIRS}; the fewest are ${FEWEST_PAIRS}, or N)
  --max-minutes N   most time for each question (default: ${DEFAULT_MOST_MINUTES})
  --quick           ${FEWEST_VALUES} pairs of trials that are too short to mean anything, to see that everything runs
  --json            print the comparison as JSON instead of tables
  --help            print this

Exit status: 0 if all intervals are narrow enough and none lies below --at-least; 1 if one lies below it; 2 if the comparison could not
start; 3 if an interval was still too wide at the most pairs or the most time, or a trial failed; 128 and the number of the signal if it was interrupted.
`;

/**
 * The options in `args`, or 'help'.
 *
 * @throws {UsageError} if an option or a question does not exist, is missing or is out of range
 */
export function parseAgainstOptions(args: readonly string[]): AgainstOptions | 'help' {
  // Before anything else: parseArgs would not have --help right after --against.
  if (args.includes('--help') || args.includes('-h')) return 'help';
  const { values, positionals } = parse(args);
  const names = questions.map(({ name }) => name).join(', ');
  const unknown = positionals.find((name) => !questions.some((known) => known.name === name));
  if (unknown !== undefined) {
    throw new UsageError(`there is no question '${unknown}'; there are: ${names}`);
  }
  if (positionals.length === 0) {
    throw new UsageError(`name at least one question to compare by; there are: ${names}`);
  }
  const ref = values.against ?? '';
  if (ref === '') throw new UsageError('--against must name a commit, such as HEAD~1, got ""');
  const mostPairs = number('--max-pairs', values['max-pairs'], FEWEST_VALUES, 100_000);
  if (mostPairs !== undefined && !Number.isInteger(mostPairs)) {
    throw new UsageError(`--max-pairs must be a whole number, got "${values['max-pairs']}"`);
  }
  const minutes = number('--max-minutes', values['max-minutes'], 0.01, 24 * 60);
  if (values.quick && mostPairs !== undefined) {
    throw new UsageError(`--quick always runs ${FEWEST_VALUES} pairs; leave out --max-pairs`);
  }
  const most = values.quick ? FEWEST_VALUES : (mostPairs ?? DEFAULT_MOST_PAIRS);
  return {
    asked: questions.filter(({ name }) => positionals.includes(name)),
    ref,
    atLeast: number('--at-least', values['at-least'], 0.01, 100),
    mode: values.quick ? 'quick' : 'short',
    fewestPairs: Math.min(FEWEST_PAIRS, most),
    mostPairs: most,
    mostMs: (minutes ?? DEFAULT_MOST_MINUTES) * 60_000,
    json: values.json ?? false,
  };
}

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        against: text,
        'at-least': text,
        'max-pairs': text,
        'max-minutes': text,
        quick: flag,
        json: flag,
      },
    });
  } catch (error) {
    throw usageError(error, '--against --help');
  }
}
