/** The tables of docs/reliability.md, from what cells came to. */

import type { Fields } from '../fault/backend.js';
import type { Cell } from './cell.js';
import type { Result } from './run.js';

/** A cell and how it went, or why it was not run. */
export interface Outcome {
  cell: Cell;
  result: Result | string;
}

/** Fields that say more than the code does. */
const TELLING = ['reason', 'step', 'phase', 'signal', 'exitCode', 'defect'];

/** What happened, without times: the same each time. */
export function happened({ cell, result }: Outcome): string {
  if (typeof result === 'string') return `not run: ${result}`;
  const note = cell.note === undefined ? [] : [cell.note];
  if (!result.lives) {
    // What was in flight at that moment is a matter of chance.
    return [ending(cell, result), 'what is in flight goes with it', ...note].join('; ');
  }
  const errors = [...Object.values(result.said), ...Object.values(result.answers).flat()]
    .filter(({ code }) => code !== undefined)
    .map(describe);
  const what = errors.length === 0 ? ['no error'] : [...new Set(errors)];
  const left = Number(result.said['close']?.['leftBehind'] ?? 0);
  return [
    ...what,
    `lost ${result.lost}`,
    ...(left > 0 ? [`left behind ${left}`] : []),
    ...note,
  ].join('; ');
}

function ending(cell: Cell, { signal, exitCode }: Result): string {
  if (cell.killAfter !== undefined) return 'killed';
  const chance = cell.expected.host.length > 1 && cell.expected.host !== 'lives';
  if (chance) return `**the host ends** (${[...cell.expected.host].join(', ')}, by chance)`;
  return `**the host ends** (${signal ?? exitCode})`;
}

function describe(fields: Fields): string {
  const more = TELLING.map((name) => fields[name]).filter(
    (value) => value !== undefined && value !== null,
  );
  return `\`${fields['code']}\`${more.length === 0 ? '' : ` (${more.join(', ')})`}`;
}

/** How soon, so coarsely that a busy machine says the same as an idle one. */
function recovered({ result }: Outcome): string {
  if (typeof result === 'string' || !result.lives || result.recoveredMs === null) return '';
  if (result.recoveredMs < 50) return '; serves at once';
  return result.recoveredMs < 1000 ? '; serves within 1 s' : '; serves within seconds';
}

/** One table as Markdown. */
export function table(outcomes: readonly Outcome[]): string {
  const columns = [...new Set(outcomes.map(({ cell }) => cell.column))];
  const rows = [...new Set(outcomes.map(({ cell }) => cell.row))];
  const at = (row: string, column: string) => {
    const outcome = outcomes.find(({ cell }) => cell.row === row && cell.column === column);
    return outcome === undefined ? '' : `${happened(outcome)}${recovered(outcome)}`;
  };
  return [
    line(['fault', ...columns]),
    line(['---', ...columns.map(() => '---')]),
    ...rows.map((row) => line([row, ...columns.map((column) => at(row, column))])),
  ].join('\n');
}

function line(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

/** Puts the text between the markers of a name. */
export function replaceBetween(page: string, name: string, text: string): string {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- end of ${name} -->`];
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from === -1 || to < from) throw new Error(`the page has no markers for '${name}'`);
  return `${page.slice(0, from + begin.length)}\n${text}\n${page.slice(to)}`;
}

/** What the page says about a cell, or undefined. */
export function saidOf(page: string, { table: name, row, column }: Cell): string | undefined {
  const part = page.slice(
    page.indexOf(`<!-- ${name} -->`),
    page.indexOf(`<!-- end of ${name} -->`),
  );
  const rows = part.split('\n').map((text) => text.split('|').map((word) => word.trim()));
  const columns = rows.find((words) => words[1] === 'fault') ?? [];
  return rows.find((words) => words[1] === row)?.[columns.indexOf(column)];
}
