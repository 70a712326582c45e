/** What makes a run of tests fail besides a test, and which files run side by side. */

import test from 'ava';
import { allTestFiles, matchingFiles, partsOf } from './files.js';
import { faults } from './run-suite.js';

test('a test that prints something makes the run fail', (t) => {
  t.is(faults({ skips: [] }, '').failed, 0);
  const report = faults({ skips: [] }, 'ListenerWarning: one\nListenerWarning: two\n');
  t.is(report.failed, 1, 'once for a part, however much it prints');
  t.true(report.failures[0]?.endsWith('    ListenerWarning: one\n    ListenerWarning: two'));
});

test('a skipped test makes the run fail unless it says what it needs', (t) => {
  const report = faults({ skips: ['store › a fifo [needs Linux]', 'store › later'] }, '');
  t.is(report.failed, 1);
  t.true(report.failures[0]?.startsWith('store › later: '));
});

test('every file is in one part, and what needs the machine for itself runs alone', (t) => {
  const all = allTestFiles();
  const parts = partsOf(all);
  t.deepEqual(parts.flatMap(({ files }) => files).sort(), all);
  t.deepEqual(
    parts.map(({ concurrency }) => concurrency),
    [null, 1],
  );
  t.is(partsOf(['test/ring.test.ts']).length, 1, 'no part is empty');
});

test('files are chosen by a part of their path', (t) => {
  t.deepEqual(matchingFiles([]), allTestFiles());
  t.deepEqual(matchingFiles(['suite/run', 'suite/tap', 'run-suite']), [
    'test/suite/run-suite.test.ts',
    'test/suite/tap.test.ts',
  ]);
  t.throws(() => matchingFiles(['no-such-file']), { message: /"no-such-file"/ });
});
