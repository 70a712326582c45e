import test from 'ava';
import { type ChildEnd, causeOf } from '../../src/preflight/child.js';

const KILLED: ChildEnd = { how: 'crashed', signal: 'SIGKILL' };
const ENDS: ChildEnd[] = [
  { how: 'exited', exitCode: 0 },
  { how: 'exited', exitCode: 3 },
  { how: 'crashed', signal: 'SIGSEGV' },
];

test('a child that was not killed has ended as it did', (t) => {
  for (const end of [...ENDS, KILLED]) t.is(causeOf(null, end), end);
});

test('a child that was killed has ended for the reason that it was killed for', (t) => {
  for (const how of ['timed-out', 'thread-ended', 'aborted'] as const) {
    t.deepEqual(causeOf({ how }, KILLED), { how });
  }
});

test('a child that was about to end has ended by itself, if anyone still wants to know', (t) => {
  for (const end of ENDS) {
    t.is(causeOf({ how: 'timed-out' }, end), end);
    t.is(causeOf({ how: 'thread-ended' }, end), end);
    t.deepEqual(causeOf({ how: 'aborted' }, end), { how: 'aborted' });
  }
});
