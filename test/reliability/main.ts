/** `npm run reliability`: runs the fault matrix and writes its tables into docs/reliability.md. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../../fixtures/paths.js';
import { hostCells } from './host-cells.js';
import { nativeCells } from './native-cells.js';
import { type Outcome, replaceBetween, table } from './page.js';
import { obstacle, runCell } from './run.js';

const path = join(packageRoot, 'docs', 'reliability.md');
const outcomes: Outcome[] = [];
// One at a time, so that what they say of time is about them.
for (const cell of [...nativeCells, ...hostCells]) {
  const result = (await obstacle(cell.needs)) ?? (await runCell(cell));
  outcomes.push({ cell, result });
  console.log(`${cell.row}, ${cell.column}: ${typeof result === 'string' ? result : 'done'}`);
}
let page = await readFile(path, 'utf8');
for (const name of new Set(outcomes.map(({ cell }) => cell.table))) {
  const own = outcomes.filter(({ cell }) => cell.table === name);
  page = replaceBetween(page, name, table(own));
}
await writeFile(path, page);
