import test from 'ava';
import { deferred } from '../../src/deferred.js';
import { plainPlan } from '../../src/library/load-plan.js';
import {
  type ChildEnd,
  type ChildOptions,
  causeOf,
  runChild,
  startPreflightChild,
} from '../../src/preflight/child.js';
import type { StartedChild } from '../../src/start-child.js';

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

const NOTHING: Omit<ChildOptions, 'timeoutMs' | 'signal'> = {
  task: { plan: plainPlan('/nowhere'), stackBytes: 0, maxPayloadBytes: 0, selfTest: null },
  body: new Uint8Array(),
  env: {},
};

test('the wait for a child that does not come has an end, and one that comes later is ended', async (t) => {
  const { promise: ahead, resolve } = deferred<StartedChild | null>();
  const timedOut = await runChild({ ...NOTHING, ahead, timeoutMs: 20, signal: undefined });
  t.deepEqual(timedOut.end, { how: 'timed-out' });

  const abort = new AbortController();
  const aborted = runChild({ ...NOTHING, ahead, timeoutMs: 60_000, signal: abort.signal });
  abort.abort();
  t.deepEqual((await aborted).end, { how: 'aborted' });

  const child = await startPreflightChild({});
  resolve(child);
  t.deepEqual(await child.exited, { signal: 'SIGKILL' });
});
