import { once } from 'node:events';
import { PassThrough } from 'node:stream';
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
import type { ProcessExit } from '../../workers/posix-spawn.js';

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

/** A child that this process may not kill, having become another user's since. */
function unkillable() {
  const { promise: exited, resolve: exit } = deferred<ProcessExit>();
  const { promise: wasKilled, resolve: killed } = deferred<void>();
  const stdin = new PassThrough();
  const child: StartedChild = {
    pid: process.pid,
    stdin,
    stderr: new PassThrough().end(),
    messages: new PassThrough().end(),
    exited,
    kill: () => {
      killed();
      throw Object.assign(new Error('kill EPERM'), { code: 'EPERM' });
    },
    keepAlive: () => undefined,
  };
  return { child, stdin, wasKilled, exit };
}

test('a child that may not be killed is waited for until its lifetime is over', async (t) => {
  const late = unkillable();
  const ahead = Promise.resolve(late.child);
  const timedOut = runChild({ ...NOTHING, ahead, timeoutMs: 20, signal: undefined });
  await late.wasKilled;
  late.exit({ signal: 'SIGALRM' });
  t.deepEqual((await timedOut).end, { how: 'timed-out' });

  const unwanted = unkillable();
  const abort = new AbortController();
  const { signal } = abort;
  const more = { ahead: Promise.resolve(unwanted.child), timeoutMs: 60_000, signal };
  const aborted = runChild({ ...NOTHING, ...more });
  await once(unwanted.stdin, 'readable');
  abort.abort();
  await unwanted.wasKilled;
  unwanted.exit({ signal: 'SIGALRM' });
  t.deepEqual((await aborted).end, { how: 'aborted' });
});

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
