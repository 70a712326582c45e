/** The soak would notice: endings that must not be, each told apart from the one that may. */

import test from 'ava';
import { HandlerResponse } from '../../src/index.js';
import { countedAs, type Ending, judge, type Sent } from './verdict.js';
import { KnownVersion } from './versions.js';

const given = new AbortController();
given.abort(new Error('given up'));

const answer = (text: string, version = 1): Ending => ({
  response: new HandlerResponse(new TextEncoder().encode(text), version, 0, 0),
});
const failure = (code: string, fields: object = {}): Ending => ({
  reason: { code: `ERR_HANDLER_${code}`, ...fields },
});
const dropped = (reason: 'swap' | 'unload') => failure('DROPPED', { reason, phase: 'running' });
const timeout = failure('TIMEOUT', { timeoutMs: 10, phase: 'running', cpuReclaimed: false });
const killed = failure('TIMEOUT', { timeoutMs: 10, phase: 'running', cpuReclaimed: true });
const unheard = failure('TIMEOUT', { timeoutMs: 10, phase: 'queued', cpuReclaimed: false });
const crashed = failure('LANE_EXITED', { signal: 'SIGSEGV', exitCode: null });
const shotDown = failure('LANE_EXITED', { signal: 'SIGKILL', exitCode: null });
const exited = failure('LANE_EXITED', { signal: null, exitCode: 3 });
const loop = failure('CRASH_LOOP', { crashes: 3 });
const queueFull = failure('QUEUE_FULL', { maxQueue: 4 });
const notLoaded = failure('NOT_LOADED');
const no = failure('FAILED', { handlerCode: 42 });

const check = (response: HandlerResponse) => (response.text() === 'right' ? null : 'not right');
const failing = { request: '', error: { code: 'ERR_HANDLER_FAILED', handlerCode: 42 } };

function sent(changes: Partial<Sent> = {}): Sent {
  return {
    call: { request: '', check },
    version: new KnownVersion('echo'),
    number: 1,
    isolation: 'thread',
    state: 'active',
    inFlight: 0,
    timeoutMs: undefined,
    signal: undefined,
    abortedBefore: false,
    floods: false,
    sticks: false,
    crashLoopAfter: 3,
    ...changes,
  };
}

const segv = { code: 'ERR_HANDLER_LANE_EXITED', signal: 'SIGSEGV', exitCode: null };
const crashing = { request: 'segv', error: segv, crashes: true };

/** A version to which so many requests were sent that crash. */
function crashedOn(requests: number): KnownVersion {
  const version = new KnownVersion('dies');
  version.crashing = requests;
  return version;
}

const shot = new KnownVersion('echo');
shot.killed = 1;

const swapped = new KnownVersion('echo');
swapped.mayDrop.add('swap');

const rows: Record<string, [allowed: Sent, wrong: Sent, ending: Ending, tookMs?: number]> = {
  'a response of another version': [sent({ number: 2 }), sent(), answer('right', 2)],
  'a response of a version that was draining': [
    sent(),
    sent({ state: 'draining' }),
    answer('right'),
  ],
  'a response after an abort before': [sent(), sent({ abortedBefore: true }), answer('right')],
  'success of what must fail': [sent(), sent({ call: failing }), answer('right')],
  'failure of what must succeed': [sent({ call: failing }), sent(), no],
  'a timeout that nobody gave': [sent({ timeoutMs: 10 }), sent(), timeout, 10],
  'another timeout than the one given': [
    sent({ timeoutMs: 10 }),
    sent({ timeoutMs: 11 }),
    timeout,
    20,
  ],
  'a drop without a swap': [sent({ version: swapped }), sent(), dropped('swap')],
  'no room where there was some': [
    sent({ floods: true, inFlight: 4 }),
    sent({ floods: true, inFlight: 3 }),
    queueFull,
  ],
  'not loaded although it was active': [sent({ state: 'drained' }), sent(), notLoaded],
  'a crash of another request': [sent({ call: crashing }), sent(), crashed],
  'a process killed by nobody': [sent({ version: shot }), sent(), shotDown],
  'a crash that is none of the kills': [sent({ call: crashing }), sent({ version: shot }), crashed],
  'a refusal although too few crash': [
    sent({ version: crashedOn(3) }),
    sent({ version: crashedOn(2) }),
    loop,
  ],
  'a refusal before so many have crashed': [
    sent({ version: crashedOn(3) }),
    sent({ version: crashedOn(3), crashLoopAfter: 4 }),
    loop,
  ],
  'CPU that is not reclaimed': [
    sent({ timeoutMs: 10 }),
    sent({ timeoutMs: 10, isolation: 'process' }),
    timeout,
    20,
  ],
  'CPU that cannot be reclaimed': [
    sent({ timeoutMs: 10, isolation: 'process' }),
    sent({ timeoutMs: 10 }),
    killed,
    20,
  ],
  'an abort by nobody': [sent({ signal: given.signal }), sent(), { reason: given.signal.reason }],
};

for (const [what, [allowed, wrong, ending, tookMs = 5]] of Object.entries(rows)) {
  test(`${what} is noticed`, (t) => {
    t.is(judge(allowed, ending, tookMs).problem, null);
    t.not(judge(wrong, ending, tookMs).problem, null);
  });
}

test('each ending raises the counter of its own, and what was not accepted none', (t) => {
  const counted = (ending: Ending, changes: Partial<Sent> = {}, wasShed = false) =>
    countedAs(sent(changes), ending, wasShed);
  t.is(counted(answer('right')), 'succeeded');
  t.is(counted(no), 'failed');
  t.is(counted(failure('INVALID_RESPONSE')), 'badResponse');
  t.is(counted(failure('RESPONSE_TOO_LARGE')), 'badResponse');
  t.is(counted(unheard), 'timedOutQueued');
  t.is(counted(timeout), 'timedOutRunning');
  t.is(counted(dropped('swap')), 'dropped');
  t.is(counted(loop), 'dropped', 'accepted before it was refused');
  t.is(counted(loop, {}, true), 'shed');
  t.is(counted(queueFull, {}, true), 'shed');
  t.is(counted(crashed), 'laneExited');
  const aborted = { reason: given.signal.reason };
  t.is(counted(aborted, { signal: given.signal }), 'aborted');
  t.is(counted(aborted, { signal: given.signal, abortedBefore: true }), null);
  t.is(counted(notLoaded), null);
  t.is(counted(failure('INVALID_REQUEST')), null);
});

test('a wrong byte is noticed', (t) => {
  t.is(judge(sent(), answer('wrong'), 5).problem, 'not right');
});

test('a crash with another end than its own is noticed', (t) => {
  t.not(judge(sent({ call: crashing }), exited, 5).problem, null);
});

test('a crash that is answered is noticed', (t) => {
  t.not(judge(sent({ call: crashing }), answer('right'), 5).problem, null);
});

test('CPU that is said to be in use although nothing ran is noticed', (t) => {
  t.not(judge(sent({ timeoutMs: 10 }), unheard, 20).problem, null);
});

test('crashes are told apart by how they ended', (t) => {
  const outcomes = [crashed, exited].map((ending) => judge(sent(), ending, 5).outcome);
  t.deepEqual(outcomes, [
    'ERR_HANDLER_LANE_EXITED (SIGSEGV)',
    'ERR_HANDLER_LANE_EXITED (exit code 3)',
  ]);
});

test('a timeout that comes early is noticed', (t) => {
  t.not(judge(sent({ timeoutMs: 10 }), timeout, 8).problem, null);
});

test('a drop for another reason than what was done is noticed', (t) => {
  t.not(judge(sent({ version: swapped }), dropped('unload'), 5).problem, null);
});
