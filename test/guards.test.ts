/** Request guards: one caller's hold on a version. */

import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { DrainReport, RequestGuard } from '../src/index.js';
import { outcome, rejection } from './support/outcomes.js';
import { eventually, isSettled } from './support/polling.js';
import { UNLOADED } from './support/process.js';
import { openRegistry } from './support/registry.js';

test('a guard counts as in flight until it is released', async (t) => {
  const { registry } = await openRegistry(t);
  const version = await registry.load('echo');
  const guards = [version.acquireRequest(), version.acquireRequest()];
  t.is(version.activeRequests, 2);
  t.is(registry.stats().activeRequests, 2);
  guards[0]?.release();
  t.is(version.activeRequests, 1);
  guards[1]?.release();
  t.is(version.activeRequests, 0);
});

test('releasing twice counts once, in whatever way', async (t) => {
  const { registry } = await openRegistry(t);
  const version = await registry.load('echo');
  const [guard, other] = [version.acquireRequest(), version.acquireRequest()] as [
    RequestGuard,
    RequestGuard,
  ];
  guard.release();
  guard.release();
  guard[Symbol.dispose]();
  t.is(version.activeRequests, 1);
  const unloading = registry.unload('echo');
  guard.release();
  t.false(await isSettled(unloading));
  t.is(version.state, 'draining');
  other.release();
  await unloading;
  guard.release();
  other.release();
  t.is(version.activeRequests, 0);
});

test('a guard is released at the end of its block', async (t) => {
  const { registry } = await openRegistry(t);
  const version = await registry.load('echo');
  {
    using guard = version.acquireRequest();
    t.not(guard, null);
    t.is(version.activeRequests, 1);
  }
  t.is(version.activeRequests, 0);
});

test('a guard holds the version over a swap', async (t) => {
  const { registry } = await openRegistry(t);
  const old = await registry.loadFrom('x', fixture('version_a'));
  const guard = old.acquireRequest();
  const { drained, ...result } = await registry.swapGraceful('x', fixture('version_b'));
  t.deepEqual(result, { swapped: true, oldRequestsPending: 1, draining: true });
  t.is(old.state, 'draining');
  t.false(await isSettled(drained as Promise<DrainReport>));
  guard?.release();
  t.is(old.state, 'drained');
  t.like(await drained, { finished: 0, dropped: 0, abandoned: 0, library: UNLOADED });
});

test('a guard outlives an immediate swap: it is not a caller that could be answered', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 1 });
  const old = await registry.loadFrom('x', fixture('version_a'));
  const guard = old.acquireRequest();
  const { drained } = await registry.swap('x', fixture('version_b'));
  t.like(await drained, { dropped: 0, abandoned: 0, library: 'resident' });
  t.like(old, { state: 'draining', activeRequests: 1 });
  guard?.release();
  await eventually(
    () => old.state,
    (state) => state === 'retired',
  );
  t.is(old.activeRequests, 0);
});

test('only an active version gives guards and executes', async (t) => {
  const { registry } = await openRegistry(t);
  const old = await registry.loadFrom('x', fixture('version_a'));
  t.is(await outcome(old.execute({}, 'x')), 'A:x');
  const guard = old.acquireRequest();
  const { drained } = await registry.swapGraceful('x', fixture('version_b'));
  const refused = { code: 'ERR_HANDLER_NOT_LOADED', endpoint: 'x', version: 1 };
  for (const state of ['draining', 'drained', 'retired'] as const) {
    t.is(old.state, state);
    t.is(old.acquireRequest(), null);
    t.like(await rejection(old.execute({}, 'x')), refused);
    if (state === 'draining') guard?.release();
    else await drained;
  }
  t.is(await outcome(registry.execute('x', {}, 'x')), 'B:x');
});

test('a guard taken in the same tick as the swap is counted', async (t) => {
  const { registry } = await openRegistry(t);
  const old = await registry.loadFrom('x', fixture('version_a'));
  const swapping = registry.swapGraceful('x', fixture('version_b'));
  const guard = old.acquireRequest();
  t.not(guard, null);
  const { oldRequestsPending, drained } = await swapping;
  t.is(oldRequestsPending, 1);
  guard?.release();
  t.like(await drained, { library: UNLOADED });
});
