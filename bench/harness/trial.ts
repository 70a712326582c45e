/** The process of one trial: measures, sends what it measured, and ends. */

import type { Mode, Question, Trial } from './question.js';
import type { TrialOutcome } from './run.js';

const [name = '', trial = '{}', mode = 'quick'] = process.argv.slice(2);

const outcome = await measure().then(
  (measurement): TrialOutcome => ({ measurement }),
  (error: unknown): TrialOutcome => ({
    error: error instanceof Error ? (error.stack ?? error.message) : String(error),
  }),
);

// Whatever a contender has left running must not hold up the next trial.
process.send?.(outcome, () => process.exit());

async function measure() {
  // Its own question alone, which is in the file of that name: with all of them in memory, V8 collects garbage more than twice as often while
  // large responses come in.
  const file = (await import(`../${name}.js`)) as Record<string, Question | undefined>;
  const question = file[name];
  if (question === undefined) throw new Error(`bench/${name}.ts has no question '${name}'`);
  return question.measure(JSON.parse(trial) as Trial, mode as Mode);
}
