/** The fault matrix: each cell in a process of its own. What it comes to is what docs/reliability.md says. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { packageRoot } from '../../fixtures/paths.js';
import { atMost } from '../support/turns.js';
import type { Cell } from './cell.js';
import { hostCells } from './host-cells.js';
import { nativeCells } from './native-cells.js';
import { happened, saidOf } from './page.js';
import { obstacle, type Result, runCell } from './run.js';

/** Processes at once: more would mostly wait for each other, and their deadlines would pass. */
const MOST_CELLS = 4;

function check(t: ExecutionContext, { expected, ...cell }: Cell, result: Result): void {
  const told = JSON.stringify(result, null, 1);
  const { host, answers = {}, said = {} } = expected;
  if (host === 'lives') {
    t.true(result.lives, told);
    t.is(result.lost, 0, told);
    t.deepEqual([result.exitCode, result.signal], [0, null], told);
    if (cell.program !== 'ending') t.not(result.recoveredMs, null, told);
  } else {
    t.false(result.lives, told);
    t.true(host.includes(result.signal ?? result.exitCode ?? -1), told);
  }
  for (const [kind, answer] of Object.entries(answers)) {
    const got = result.answers[kind] ?? [];
    t.true(got.length > 0, `${kind}: ${told}`);
    for (const fields of got) {
      if (answer === 'ok') t.is(typeof fields['ok'], 'string', told);
      else t.like(fields, answer, told);
    }
  }
  for (const [what, fields] of Object.entries(said)) {
    t.not(result.said[what], undefined, `${what}: ${told}`);
    if (Object.keys(fields).length === 0) t.is(result.said[what]?.['code'], undefined, told);
    else t.like(result.said[what], fields, told);
  }
  t.is(result.copiesLeft, 0, told);
}

const page = readFile(join(packageRoot, 'docs', 'reliability.md'), 'utf8');
const cells = [...nativeCells, ...hostCells];

const inTurn = atMost(MOST_CELLS);

for (const cell of cells) {
  test(`${cell.table}: ${cell.row}: ${cell.column}`, async (t) => {
    const why = await obstacle(cell.needs);
    if (why !== null) {
      t.log(`not run: ${why}`);
      t.pass();
      return;
    }
    const result = await inTurn(() => runCell(cell));
    check(t, cell, result);
    const outcome = happened({ cell, result });
    const said = saidOf(await page, cell) ?? '';
    t.true(
      said.startsWith(outcome) || said.startsWith('not run'),
      `npm run reliability writes the page anew; it came to: ${outcome}; the page says: ${said}`,
    );
  });
}
