/** The table of docs/libraries.md, from published results. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../../fixtures/paths.js';
import { replaceBetween } from '../reliability/page.js';
import { CHECKS, type Row, type Size } from './checks.js';
import { libraries } from './libraries.js';
import type { Library } from './library.js';

/** Results of a whole run. */
export interface Results {
  node: string;
  system: string;
  size: Size;
  /** Of the Debian packages that the handlers are made with. */
  packages: Record<string, string>;
  rows: Row[];
}

const pagePath = join(packageRoot, 'docs', 'libraries.md');
export const publishedPath = join(packageRoot, 'test', 'real', 'published.json');

export async function readPublished(): Promise<Results> {
  return JSON.parse(await readFile(publishedPath, 'utf8')) as Results;
}

/** The text of the page, and what it would be with these results. */
export async function pageWith(results: Results): Promise<{ now: string; then: string }> {
  const now = await readFile(pagePath, 'utf8');
  const then = replaceBetween(
    replaceBetween(now, 'libraries', tableOf(results)),
    'run',
    `Node.js ${results.node}, ${results.system}, ${results.size.swaps} swaps.`,
  );
  return { now, then };
}

export async function writePage(results: Results): Promise<void> {
  await writeFile(pagePath, (await pageWith(results)).then);
}

function tableOf(results: Results): string {
  const columns = [
    'library',
    'judged by',
    'threads',
    'processes',
    'a version that was replaced, in a thread',
    'after the swaps: threads',
    'processes',
  ];
  return [
    line(columns),
    line(columns.map(() => '---')),
    ...libraries.map((library) => line(cellsOf(library, results))),
  ].join('\n');
}

function cellsOf(library: Library, { rows, packages }: Results): string[] {
  const of = (isolation: Row['isolation']) =>
    rows.find((row) => row.library === library.name && row.isolation === isolation);
  const [threads, processes] = [of('thread'), of('process')];
  return [
    titleOf(library, packages),
    library.judge,
    stateOf(threads),
    stateOf(processes),
    noteOf(threads, 'unload'),
    noteOf(threads, 'swaps'),
    noteOf(processes, 'swaps'),
  ];
}

function titleOf({ title, needs }: Library, packages: Results['packages']): string {
  // The last one is what the library is about: compilers come first, tools are made of it.
  const [first] = needs.filter((need) => !('program' in need)).concat([...needs].reverse());
  const version = first === undefined ? undefined : packages[first.package];
  return version === undefined ? title : `${title} (${first?.package} ${version})`;
}

function stateOf(row: Row | undefined): string {
  if (row === undefined) return 'not run';
  const wrong = row.verdicts.filter((verdict) => verdict.wrong.length > 0);
  if (wrong.length === 0) return `✔ ${row.verdicts.length} of ${CHECKS.length}`;
  return `✘ ${wrong.map((verdict) => `${verdict.check}: ${verdict.wrong.join(', ')}`).join('; ')}`;
}

function noteOf(row: Row | undefined, check: string): string {
  return row?.verdicts.find((verdict) => verdict.check === check)?.note ?? '';
}

/** Messages may have what ends a cell. */
function line(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`;
}
