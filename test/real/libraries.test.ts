/**
 * Real libraries: everything that a backend does with them, briefly. `npm run real` does it at
 * length.
 */

import test from 'ava';
import { needs } from '../support/needs.js';
import { atMost } from '../support/turns.js';
import { BRIEF, CHECKS } from './checks.js';
import { libraries } from './libraries.js';
import { missingPackages } from './needs.js';
import { pageWith, readPublished } from './page.js';
import { runRow } from './run.js';

/** Each has threads or processes of its own besides. */
const inTurn = atMost(2);

// Known before the first test is declared: ava wants them all in one go.
const missing = await Promise.all(
  libraries.map((library) =>
    process.platform === 'linux' ? missingPackages(library.needs) : ['Linux'],
  ),
);

for (const [place, library] of libraries.entries()) {
  const lacking = missing[place] ?? [];
  const declare = needs(lacking.join(', '), lacking.length === 0);
  for (const isolation of ['thread', 'process'] as const) {
    declare(`${library.name}: ${isolation}`, async (t) => {
      t.timeout(600_000);
      const row = await inTurn(() => runRow(library, isolation, BRIEF));
      const wrong = row.verdicts.filter((verdict) => verdict.wrong.length > 0);
      t.deepEqual(wrong, []);
      t.deepEqual(
        row.verdicts.map(({ check }) => check),
        [...CHECKS],
      );
    });
  }
}

test('the page says what was published', async (t) => {
  const results = await readPublished();
  const { now, then } = await pageWith(results);
  t.is(now, then, 'npm run real:report writes the page anew');
  const shown = libraries.flatMap(({ name }) => [`${name} thread`, `${name} process`]);
  t.deepEqual(
    results.rows.map(({ library, isolation }) => `${library} ${isolation}`),
    shown,
  );
});
