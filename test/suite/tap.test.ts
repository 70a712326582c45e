import test from 'ava';
import { readTap } from './tap.js';

const FAILED = `TAP version 13
ok 1 - ring › one
not ok 2 - ring › two
#   seed 7
  ---
    name: AssertionError
    message: 'Value is not truthy'
  ...
ok 3 - ring › three # SKIP
not ok 4 - ring › four # TODO

1..4
# tests 3
# pass 1
# skip 1
# fail 2
`;

test('counts and keeps what is said about a failure', (t) => {
  t.deepEqual(readTap(FAILED, 1), {
    passed: 1,
    failed: 1,
    skipped: 1,
    skips: ['ring › three'],
    failures: [
      "ring › two\n#   seed 7\n    name: AssertionError\n    message: 'Value is not truthy'",
    ],
  });
});

test('no failures', (t) => {
  const output = 'TAP version 13\nok 1 - one\n\n1..1\n# tests 1\n# pass 1\n# fail 0\n';
  t.deepEqual(readTap(output, 0), { passed: 1, failed: 0, skipped: 0, failures: [], skips: [] });
  t.is(readTap(output, 1).failed, 1, 'ava failed and says of no test that it did');
});

test('output that ends early is a failure', (t) => {
  for (const output of ['', 'TAP version 13\nok 1 - one\n']) {
    for (const exitCode of [0, 1, null]) t.is(readTap(output, exitCode).failed, 1);
  }
});

test('tests that never ran have failed', (t) => {
  const output = 'TAP version 13\nnot ok 1 - x exited due to SIGSEGV\n\n1..3\n# pass 0\n# fail 3\n';
  const report = readTap(output, 1);
  t.is(report.failed, 3);
  t.deepEqual(report.failures, ['x exited due to SIGSEGV']);
});
