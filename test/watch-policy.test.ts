/** When watching is tried, by what came of it. */

import test from 'ava';
import { WatchPolicy } from '../src/watch-policy.js';

/** How long after `failed` watching is not tried, in steps of a quarter of a millisecond. */
function pauseMs(policy: WatchPolicy, failedMs: number): number {
  let nowMs = failedMs;
  while (!policy.allows(nowMs)) nowMs += 0.25;
  return nowMs - failedMs;
}

test('watching is tried at first', (t) => {
  t.true(new WatchPolicy().allows(0));
});

test('each watch in vain makes the pause longer, up to a quarter of a second', (t) => {
  const policy = new WatchPolicy();
  const pauses: number[] = [];
  for (let nowMs = 0; pauses.length < 14; nowMs += pauses.at(-1) ?? 0) {
    policy.failed(nowMs);
    pauses.push(pauseMs(policy, nowMs));
  }
  t.deepEqual(pauses, [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256, 256, 256]);
});

test('watches that succeed make up for one in vain', (t) => {
  const policy = new WatchPolicy();
  for (let nowMs = 0; nowMs < 1000; nowMs += 100) policy.failed(nowMs);
  for (let count = 0; count < 32; count++) policy.succeeded();
  policy.failed(2000);
  t.is(pauseMs(policy, 2000), 0.25);
});
