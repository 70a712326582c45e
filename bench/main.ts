/** `npm run bench`: asks all questions, or those that are named. */

import { parseArgs } from 'node:util';
import { SingleBar } from 'cli-progress';
import { against } from './against.js';
import { peerNames } from './contenders/index.js';
import { isolatedPeerNames } from './contenders/isolated.js';
import { describeMachine } from './harness/machine.js';
import { type Mode, type Question, Results, type Trial } from './harness/question.js';
import { publishResult, type ResultFile, saveResult } from './harness/results.js';
import { run } from './harness/run.js';
import { isReached, levelTable, plainTable } from './harness/text.js';
import { load } from './load.js';
import { questions } from './questions.js';

const HELP = `npm run bench -- [question ...] [--quick] [--rounds N] [--publish] [--json]

Measures the engine beside other pools and beside the limit, and prints tables of medians over several rounds.
Results are kept in bench/results/; of the published ones, \`npm run bench:report\` makes docs/benchmarks.md.

  question     ${questions.map(({ name }) => name).join(', ')} (default: all, about twenty minutes)
  --rounds N   rounds of each trial, instead of the question's own number
  --quick      one short round, to see that everything runs; the numbers mean nothing
  --publish    keep the results in bench/results/published/, instead of those of the same Node version
  --json       print the results as JSON; tables go nowhere
  --against REF  something else: compares this checkout with another commit; see --against --help
  --load       something else: a load test of your own handler; see --load --help`;

const USAGE_ERROR = 2;

process.exitCode = await main();

async function main(): Promise<number> {
  const args = process.argv.slice(2);
  if (args.some((arg) => arg === '--against' || arg.startsWith('--against='))) return against(args);
  if (args.includes('--load')) return load(args.filter((arg) => arg !== '--load'));
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      json: { type: 'boolean', default: false },
      publish: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const unknown = positionals.filter((name) => !questions.some((known) => known.name === name));
  const rounds = values.rounds === undefined ? undefined : Number(values.rounds);
  if (unknown.length > 0 || (rounds !== undefined && !(Number.isInteger(rounds) && rounds >= 1))) {
    console.error(
      unknown.length > 0
        ? `there is no question '${unknown[0]}'; there are: ${questions.map(({ name }) => name).join(', ')}`
        : `--rounds must be a whole number of at least 1; got ${values.rounds}`,
    );
    return USAGE_ERROR;
  }
  if (values.publish && values.quick) {
    console.error('--publish wants numbers that mean something: leave --quick out');
    return USAGE_ERROR;
  }
  const asked = questions.filter(
    ({ name }) => positionals.length === 0 || positionals.includes(name),
  );
  const mode: Mode = values.quick ? 'quick' : 'full';
  return ask(asked, { mode, rounds, json: values.json, publish: values.publish });
}

interface Asking {
  mode: Mode;
  /** Undefined: as many as each question wants. */
  rounds: number | undefined;
  json: boolean;
  publish: boolean;
}

async function ask(asked: readonly Question[], asking: Asking): Promise<number> {
  const { mode, json, publish } = asking;
  const roundsOf = (question: Question) =>
    asking.rounds ?? (mode === 'quick' ? 1 : question.rounds);
  const bar = new SingleBar({
    format:
      '{bar} {value}/{total} trials, {duration_formatted} of about {eta_formatted} more  {what}',
    clearOnComplete: true,
    hideCursor: true,
    etaBuffer: 20,
  });
  const total = asked.reduce(
    (sum, question) => sum + question.trials(mode).length * roundsOf(question),
    0,
  );
  if (process.stderr.isTTY) bar.start(total, 0, { what: '' });
  const machine = describeMachine();
  if (!json)
    console.log(`Node ${machine.node}, ${machine.cpu}, ${machine.cores} cores, ${mode} run\n`);
  const files: ResultFile[] = [];
  let failed = 0;
  for (const question of asked) {
    const startedAt = new Date();
    const samples = await run(question, {
      mode,
      rounds: roundsOf(question),
      progress: (trial) => {
        bar.update({ what: `${question.name} ${Object.values(trial).join(' ')}` });
        bar.increment();
      },
    });
    const file: ResultFile = {
      question: question.question,
      predicted: question.predicted,
      startedAt: startedAt.toISOString(),
      tookMs: Date.now() - startedAt.getTime(),
      mode,
      rounds: roundsOf(question),
      machine,
      samples,
    };
    files.push(file);
    let path = await saveResult(question.name, file);
    // How a peer fails is a finding, and its place in the tables says so.
    const complete = samples.every(({ trial, error }) => error === undefined || isPeers(trial));
    if (publish && complete) path = await publishResult(question.name, file);
    if (!json) print(question, file, path);
    for (const { trial, error } of samples) {
      if (error === undefined) continue;
      if (!isPeers(trial)) failed += 1;
      console.error(`failed: ${question.name} ${JSON.stringify(trial)}\n${error}`);
    }
  }
  bar.stop();
  if (json) console.log(JSON.stringify(files, null, 2));
  return failed === 0 ? 0 : 1;
}

/** Whether a trial is about another pool. */
function isPeers(trial: Trial): boolean {
  const peers: readonly string[] = [...peerNames, ...isolatedPeerNames];
  return Object.values(trial).some((value) => peers.includes(String(value)));
}

function print(question: Question, file: ResultFile, path: string): void {
  const { tables, levels } = question.answer(new Results(file.samples));
  console.log(`\n${question.name}: ${question.question}\n`);
  for (const table of tables) console.log(`${plainTable(table)}\n`);
  if (levels.length > 0 && file.mode === 'full') {
    console.log(`${plainTable(levelTable(levels))}\n`);
    const missed = levels.filter((level) => !isReached(level)).length;
    if (missed > 0) console.log(`${missed} of ${levels.length} levels missed.`);
  }
  console.log(`${file.rounds} rounds, ${Math.round(file.tookMs / 1000)} s; kept in ${path}`);
}
