/**
 * The comparison with another commit: its statistics on made-up numbers, its command line, and one
 * small real run.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { type Comparison, compare, type FigureResult } from '../../bench/against/compare.js';
import { medianInterval, relativeWidth } from '../../bench/against/interval.js';
import { parseAgainstOptions } from '../../bench/against/options.js';
import { exitStatus, type reportObject, tableText } from '../../bench/against/report.js';
import { UsageError } from '../../bench/harness/command-line.js';
import type { Compared, Measurement } from '../../bench/harness/question.js';
import { questions } from '../../bench/questions.js';
import { scratch } from '../support/files.js';

// ---- The interval ------------------------------------------------------------------------------------

/**
 * The ranks of the interval's ends and its coverage. In print: J.-Y. Le Boudec, "Performance
 * Evaluation of Computer and Communication Systems", table of the 95 % intervals of the median.
 */
const tabled: [count: number, low: number, high: number, coverage: number][] = [
  [6, 1, 6, 0.969],
  [7, 1, 7, 0.984],
  [8, 1, 8, 0.992],
  [9, 2, 8, 0.961],
  [10, 2, 9, 0.979],
  [20, 6, 15, 0.959],
  [30, 10, 21, 0.957],
  [50, 18, 33, 0.967],
  [70, 27, 44, 0.959],
];

for (const [count, low, high, coverage] of tabled) {
  test(`the median of ${count} values lies between the values ${low} and ${high}`, (t) => {
    // From large to small: the ranks are those of the sorted values.
    const interval = medianInterval(Array.from({ length: count }, (_, index) => count - index));
    t.is(interval?.median, (count + 1) / 2);
    t.is(interval?.low, low);
    t.is(interval?.high, high);
    t.is(interval?.coverage.toFixed(3), coverage.toFixed(3));
  });
}

test('five values have no such interval', (t) => {
  t.is(medianInterval([1, 2, 3, 4, 5]), null);
});

test('many values: where 2 ** -n is 0, the ranks are those of the normal approximation', (t) => {
  const count = 4000;
  const interval = medianInterval(Array.from({ length: count }, (_, index) => index + 1));
  const reach = 0.98 * Math.sqrt(count);
  t.true(Math.abs((interval?.low ?? 0) - (count / 2 - reach)) < 1.5);
  t.true(Math.abs((interval?.high ?? 0) - (count / 2 + 1 + reach)) < 1.5);
  t.true(Math.abs((interval?.coverage ?? 0) - 0.95) < 0.002);
});

test('the width is that of the side that reaches farther', (t) => {
  t.is(relativeWidth({ median: 2, low: 1.9, high: 2.2, coverage: 1 }).toFixed(6), '0.100000');
  t.is(relativeWidth({ median: 2, low: 1.5, high: 2.2, coverage: 1 }).toFixed(6), '0.250000');
});

// ---- The pairs ---------------------------------------------------------------------------------------

const rate: Compared = {
  trial: { what: 'rate' },
  figures: [{ key: 'perSecond', label: 'rate, /s', better: 'higher' }],
};
const time: Compared = {
  trial: { what: 'time' },
  figures: [{ key: 'ms', label: 'time, ms', better: 'lower' }],
};

interface Made {
  results: FigureResult[];
  /** `new` and `old` in the order in which they were measured. */
  order: string[];
}

async function made(
  compared: Compared[],
  measured: (side: 'new' | 'old', call: number) => Measurement,
  limits: Partial<Comparison> = {},
): Promise<Made> {
  const order: string[] = [];
  const results = await compare({
    compared,
    measure: async (side) => {
      order.push(side);
      return measured(side, order.length);
    },
    fewestPairs: 10,
    mostPairs: 40,
    mostMs: Number.POSITIVE_INFINITY,
    progress: () => undefined,
    now: () => 0,
    ...limits,
  });
  return { results, order };
}

test('A B, B A, ...; ends at the fewest pairs if the interval is narrow', async (t) => {
  const { results, order } = await made([rate], (side) => ({ perSecond: side === 'new' ? 3 : 2 }));
  t.deepEqual(order.slice(0, 8), ['new', 'old', 'old', 'new', 'new', 'old', 'old', 'new']);
  t.is(order.length, 20);
  const [result] = results;
  t.is(result?.interval?.median, 1.5);
  t.true(result?.isWithin);
  t.is(exitStatus([{ name: 'q', tookMs: 1, figures: results }], { atLeast: undefined }), 0);
});

test('a ratio above 1 is better, also where less is better', async (t) => {
  const { results } = await made([time], (side) => ({ ms: side === 'new' ? 2 : 3 }));
  t.is(results[0]?.interval?.median, 1.5);
});

test('goes on while the interval is wide, and says that it is at the most pairs', async (t) => {
  // The first of each two pairs has the ratio 1, the second 1.1.
  const { results, order } = await made(
    [rate],
    (side, call) => ({ perSecond: side === 'new' && call % 4 === 0 ? 1.1 : 1 }),
    { mostPairs: 14 },
  );
  t.is(order.length, 28);
  t.false(results[0]?.isWithin);
  const done = [{ name: 'q', tookMs: 1, figures: results }];
  t.is(exitStatus(done, { atLeast: undefined }), 3);
  t.regex(tableText(done[0] as never, 'HEAD', { atLeast: undefined }), /NOT within 2 %/);
});

test('ends when the interval has become narrow: outliers at first, and the same after them', async (t) => {
  const { results, order } = await made([rate], (side, call) => ({
    perSecond: side === 'new' && call <= 8 ? 5 : 1,
  }));
  // Four pairs of ratio 5: of 16 pairs, the interval is from the 4th to the 13th value; of 18, from
  // the 5th to the 14th.
  t.is(order.length, 36);
  t.is(results[0]?.interval?.median, 1);
  t.is(results[0]?.interval?.high, 1);
});

test('ends when the time is over', async (t) => {
  let ms = 0;
  const { results } = await made([rate], () => ({ perSecond: 1 }), {
    mostMs: 50,
    now: () => {
      ms += 10;
      return ms;
    },
  });
  // The clock is read once at the beginning and before each pair: at 10, 20, 30 and 40 ms there is
  // still time.
  t.is(results[0]?.ratios.length, 4);
  t.is(results[0]?.interval, null);
  t.is(exitStatus([{ name: 'q', tookMs: 1, figures: results }], { atLeast: 0.5 }), 3);
});

test('a trial that is done is not run on for the sake of others', async (t) => {
  const { results } = await made([rate, time], (_side, call) => ({
    perSecond: 1,
    ms: 1 + (call % 7) / 7,
  }));
  t.deepEqual(
    results.map(({ ratios }) => ratios.length),
    [10, 40],
  );
});

test('a trial that fails, or measures nothing, ends with its reason; others go on', async (t) => {
  const { results } = await made([rate, time], () => ({ perSecond: 0, ms: 1 }));
  t.regex(results[0]?.error ?? '', /^new: perSecond must be a number above 0, got 0$/);
  t.is(results[0]?.ratios.length, 0);
  t.is(results[1]?.ratios.length, 10);
  t.is(exitStatus([{ name: 'q', tookMs: 1, figures: results }], { atLeast: undefined }), 3);
});

test('an interruption is none of its failures', async (t) => {
  const interruption = new AbortController();
  interruption.abort();
  const reason = await made([rate], () => interruption.signal.throwIfAborted() as never).then(
    () => undefined,
    (error: Error) => error.name,
  );
  t.is(reason, 'AbortError');
});

for (const [atLeast, status, said] of [
  [0.89, 0, 'yes'],
  [0.9, 0, 'yes'],
  [0.91, 1, 'NO'],
] as const) {
  test(`a ratio of 0.9 where ${atLeast} is wanted: ${said}`, async (t) => {
    const { results } = await made([rate], (side) => ({ perSecond: side === 'new' ? 0.9 : 1 }));
    const result = { name: 'q', tookMs: 1, figures: results };
    t.is(exitStatus([result], { atLeast }), status);
    t.regex(tableText(result, 'HEAD', { atLeast }), new RegExp(`${said}$`, 'm'));
  });
}

test('an interval around the wanted ratio does not lie below it', async (t) => {
  const { results } = await made([rate], (side, call) => ({
    perSecond: side === 'old' ? 1 : call % 4 === 0 ? 0.965 : 0.975,
  }));
  const result = { name: 'q', tookMs: 1, figures: results };
  t.true(results[0]?.isWithin);
  t.is(exitStatus([result], { atLeast: 0.97 }), 0);
  t.regex(tableText(result, 'HEAD', { atLeast: 0.97 }), /open: the median is/);
});

// ---- The questions and the command line -----------------------------------------------------------

for (const { name, compared } of questions) {
  test(`${name} is compared by one to five figures, each named once`, (t) => {
    const labels = compared.flatMap(({ figures }) => figures.map(({ label }) => label));
    t.true(labels.length >= 1 && labels.length <= 5);
    t.is(new Set(labels).size, labels.length);
  });
}

const refused: [args: string[], problem: RegExp][] = [
  [['--against', 'HEAD'], /name at least one question/],
  [['swiftness', '--against', 'HEAD'], /no question 'swiftness'/],
  [['throughput', '--against='], /must name a commit/],
  [['throughput', '--against', 'HEAD', '--at-least', 'all'], /--at-least must be a number/],
  [['throughput', '--against', 'HEAD', '--max-pairs', '5'], /--max-pairs must be a number from 6/],
  [['throughput', '--against', 'HEAD', '--max-pairs', '6.5'], /--max-pairs must be a whole number/],
  [['throughput', '--against', 'HEAD', '--max-minutes', '0'], /--max-minutes must be a number/],
  [['throughput', '--against', 'HEAD', '--quick', '--max-pairs', '8'], /leave out --max-pairs/],
  [['throughput', '--against', 'HEAD', '--publish'], /'--publish'.*--against --help/],
];

for (const [args, message] of refused) {
  test(`refused: ${args.join(' ')}`, (t) => {
    t.throws(() => parseAgainstOptions(args), { instanceOf: UsageError, message });
  });
}

test('questions are asked in their own order, with defaults for the rest', (t) => {
  const options = parseAgainstOptions(['latency', 'throughput', '--against', 'HEAD~5']);
  if (options === 'help') return t.fail();
  const { asked, ...rest } = options;
  t.deepEqual(
    asked.map(({ name }) => name),
    ['throughput', 'latency'],
  );
  t.deepEqual(rest, {
    ref: 'HEAD~5',
    atLeast: undefined,
    mode: 'short',
    fewestPairs: 10,
    mostPairs: 200,
    mostMs: 600_000,
    json: false,
  });
});

// ---- For real ----------------------------------------------------------------------------------------

const bench = fileURLToPath(new URL('../../bench/main.js', import.meta.url));

/** The bench in a process of its own, whose temporary files lie in `directory`. */
function start(directory: string, ...args: string[]) {
  const child = spawn(process.execPath, [bench, ...args], {
    env: { ...process.env, TMPDIR: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const printed = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    printed.stderr += text;
  });
  return { child, printed, closed: once(child, 'close') };
}

const leftIn = async (directory: string) =>
  (await readdir(directory)).filter((name) => name.startsWith('changeover-bench-against-'));

test.serial(
  'this commit against itself: pairs, a ratio with its interval, and nothing left behind',
  async (t) => {
    t.timeout(240_000);
    const directory = await scratch(t);
    const { printed, closed } = start(
      directory,
      'throughput',
      '--against',
      'HEAD',
      '--quick',
      '--json',
    );
    const [code] = await closed;
    t.true(code === 0 || code === 3, printed.stderr);
    const report = JSON.parse(printed.stdout) as ReturnType<typeof reportObject>;
    t.is(report.exitStatus, code);
    const [question] = report.questions;
    t.is(question?.name, 'throughput');
    for (const { pairs, ratio, error, isWithin } of question?.figures ?? []) {
      t.is(error, null);
      t.is(pairs, 6);
      t.true(ratio !== null && ratio.low > 0);
      t.true(ratio !== null && ratio.low <= ratio.median && ratio.median <= ratio.high);
      t.is(isWithin, ratio !== null && relativeWidth(ratio) <= 0.02);
    }
    t.is(question?.figures.length, 2);
    // No warnings: nothing but its own lines.
    for (const line of printed.stderr.trim().split('\n')) t.regex(line, /^bench: /);
    t.deepEqual(await leftIn(directory), []);
  },
);

/** Resolves when stderr has the line. Rejects if the process ends without it. */
function said({ child, printed }: ReturnType<typeof start>, line: RegExp): Promise<void> {
  return new Promise((resolve, reject) => {
    child.stderr.on('data', () => {
      if (line.test(printed.stderr)) resolve();
    });
    child.once('close', () => reject(new Error(`ended without ${line}: ${printed.stderr}`)));
  });
}

for (const [when, line] of [
  ['while the other commit is built', /building HEAD/],
  ['while trials run', /comparing by throughput/],
] as const) {
  test.serial(
    `interrupted ${when}: removes what it has made, and ends as a shell expects`,
    async (t) => {
      t.timeout(240_000);
      const directory = await scratch(t);
      const running = start(directory, 'throughput', '--against', 'HEAD');
      const { child, printed, closed } = running;
      await said(running, line);
      t.is((await leftIn(directory)).length, 1);
      child.kill('SIGINT');
      t.deepEqual(await closed, [130, null]);
      t.regex(printed.stderr, /interrupted by SIGINT/);
      t.deepEqual(await leftIn(directory), []);
    },
  );
}

test('a commit that is not there: one line, and nothing left behind', async (t) => {
  const directory = await scratch(t);
  const { printed, closed } = start(directory, 'throughput', '--against', 'no-such-commit');
  t.deepEqual(await closed, [2, null]);
  t.regex(printed.stderr, /^bench: --against must name a commit .* "no-such-commit"\n$/);
  t.deepEqual(await leftIn(directory), []);
});

test('the help names every option', async (t) => {
  const { printed, closed } = start(await scratch(t), '--against', '--help');
  t.deepEqual(await closed, [0, null]);
  for (const option of ['--against', '--at-least', '--max-pairs', '--max-minutes', '--json']) {
    t.true(printed.stdout.includes(`  ${option} `), option);
  }
});
