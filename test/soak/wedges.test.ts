/** An endpoint that is wedged is noticed, and one that has a reason, or only takes its time, is not. */

import test from 'ava';
import { type Look, WedgeWatch } from './wedges.js';

const PATIENCE_MS = 10_000;
const STEP_MS = 100;

const well: Omit<Look, 'nowMs' | 'ended'> = {
  version: 1,
  threads: 2,
  lanes: { starting: 0, serving: 2, stuck: 0 },
  refusing: null,
  unsettled: 1,
  troubles: 0,
  killed: 0,
};
const lanes = (serving: number, starting = 0, stuck = 0) => ({ serving, starting, stuck });

/** What is found in `seconds` of what `at` says of each moment; without it, everything is well. */
function watched(seconds: number, at: (ms: number) => Partial<Look>): string[] {
  const watch = new WedgeWatch(PATIENCE_MS);
  const found: string[] = [];
  for (let nowMs = 0; nowMs <= seconds * 1000; nowMs += STEP_MS) {
    found.push(...watch.look({ ...well, nowMs, ended: nowMs, ...at(nowMs) }));
  }
  return found;
}

const wedged: Record<string, [symptom: string, at: (ms: number) => Partial<Look>]> = {
  'a crash loop without another try': ['refuses', () => ({ refusing: 'crash-loop', unsettled: 0 })],
  'stuck lanes that are long back': ['refuses', () => ({ refusing: 'stuck', unsettled: 0 })],
  'a request that nobody takes': ['answers nothing', () => ({ ended: 7 })],
  'no lane, and none that starts': [
    'has no lane',
    () => ({ lanes: lanes(0), unsettled: 0, ended: 0 }),
  ],
  'no answer, although lanes come and go': [
    'answers nothing',
    (ms) => ({ ended: 7, troubles: ms }),
  ],
  'a lane that was lost and not replaced': ['lacks lanes', () => ({ lanes: lanes(1) })],
};

for (const [what, [symptom, at]] of Object.entries(wedged)) {
  test(`noticed: ${what}`, (t) => {
    t.deepEqual(watched(9.9, at), []);
    t.deepEqual(watched(10, at), [symptom]);
    t.deepEqual(watched(25, at), [symptom, symptom]);
  });
}

const fine: Record<string, (ms: number) => Partial<Look>> = {
  'an endpoint that answers': () => ({}),
  'one of which nobody wants anything': () => ({ unsettled: 0, ended: 0 }),
  'one that is not loaded': () => ({ version: undefined, lanes: lanes(0), ended: 0 }),
  'a crash loop that goes on, with a crash at each try': (ms) => ({
    refusing: 'crash-loop',
    troubles: Math.floor(ms / 5000),
  }),
  'a lane that is killed from outside each time before it answers': (ms) => ({
    ended: 7,
    killed: Math.floor(ms / 5000),
  }),
  'one that is replaced again and again': (ms) => ({ ended: 0, version: Math.floor(ms / 5000) }),
  'one that accepts in between': (ms) => ({ refusing: ms % 9000 === 0 ? null : 'stuck' }),
  'a lane that starts in the place of another': () => ({ lanes: lanes(1, 1) }),
  'a lane that is stuck': () => ({ lanes: lanes(1, 0, 1) }),
  'a lane that comes with the next answer, of which there is none': () => ({
    lanes: lanes(1),
    unsettled: 0,
    ended: 0,
  }),
};

for (const [what, at] of Object.entries(fine)) {
  test(`not taken for it: ${what}`, (t) => {
    t.deepEqual(watched(60, at), []);
  });
}
