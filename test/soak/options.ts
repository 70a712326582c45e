/** What the soak can be asked to do: its command line. */

import { parseArgs } from 'node:util';
import { number, UsageError, usageError } from '../../bench/harness/command-line.js';
import { kinds } from './kinds.js';

export interface SoakOptions {
  minutes: number;
  seed: number;
  /** From the end of one change of an endpoint to the next, on average. */
  changeEverySeconds: number;
  /** How long an endpoint may be without an answer, or refuse, for no reason. */
  patienceSeconds: number;
  /** Ids of the endpoints that take part. */
  only: readonly string[];
  json: boolean;
  /** A Markdown file for the report. */
  report: string | undefined;
}

const MOST_MINUTES = 7 * 24 * 60;
const MOST_SEED = 2 ** 32 - 1;
const PATIENCE_SECONDS = 10;
/** What costs most in the soak is loading libraries. */
const CHANGE_EVERY_SECONDS = 5;
const ids = kinds.map(({ id }) => id);

export const usage = `Usage: npm run soak [-- options]

Sends requests to several endpoints at once while libraries are swapped, refused, unloaded and loaded again, callers give up,
calls time out, get stuck and find no room, processes crash, are killed and are recycled (Linux), and the registry is closed in the middle of it
and opened again; verifies every answer, compares all that the registry says of itself with a model, and looks whether an endpoint is wedged and
whether anything is left. What a crashing process prints is printed.

  --minutes N    how long the load lasts, 0.01 to ${MOST_MINUTES} (default: 1); the heap is judged from half a minute on, resident memory once a thousand lanes have come
  --seed N       0 to ${MOST_SEED}: the same choices again, though not the same times (default: another each run)
  --change-every S  how many seconds pass between two changes of an endpoint, on average (default: ${CHANGE_EVERY_SECONDS})
  --patience S   how many seconds an endpoint may refuse or answer nothing, for no reason, before it counts as wedged (default: ${PATIENCE_SECONDS})
  --only IDS     endpoints that take part, separated by commas (default: all)
                 ${ids.join(', ')}
  --json         print the report as JSON
  --report FILE  write the report as Markdown, too
  --help         print this

Exit status: 0 if nothing was lost, wrong or left behind, 1 if something was, 2 if the soak could not start.
Ctrl-C ends it early, with a report.
`;

/**
 * The options in `args`, or 'help'.
 *
 * @throws {UsageError} if an option does not exist or is out of range.
 */
export function parseOptions(args: readonly string[]): SoakOptions | 'help' {
  const values = parse(args);
  if (values.help) return 'help';
  const only = values.only?.split(',') ?? ids;
  const unknown = only.find((id) => !ids.includes(id));
  if (unknown !== undefined) {
    throw new UsageError(`--only: there is no endpoint '${unknown}'; there are: ${ids.join(', ')}`);
  }
  const seed = number('--seed', values.seed, 0, MOST_SEED) ?? Date.now() % 2 ** 32;
  if (!Number.isInteger(seed)) throw new UsageError('--seed must be a whole number');
  return {
    minutes: number('--minutes', values.minutes, 0.01, MOST_MINUTES) ?? 1,
    seed,
    changeEverySeconds:
      number('--change-every', values['change-every'], 0.1, 86_400) ?? CHANGE_EVERY_SECONDS,
    patienceSeconds: number('--patience', values.patience, 0.1, 3600) ?? PATIENCE_SECONDS,
    only,
    json: values.json ?? false,
    report: values.report,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        minutes: { type: 'string' },
        seed: { type: 'string' },
        'change-every': { type: 'string' },
        patience: { type: 'string' },
        only: { type: 'string' },
        json: { type: 'boolean' },
        report: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    throw usageError(error, '--help');
  }
}
