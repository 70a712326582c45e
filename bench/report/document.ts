/** The results as a Markdown document with figures. */

import { contenders } from '../contenders/index.js';
import { isolated } from '../contenders/isolated.js';
import type { Machine } from '../harness/machine.js';
import type { Plot } from '../harness/plot.js';
import { type Answer, type Level, type Question, Results } from '../harness/question.js';
import type { ResultFile, ResultsByQuestion } from '../harness/results.js';
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

/** A question's newest results by one Node version. */
interface AnswerOfNode {
  node: number;
  file: ResultFile;
  answer: Answer;
}

/** A question, and its answers by each Node version that was measured. */
interface Answered {
  question: Question;
  /** What readers see at once. */
  newest: AnswerOfNode;
  /** The others, newest first. */
  older: readonly AnswerOfNode[];
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
    ...each.newest.answer.plots.map((plot) => figure(plot, each, figures)),
    ...levelsSection(each),
    ...each.older.flatMap(folded),
  ]);
  const blocks = [
    '<!-- Made by `npm run bench:report` from bench/results/published/. -->',
    '# Benchmarks',
    ...opening(answered, performanceDocument),
    ...sections,
    '## How it is measured',
    METHOD,
    contenderTable(first.newest.file.machine),
  ];
  return { markdown: `${blocks.join('\n\n')}\n`, figures };
}

function answeredOf(question: Question, results: ResultsByQuestion): Answered | undefined {
  const byNode = [...(results.get(question.name) ?? [])].sort(([a], [b]) => b - a);
  const [newest, ...older] = byNode.map(([node, file]) => ({
    node,
    file,
    answer: question.answer(new Results(file.samples)),
  }));
  return newest === undefined ? undefined : { question, newest, older };
}

/** By all Node versions, newest first. */
function all({ newest, older }: Answered): AnswerOfNode[] {
  return [newest, ...older];
}

function opening(answered: readonly Answered[], performanceDocument: string | undefined): string[] {
  const nodes = [...new Set(answered.flatMap(all).map(({ node }) => node))].sort((a, b) => b - a);
  const outcomes = nodes.map((node) => outcomeOf(answered, node));
  const missed = answered.flatMap(missedOf);
  const why = performanceDocument
    ? ` [${performanceDocument}](${performanceDocument}) says why, and what was tried.`
    : '';
  return [
    ...nodes.map((node) => headlinesOf(answered, node)),
    `Measured with ${measuredWith(answered, nodes)}; to repeat it: \`npm run bench -- --publish && npm run bench:report\` (about twenty minutes). ` +
      'Absolute numbers are this machine’s; ratios are within one run.' +
      (nodes.length > 1 ? ' Figures and open tables are by the newest Node.' : ''),
    `Levels to reach: ${outcomes.map(({ node, reached, total }) => `${reached} of ${total} reached on Node ${node}`).join(', ')}.` +
      (missed.length === 0 ? '' : ` Missed:${why}`),
    ...(missed.length === 0 ? [] : [missed.join('\n')]),
  ].filter((block) => block !== '');
}

/** What questions say whose newest answer is by this Node version. */
function headlinesOf(answered: readonly Answered[], node: number): string {
  const headlines = answered
    .filter(({ newest }) => newest.node === node)
    .flatMap(({ newest }) => newest.answer.headline ?? []);
  return headlines.length === 0 ? '' : `**Node ${node}.** ${headlines.join(' ')}`;
}

/** Each Node version with its machine and commits; the machine once if it is the same. */
function measuredWith(answered: readonly Answered[], nodes: readonly number[]): string {
  const parts = nodes.map((node) => {
    const machines = answered
      .flatMap(all)
      .filter((each) => each.node === node)
      .map(({ file }) => file.machine);
    const distinct = (textOf: (machine: Machine) => string) =>
      [...new Set(machines.map(textOf))].join(' and ');
    return {
      versions: `${distinct((machine) => machine.node)} (${commitsText(machines)})`,
      hardware: distinct(hardwareText),
    };
  });
  const [first] = parts;
  if (parts.every(({ hardware }) => hardware === first?.hardware)) {
    return `Node ${parts.map(({ versions }) => versions).join(' and ')} on ${first?.hardware}`;
  }
  return parts.map(({ versions, hardware }) => `Node ${versions} on ${hardware}`).join(', ');
}

function outcomeOf(answered: readonly Answered[], node: number) {
  const levels = answered
    .flatMap(all)
    .filter((each) => each.node === node)
    .flatMap(({ answer }) => answer.levels);
  return { node, total: levels.length, reached: levels.filter(isReached).length };
}

/** A line for each level that some Node version misses. */
function missedOf(answered: Answered): string[] {
  return levelsOf(answered).flatMap(({ name, level, found }) => {
    const missed = found.flatMap(({ node, level: each }) =>
      each === undefined || isReached(each) ? [] : [`${measuredText(each)} on Node ${node}`],
    );
    if (missed.length === 0) return [];
    return [`- ${answered.question.name}: ${name}, ${wanted(level)} wanted: ${missed.join(', ')}`];
  });
}

function section({ question, newest }: Answered): string[] {
  const { headline } = newest.answer;
  return [
    `## ${question.name}: ${question.question}`,
    `**Predicted:** ${question.predicted}`,
    ...(headline === undefined ? [] : [`**Measured:** ${headline}`]),
    ...tablesOf(newest),
  ];
}

function tablesOf({ node, answer }: AnswerOfNode): string[] {
  return answer.tables.flatMap((table) => [
    `${table.title} (Node ${node}):`,
    markdownTable(table),
    ...(table.note === undefined ? [] : [table.note]),
  ]);
}

/** The tables of an older Node version, closed until somebody wants them. */
function folded(older: AnswerOfNode): string[] {
  const { headline } = older.answer;
  return [
    // What follows the summary is Markdown only after an empty line.
    `<details>\n<summary>The same on Node ${older.node}</summary>`,
    ...(headline === undefined ? [] : [`**Measured on Node ${older.node}:** ${headline}`]),
    ...tablesOf(older),
    '</details>',
  ];
}

function figure(plot: Plot, { newest, question }: Answered, figures: Map<string, string>): string {
  const { machine, rounds } = newest.file;
  const versions = Object.entries(machine.versions).map((entry) => entry.join(' '));
  const foot = [
    `Node ${machine.node} · ${hardwareText(machine)}, ${commitText(machine)} · ${rounds === 1 ? '1 round' : `medians of ${rounds} rounds`} · ${versions.join(', ')}`,
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

/** A level of a question, by each Node version; one version may lack it. */
interface LevelByNode {
  name: string;
  /** As the newest version that has it says. */
  level: Level;
  found: readonly { node: number; level: Level | undefined }[];
}

function levelsOf(answered: Answered): LevelByNode[] {
  const newest = new Map<string, Level>();
  for (const level of all(answered).flatMap(({ answer }) => answer.levels)) {
    if (!newest.has(level.what)) newest.set(level.what, level);
  }
  return [...newest].map(([name, level]) => {
    const found = all(answered).map(({ node, answer }) => ({
      node,
      level: answer.levels.find(({ what }) => what === name),
    }));
    return { name, level, found };
  });
}

/** All levels, with a column for each Node version that was measured. */
function levelsSection(answered: Answered): string[] {
  const levels = levelsOf(answered);
  if (levels.length === 0) return [];
  const rows = levels.map(({ name, level, found }) => [
    name,
    wanted(level),
    ...found.map((each) => outcome(each.level)),
  ]);
  const columns = ['level', 'wanted', ...all(answered).map(({ node }) => `Node ${node}`)];
  return [`Levels of ${answered.question.name}:`, markdownTable({ columns, rows })];
}

function wanted({ atLeast, atMost, unit }: Level): string {
  const bounds = [
    ...(atLeast === undefined ? [] : [`at least ${atLeast}`]),
    ...(atMost === undefined ? [] : [`at most ${atMost}`]),
  ];
  return withUnit(bounds.join(', '), unit);
}

function outcome(level: Level | undefined): string {
  if (level === undefined) return '–';
  const value = measuredText(level);
  return isReached(level) ? `${value}, reached` : `**${value}, missed**`;
}

function measuredText({ value, unit }: Level): string {
  return withUnit(amount(value), unit);
}

/** Counts have no unit. */
function withUnit(text: string, unit: string): string {
  return unit === '' ? text : `${text} ${unit}`;
}

function hardwareText({ cpu, cores, memoryGiB, system }: Machine): string {
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${system}`;
}

function commitsText(machines: readonly Machine[]): string {
  const commits = [...new Set(machines.map(({ commit }) => commit ?? 'unknown'))];
  return `${commits.length === 1 ? 'commit' : 'commits'} ${commits.join(', ')}`;
}

function commitText({ commit }: Machine): string {
  return `commit ${commit ?? 'unknown'}`;
}

function contenderTable(machine: Machine): string {
  const kinds = [...Object.values(contenders), ...Object.values(isolated)];
  const rows = kinds.map(({ label, setup }) => {
    const name = stemOf(label).split(' ')[0]?.toLowerCase() ?? '';
    return [label, machine.versions[name] ?? commitText(machine), setup];
  });
  return markdownTable({ columns: ['contender', 'version', 'setup'], rows });
}

function attribute(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');
}
