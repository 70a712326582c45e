/** The report, made of a few results: what it says, and that its figures are whole. */

import { execFile } from 'node:child_process';
import { access, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { SaxesParser } from 'saxes';
import { contenderNames } from '../../bench/contenders/index.js';
import type { Plot } from '../../bench/harness/plot.js';
import type { Measurement, Sample } from '../../bench/harness/question.js';
import { publishResult, type ResultFile } from '../../bench/harness/results.js';
import { drawPlot } from '../../bench/report/draw.js';
import { themes } from '../../bench/report/theme.js';
import { scratch } from '../support/files.js';

const script = fileURLToPath(new URL('../../bench/report.js', import.meta.url));
const runReport = (from: string, to: string) =>
  promisify(execFile)(process.execPath, [script, '--from', from, '--to', to]);

/** Round 1, 2 and 3 of a contender measured so many times the first: the median is the third of these. */
const ROUNDS = [1, 3, 2];
const perSecond = { changeover: 400_000, piscina: 5_000, other: 20_000 };

function samples(engine: number): Sample[] {
  const rateOf = (name: string) =>
    name === 'changeover' ? engine : name === 'piscina' ? perSecond.piscina : perSecond.other;
  return ROUNDS.flatMap((factor, index) =>
    contenderNames.map((contender) => {
      const rate = rateOf(contender) * factor;
      const measurement: Measurement = {
        perSecond64: rate,
        perSecond1024: rate / 2,
        aloneP50Us: 1e6 / rate,
        aloneP99Us: 2e6 / rate,
        loopDelayP99Ms64: 1,
        loopDelayP99Ms1024: 1,
      };
      return { trial: { contender }, round: index + 1, measurement };
    }),
  );
}

function resultFor(node: string, engine: number): ResultFile {
  return {
    question: 'q',
    predicted: 'p',
    startedAt: '2026-01-01T00:00:00.000Z',
    tookMs: 1,
    mode: 'full',
    rounds: ROUNDS.length,
    machine: {
      node,
      cpu: 'Test & <CPU>',
      cores: 2,
      memoryGiB: 4,
      system: 'linux x64',
      versions: { piscina: '5.0.0' },
      commit: 'abc',
    },
    samples: samples(engine),
  };
}

function assertWellFormed(xml: string): void {
  const parser = new SaxesParser();
  parser.on('error', (error) => {
    throw error;
  });
  parser.write(xml).close();
}

test('has the medians, the ratios, the levels of each Node version, and whole figures', async (t) => {
  const [from, to] = [await scratch(t), await scratch(t)];
  await publishResult('throughput', resultFor('v24.1.0', perSecond.changeover), from);
  await publishResult('throughput', resultFor('v20.19.0', perSecond.changeover / 4), from);

  await runReport(from, to);

  const markdown = await readFile(join(to, 'benchmarks.md'), 'utf8');
  const row = markdown.split('\n').find((line) => line.startsWith('| changeover |')) ?? '';
  t.true(row.includes('| 800 k (400 k–1.2 M) | 80.0x |'), row);
  t.regex(markdown, /one lane answers 800 k a second: 80\.0 times Piscina/);
  t.regex(
    markdown,
    /Measured with Node v24\.1\.0 \(commit abc\) and v20\.19\.0 \(commit abc\) on Test & <CPU>, 2 cores/,
  );
  const level = markdown.split('\n').find((line) => line.startsWith('| 64 outstanding, of Pisc'));
  t.is(
    level,
    '| 64 outstanding, of Piscina | at least 40 x | 80.0 x, reached | **20.0 x, missed** |',
  );
  t.true(
    markdown.includes(
      '- throughput: 64 outstanding, of Piscina, at least 40 x wanted: 20.0 x on Node 20\n',
    ),
  );

  const links = [...markdown.matchAll(/(?:src|srcset)="([^"]+)"|\]\(([^)#]+)\)/g)];
  t.true(links.length >= 2, markdown);
  for (const [, source, link] of links) {
    await t.notThrowsAsync(access(join(to, source ?? link ?? '')), `${source ?? link}`);
  }
  for (const name of await readdir(join(to, 'benchmarks'))) {
    const svg = await readFile(join(to, 'benchmarks', name), 'utf8');
    t.notThrows(() => assertWellFormed(svg), name);
    t.true(svg.includes('>changeover<'), name);
    t.true(svg.includes('Test &amp; &lt;CPU&gt;'), name);
    t.true(svg.includes('npm run bench -- throughput'), name);
  }
});

test('only full results count, and figures of the past are removed', async (t) => {
  const [from, to] = [await scratch(t), await scratch(t)];
  await publishResult('throughput', { ...resultFor('v24.1.0', 1), mode: 'quick' }, from);

  const refused = await t.throwsAsync(runReport(from, to), { code: 1 } as never);
  t.regex(String((refused as { stderr?: unknown }).stderr), /npm run bench -- --publish/);

  await publishResult('throughput', resultFor('v24.1.0', 1), from);
  await runReport(from, to);
  await writeFile(join(to, 'benchmarks', 'old-light.svg'), '');
  await runReport(from, to);
  t.deepEqual((await readdir(join(to, 'benchmarks'))).sort(), [
    'throughput-dark.svg',
    'throughput-light.svg',
  ]);
});

const series = (name: string, role: 'engine' | 'peer' | 'limit', ys: readonly number[]) => ({
  name,
  role,
  points: ys.map((y, index): [number, number] => [10 ** index, y]),
});

const twoSeries = [
  series('the engine', 'engine', [1, 20, 300]),
  // What failed is NaN; a logarithmic axis has no 0.
  series('a <peer> & more', 'peer', [0, Number.NaN, 5]),
];

const plots: Record<string, Plot> = {
  line: {
    name: 'a',
    title: 'A title',
    caption: 'a caption',
    kind: 'line',
    x: { label: 'x', scale: 'log', unit: 'bytes' },
    y: { label: 'y', scale: 'log', unit: 'us' },
    series: twoSeries,
    marks: [{ x: 10, label: 'a mark' }],
  },
  panels: {
    name: 'b',
    title: 'A title',
    caption: 'a caption',
    kind: 'panels',
    x: { label: 'x', unit: 's' },
    panels: [
      { y: { label: 'first' }, series: twoSeries },
      { y: { label: 'second', unit: 'bytes' }, series: [series('none', 'engine', [0, 0])] },
      { y: { label: 'third', scale: 'log' }, series: [series('nothing', 'limit', [])] },
    ],
    marks: [{ x: 10, label: 'a mark' }],
  },
  bar: {
    name: 'c',
    title: 'A title',
    caption: 'a caption',
    kind: 'bar',
    x: { label: 'x', scale: 'category', categories: ['one', 'two'] },
    y: { label: 'y', unit: 'ms' },
    series: [
      { name: 'the engine', role: 'engine', points: [['one', 5]] },
      { name: 'a <peer> & more', role: 'peer', points: [['two', 1500]] },
    ],
  },
};

for (const [kind, plot] of Object.entries(plots)) {
  test(`a plot of kind ${kind} is whole, with all its names`, (t) => {
    for (const theme of themes) {
      const svg = drawPlot(plot, ['a foot'], theme);
      t.notThrows(() => assertWellFormed(svg));
      t.false(/NaN|Infinity/.test(svg), svg);
      for (const text of ['A title', 'a caption', 'a foot', 'the engine', 'a &lt;peer&gt;']) {
        t.true(svg.includes(text), text);
      }
      if ('marks' in plot) t.true(svg.includes('a mark'));
      if (plot.kind === 'panels') {
        for (const { y } of plot.panels) t.true(svg.includes(y.label), y.label);
      }
    }
  });
}

test('two Node versions: the newest open with its figures, the older folded, nothing mixed', async (t) => {
  const [from, to] = [await scratch(t), await scratch(t)];
  const older = resultFor('v20.19.0', perSecond.changeover / 4);
  await publishResult('throughput', resultFor('v24.1.0', perSecond.changeover), from);
  await publishResult(
    'throughput',
    { ...older, machine: { ...older.machine, commit: 'def', cpu: 'Older CPU' } },
    from,
  );

  await runReport(from, to);

  const markdown = await readFile(join(to, 'benchmarks.md'), 'utf8');
  // GitHub reads Markdown inside only after an empty line.
  const [open = '', folded = '', rest = ''] = markdown.split(/<details>\n.*\n\n|<\/details>/);
  t.true(markdown.includes('<details>\n<summary>The same on Node 20</summary>\n\n'));
  t.regex(open, /\*\*Node 24\.\*\* With 64 requests outstanding one lane answers 800 k a second/);
  t.regex(
    open,
    /Node v24\.1\.0 \(commit abc\) on Test & <CPU>.*, Node v20\.19\.0 \(commit def\) on Older CPU/,
  );
  t.regex(open, /7 of 8 reached on Node 24, 3 of 8 reached on Node 20/);
  t.regex(open, /128-byte echo, one lane \(Node 24\):/);
  t.regex(open, /\| level \| wanted \| Node 24 \| Node 20 \|/);
  t.false(open.includes('(Node 20):'));
  t.regex(
    folded,
    /\*\*Measured on Node 20:\*\* With 64 requests outstanding one lane answers 200 k/,
  );
  t.regex(folded, /128-byte echo, one lane \(Node 20\):\n\n\|/);
  t.regex(folded, /\| changeover \| 200 k \(100 k–300 k\) \| 20\.0x \|/);
  t.false(folded.includes('<picture>'));
  t.true(rest.startsWith('\n\n## How it is measured'), rest.slice(0, 100));
});

test('a question that only the older Node was asked says so', async (t) => {
  const [from, to] = [await scratch(t), await scratch(t)];
  await publishResult('throughput', resultFor('v24.1.0', perSecond.changeover), from);
  const crash: Measurement = { lost: 0, stranded: 0, toldMs: 5, nextMs: 50, allMs: 70 };
  const samples = [1, 2].map((lanes): Sample => {
    const trial = { contender: 'engineProcesses', what: 'crash', lanes };
    return { trial, round: 1, measurement: crash };
  });
  await publishResult('isolation', { ...resultFor('v20.19.0', 1), samples }, from);

  await runReport(from, to);

  const markdown = await readFile(join(to, 'benchmarks.md'), 'utf8');
  t.regex(markdown, /\*\*Node 24\.\*\* With 64 requests outstanding/);
  t.regex(markdown, /\*\*Node 20\.\*\* With `isolation: 'process'`/);
  t.false(markdown.includes('<details>'));
  // Counts have no unit, and no space in its place.
  t.true(markdown.includes('| other requests lost by a crash, 1 lane | at most 0 | 0, reached |'));
});
