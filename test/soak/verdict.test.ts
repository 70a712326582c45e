/** The soak would notice: endings that must not be, each told apart from the one that may. */

import test from 'ava';
import { HandlerResponse } from '../../src/index.js';
import { type Ending, judge, type Sent } from './verdict.js';
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
const timeout = failure('TIMEOUT', { timeoutMs: 10, phase: 'running' });
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
    state: 'active',
    inFlight: 0,
    timeoutMs: undefined,
    signal: undefined,
    abortedBefore: false,
    floods: false,
    sticks: false,
    ...changes,
  };
}

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
  'an abort by nobody': [sent({ signal: given.signal }), sent(), { reason: given.signal.reason }],
};

for (const [what, [allowed, wrong, ending, tookMs = 5]] of Object.entries(rows)) {
  test(`${what} is noticed`, (t) => {
    t.is(judge(allowed, ending, tookMs).problem, null);
    t.not(judge(wrong, ending, tookMs).problem, null);
  });
}

test('a wrong byte is noticed', (t) => {
  t.is(judge(sent(), answer('wrong'), 5).problem, 'not right');
});

test('a timeout that comes early is noticed', (t) => {
  t.not(judge(sent({ timeoutMs: 10 }), timeout, 8).problem, null);
});

test('a drop for another reason than what was done is noticed', (t) => {
  t.not(judge(sent({ version: swapped }), dropped('unload'), 5).problem, null);
});
