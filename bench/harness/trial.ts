/** The process of one trial: measures, sends what it measured, and ends. */

import { questions } from '../questions.js';
import type { Mode, Trial } from './question.js';
import type { TrialOutcome } from './run.js';

const [name = '', trial = '{}', mode = 'quick'] = process.argv.slice(2);
const question = questions.find((candidate) => candidate.name === name);

const outcome: TrialOutcome =
  question === undefined
    ? { error: `there is no question '${name}'` }
    : await question
        .measure(JSON.parse(trial) as Trial, mode as Mode)
        .then((measurement) => ({ measurement }))
        .catch((error: unknown) => ({
          error: error instanceof Error ? (error.stack ?? error.message) : String(error),
        }));

// Whatever a contender has left running must not hold up the next trial.
process.send?.(outcome, () => process.exit());
