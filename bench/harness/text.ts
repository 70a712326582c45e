/** Numbers, tables and levels as text, for the terminal and for Markdown. */

import type { Level, Spread, Table } from './question.js';
import { short } from './units.js';

/** From here on, a number is written in thousands or millions. */
const SHORT_FROM = 10_000;

/** Three significant digits: 0.123, 12.3, 1,234, 12.3 k, 1.23 M. */
export function amount(value: number): string {
  if (Number.isNaN(value)) return '–';
  const abs = Math.abs(value);
  if (abs >= SHORT_FROM) return short(value);
  if (abs >= 1000) return Math.round(value).toLocaleString('en');
  const digits = abs >= 100 ? 0 : abs >= 10 ? 1 : abs === 0 ? 0 : abs >= 1 ? 2 : 3;
  return value.toFixed(digits);
}

/** The median, and how far rounds lay apart. */
export function withSpread(spread: Spread | null): string {
  if (spread === null) return 'failed';
  const { median, min, max } = spread;
  return min === max ? amount(median) : `${amount(median)} (${amount(min)}–${amount(max)})`;
}

export function isReached({ value, atLeast, atMost }: Level): boolean {
  return (atLeast === undefined || value >= atLeast) && (atMost === undefined || value <= atMost);
}

/** The levels as a table. */
export function levelTable(levels: readonly Level[]): Table {
  return {
    title: 'Levels',
    columns: ['level', 'measured', 'wanted', ''],
    rows: levels.map((level) => [
      level.what,
      `${amount(level.value)} ${level.unit}`,
      level.atLeast === undefined ? `at most ${level.atMost}` : `at least ${level.atLeast}`,
      isReached(level) ? 'reached' : 'MISSED',
    ]),
  };
}

export function plainTable({ title, columns, rows, note }: Table): string {
  const widths = columns.map((column, index) =>
    Math.max(column.length, ...rows.map((row) => (row[index] ?? '').length)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, index) =>
        index === 0 ? cell.padEnd(widths[index] ?? 0) : cell.padStart(widths[index] ?? 0),
      )
      .join('  ')
      .trimEnd();
  const rule = widths.map((width) => '─'.repeat(width)).join('  ');
  return [title, rule, line(columns), rule, ...rows.map(line), ...(note ? ['', note] : [])].join(
    '\n',
  );
}

export function markdownTable({ columns, rows }: Omit<Table, 'title'>): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const alignment = columns.map((_, index) => (index === 0 ? '---' : '---:'));
  return [line(columns), line(alignment), ...rows.map(line)].join('\n');
}
