/**
 * Question: how many 128-byte requests a second does one lane answer, and how long does one take alone?
 *
 * Predicted: dispatch through shared memory costs the main thread about a microsecond, where a pool that posts
 * messages costs it twenty to fifty. So with 64 outstanding the engine does at least 20 times Piscina's throughput,
 * alone it takes at most a third of its time, and a timeout a request costs at most half as much again.
 *
 * Method: rounds interleaved between contenders, each in a fresh process, after a warm-up; medians.
 */

import { fork } from 'node:child_process';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SingleBar } from 'cli-progress';
import { type ContenderName, contenders } from './contenders.js';

const REQUEST_BYTES = 128;
const OUTSTANDING = [64, 1024, 1] as const;

/** One contender in one round. */
interface Sample {
  contender: ContenderName;
  /** Requests a second by requests outstanding. */
  rates: Record<string, number>;
}

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', short: 'h', default: false },
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    // How the parent starts a round; not for people.
    round: { type: 'string' },
  },
});

if (values.help) {
  console.log(`npm run bench:throughput -- [--quick] [--rounds N] [--json]

Measures how many ${REQUEST_BYTES}-byte requests a second one lane echoes, and how long one takes alone,
against Piscina and against calling the native function directly.

  --rounds N   rounds of each contender (default 5)
  --quick      one short round, to see that it runs
  --json       print the result as JSON`);
} else if (values.round !== undefined) {
  process.send?.(await measure(values.round as ContenderName, values.quick));
} else {
  await main();
}

/** In the child: one contender, one round. */
async function measure(name: ContenderName, quick: boolean): Promise<Sample> {
  const contender = await contenders[name]();
  const rates: Record<string, number> = {};
  const durationMs = quick ? 100 : 1000;
  const request = new Uint8Array(REQUEST_BYTES).map((_, index) => index * 7);
  for (const outstanding of OUTSTANDING) {
    await rate(contender.call, request, outstanding, durationMs / 2);
    rates[outstanding] = await rate(contender.call, request, outstanding, durationMs);
  }
  await contender.close();
  return { contender: name, rates };
}

/** Requests a second with so many outstanding. Every response is checked. */
async function rate(
  call: (request: Uint8Array) => Promise<Uint8Array> | Uint8Array,
  request: Uint8Array,
  outstanding: number,
  durationMs: number,
): Promise<number> {
  const startedMs = performance.now();
  const endMs = startedMs + durationMs;
  let done = 0;
  const client = async () => {
    while ((done & 31) !== 0 || performance.now() < endMs) {
      const response = await call(request);
      if (response.length !== request.length || response[127] !== request[127]) {
        throw new Error('the response is not the request');
      }
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: outstanding }, client));
  return (done / (performance.now() - startedMs)) * 1000;
}

async function main(): Promise<void> {
  const rounds = values.quick ? 1 : Number(values.rounds ?? 5);
  if (!Number.isInteger(rounds) || rounds < 1) {
    console.error(`--rounds must be a whole number of at least 1; got ${values.rounds}`);
    process.exitCode = 2;
    return;
  }
  const names = Object.keys(contenders) as ContenderName[];
  const bar = new SingleBar({ format: '{bar} {value}/{total} {contender}', clearOnComplete: true });
  if (process.stderr.isTTY) bar.start(rounds * names.length, 0, { contender: '' });
  const samples: Sample[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const contender of names) {
      bar.update({ contender });
      samples.push(await inFreshProcess(contender));
      bar.increment();
    }
  }
  bar.stop();
  const medians = Object.fromEntries(
    names.map((name) => [name, medianRates(samples.filter(({ contender }) => contender === name))]),
  ) as Record<ContenderName, Record<string, number>>;
  const result = {
    question: 'throughput',
    node: process.version,
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    rounds,
    medians,
    levels: levels(medians),
    samples,
  };
  if (values.json) console.log(JSON.stringify(result, null, 2));
  else print(result);
}

function inFreshProcess(contender: ContenderName): Promise<Sample> {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(import.meta.url), [
      '--round',
      contender,
      ...(values.quick ? ['--quick'] : []),
    ]);
    child.once('message', (sample) => resolve(sample as Sample));
    child.once('exit', (code) => reject(new Error(`a round of ${contender} ended with ${code}`)));
  });
}

function medianRates(samples: Sample[]): Record<string, number> {
  return Object.fromEntries(
    OUTSTANDING.map((outstanding) => [
      outstanding,
      median(samples.map(({ rates }) => rates[outstanding] ?? 0)),
    ]),
  );
}

function median(numbers: number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? 0)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** The ratios that this bench is about, with the level each is to reach. */
function levels(medians: Record<ContenderName, Record<string, number>>) {
  const engine = medians.changeover;
  const timed = medians['changeover with a timeout'];
  const piscina = medians['piscina, default'];
  const ratio = (a: number | undefined, b: number | undefined) => (a ?? 0) / (b ?? 1);
  return [
    {
      what: 'throughput, 64 outstanding, of Piscina',
      ratio: ratio(engine[64], piscina[64]),
      atLeast: 20,
    },
    { what: 'time alone, of Piscina', ratio: ratio(piscina[1], engine[1]), atMost: 1 / 3 },
    { what: 'cost with a timeout, of without', ratio: ratio(engine[64], timed[64]), atMost: 1.5 },
  ];
}

function print(result: {
  node: string;
  cpu: string;
  cores: number;
  rounds: number;
  medians: Record<string, Record<string, number>>;
  levels: { what: string; ratio: number; atLeast?: number; atMost?: number }[];
}): void {
  const { node, cpu, cores, rounds, medians } = result;
  console.log(
    `Node ${node}, ${cpu}, ${cores} cores; medians of ${rounds} rounds; ${REQUEST_BYTES}-byte echo, 1 lane\n`,
  );
  console.log(
    `${''.padEnd(28)}${OUTSTANDING.map((n) => (n === 1 ? 'alone' : `${n} outstanding`).padStart(18)).join('')}`,
  );
  for (const [name, rates] of Object.entries(medians)) {
    const cells = OUTSTANDING.map((outstanding) => {
      const perSecond = rates[outstanding] ?? 0;
      return outstanding === 1
        ? `${(1e6 / perSecond).toFixed(1)} µs`.padStart(18)
        : `${Math.round(perSecond).toLocaleString('en')}/s`.padStart(18);
    });
    console.log(`${name.padEnd(28)}${cells.join('')}`);
  }
  console.log('');
  for (const { what, ratio, atLeast, atMost } of result.levels) {
    const level =
      atLeast === undefined ? `at most ${(atMost ?? 0).toFixed(2)}` : `at least ${atLeast}`;
    const reached = atLeast === undefined ? ratio <= (atMost ?? 0) : ratio >= atLeast;
    console.log(
      `${what.padEnd(44)}${ratio.toFixed(2).padStart(8)}   ${level.padEnd(16)}${reached ? 'reached' : 'MISSED'}`,
    );
  }
}
