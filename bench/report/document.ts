/** The results as a Markdown document with figures. */

import { contenders } from '../contenders/index.js';
import type { Machine } from '../harness/machine.js';
import type { Plot } from '../harness/plot.js';
import { type Answer, type Level, type Question, Results } from '../harness/question.js';
import { major, type ResultFile, type ResultsByQuestion } from '../harness/results.js';
import { amount, isReached, markdownTable } from '../harness/text.js';
import { drawPlot } from './draw.js';
import { METHOD } from './method.js';
import { stemOf, themes } from './theme.js';

/** Where figures are, from the document. */
export const FIGURES = 'benchmarks';

export interface Report {
  markdown: string;
  /** File names in the folder of figures, and what is in them. */
  figures: Map<string, string>;
}

/** One question's newest results: by the newest Node, and by all others that were measured. */
interface Answered {
  question: Question;
  file: ResultFile;
  answer: Answer;
  levels: { node: number; levels: readonly Level[] }[];
}

/** @throws {Error} if there is no full result of any question */
export function makeReport(
  questions: readonly Question[],
  results: ResultsByQuestion,
  /** Says why levels are missed, if there is such a document. */
  performanceDocument?: string,
): Report {
  const answered = questions.flatMap((question) => answeredOf(question, results) ?? []);
  const [first] = answered;
  if (first === undefined) throw new Error('there is no result to report');
  const figures = new Map<string, string>();
  const sections = answered.flatMap((each) => [
    ...section(each),
    ...each.answer.plots.map((plot) => figure(plot, each, figures)),
    ...levelsSection(each),
  ]);
  const blocks = [
    '<!-- Made by `npm run bench:report` from bench/results/published/. -->',
    '# Benchmarks',
    ...opening(answered, first.file.machine, performanceDocument),
    ...sections,
    '## How it is measured',
    METHOD,
    contenderTable(first.file.machine),
  ];
  return { markdown: `${blocks.join('\n\n')}\n`, figures };
}

function answeredOf(question: Question, results: ResultsByQuestion): Answered | undefined {
  const byNode = [...(results.get(question.name) ?? [])].sort(([a], [b]) => b - a);
  const answers = byNode.map(([node, file]) => ({
    node,
    file,
    answer: question.answer(new Results(file.samples)),
  }));
  const [newest] = answers;
  if (newest === undefined) return undefined;
  const levels = answers.map(({ node, answer }) => ({ node, levels: answer.levels }));
  return { question, file: newest.file, answer: newest.answer, levels };
}

function opening(
  answered: readonly Answered[],
  machine: Machine,
  performanceDocument: string | undefined,
): string[] {
  const headlines = answered.flatMap(({ answer }) => answer.headline ?? []);
  const nodes = [...new Set(answered.flatMap(({ levels }) => levels.map(({ node }) => node)))];
  const outcomes = nodes.sort((a, b) => b - a).map((node) => outcomeOf(answered, node));
  const missed = outcomes.flatMap(({ node, missed: all }) =>
    all.map(({ question, level }) => `- Node ${node}, ${question}: ${levelText(level)}`),
  );
  const why = performanceDocument
    ? ` [${performanceDocument}](${performanceDocument}) says why, and what was tried.`
    : '';
  return [
    headlines.join(' '),
    `Measured with Node ${machine.node} on ${machineText(machine)}; to repeat it: \`npm run bench -- --publish && npm run bench:report\` (about a quarter of an hour). ` +
      'Absolute numbers are this machine’s; ratios are within one run.',
    `Levels to reach: ${outcomes.map(({ node, reached, total }) => `${reached} of ${total} reached on Node ${node}`).join(', ')}.` +
      (missed.length === 0 ? '' : ` Missed:${why}`),
    ...(missed.length === 0 ? [] : [missed.join('\n')]),
  ].filter((block) => block !== '');
}

function outcomeOf(answered: readonly Answered[], node: number) {
  const all = answered.flatMap(({ question, levels }) =>
    levels
      .filter((each) => each.node === node)
      .flatMap((each) => each.levels.map((level) => ({ question: question.name, level }))),
  );
  const missed = all.filter(({ level }) => !isReached(level));
  return { node, total: all.length, reached: all.length - missed.length, missed };
}

function section({ question, file, answer }: Answered): string[] {
  return [
    `## ${question.name}: ${question.question}`,
    `**Predicted:** ${question.predicted}`,
    ...(answer.headline === undefined ? [] : [`**Measured:** ${answer.headline}`]),
    ...answer.tables.flatMap((table) => [
      `${table.title} (Node ${major(file.machine.node)}):`,
      markdownTable(table),
      ...(table.note === undefined ? [] : [table.note]),
    ]),
  ];
}

function figure(plot: Plot, { file, question }: Answered, figures: Map<string, string>): string {
  const { machine, rounds } = file;
  const versions = Object.entries(machine.versions).map((entry) => entry.join(' '));
  const foot = [
    `Node ${machine.node} · ${machineText(machine)} · ${rounds === 1 ? '1 round' : `medians of ${rounds} rounds`} · ${versions.join(', ')}`,
    `Repeat: npm run bench -- ${question.name} --publish && npm run bench:report`,
  ];
  const fileOf = (theme: string) => `${plot.name}-${theme}.svg`;
  for (const theme of themes) figures.set(fileOf(theme.name), drawPlot(plot, foot, theme));
  return [
    '<picture>',
    `  <source media="(prefers-color-scheme: dark)" srcset="${FIGURES}/${fileOf('dark')}">`,
    `  <img alt="${attribute(`${plot.title}. ${plot.caption}`)}" src="${FIGURES}/${fileOf('light')}">`,
    '</picture>',
  ].join('\n');
}

/** All levels, with a column for each Node version that was measured. */
function levelsSection({ levels, question }: Answered): string[] {
  const names = [...new Set(levels.flatMap((each) => each.levels.map(({ what }) => what)))];
  if (names.length === 0) return [];
  const find = (all: readonly Level[], name: string) => all.find(({ what }) => what === name);
  const rows = names.map((name) => [
    name,
    ...levels.slice(0, 1).map((each) => wanted(find(each.levels, name))),
    ...levels.map((each) => outcome(find(each.levels, name))),
  ]);
  const columns = ['level', 'wanted', ...levels.map(({ node }) => `Node ${node}`)];
  return [`Levels of ${question.name}:`, markdownTable({ columns, rows })];
}

function wanted(level: Level | undefined): string {
  if (level === undefined) return '';
  const { atLeast, atMost, unit } = level;
  const bounds = [
    ...(atLeast === undefined ? [] : [`at least ${atLeast}`]),
    ...(atMost === undefined ? [] : [`at most ${atMost}`]),
  ];
  return `${bounds.join(', ')} ${unit}`;
}

function outcome(level: Level | undefined): string {
  if (level === undefined) return '–';
  const value = `${amount(level.value)} ${level.unit}`;
  return isReached(level) ? `${value}, reached` : `**${value}, missed**`;
}

function levelText(level: Level): string {
  return `${level.what}: ${amount(level.value)} ${level.unit}, ${wanted(level)} wanted`;
}

function machineText({ cpu, cores, memoryGiB, system, commit }: Machine): string {
  const of = commit === null ? '' : `, commit ${commit}`;
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${system}${of}`;
}

function contenderTable({ versions, commit }: Machine): string {
  const rows = Object.values(contenders).map(({ label, setup }) => {
    const name = stemOf(label).split(' ')[0]?.toLowerCase() ?? '';
    return [label, versions[name] ?? `commit ${commit ?? 'unknown'}`, setup];
  });
  return markdownTable({ columns: ['contender', 'version', 'setup'], rows });
}

function attribute(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');
}
