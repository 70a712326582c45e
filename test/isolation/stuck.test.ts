/** Calls that ignore their cancel flag, in processes: they are ended, and nothing else is. */

import { fixture } from '../../fixtures/paths.js';
import { passTime } from '../support/clock.js';
import { failure, outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { onLinux, onLinuxAlone } from '../support/process.js';
import { activeStats } from '../support/registry.js';
import { fileGate, isAlive, openIsolated, pidOf, untilDead } from './helpers.js';

const HOUR_MS = 3_600_000;
const FOREVER = Number.POSITIVE_INFINITY;

for (const maxStuckLanes of [0, 2]) {
  // Alone: the clock is the whole thread's.
  onLinuxAlone(
    `an endless call is killed after its grace, ${maxStuckLanes} spare lanes`,
    async (t) => {
      const registry = await openIsolated(t, { cancelGraceMs: 50, maxStuckLanes });
      await registry.load('endless');
      const said: unknown[] = [];
      registry.on('laneStuck', ({ replaced, killed }) => said.push({ replaced, killed }));
      registry.on('laneExited', (exit) => said.push(exit));
      for (let round = 1; round <= 3; round++) {
        const pid = await pidOf(registry, 'endless');
        const late = failure(
          registry.executeWithTimeout('endless', {}, '', HOUR_MS),
          'phase',
          'cpuReclaimed',
        );
        await eventually(
          () => activeStats(registry, 'endless').running,
          (running) => running === 1,
        );
        // Its timer is what finds that the deadline of the other has passed.
        const waker = outcome(registry.executeWithTimeout('endless', {}, '', 1));
        passTime(t, round * HOUR_MS);
        t.is(await waker, 'ERR_HANDLER_TIMEOUT');
        t.deepEqual(await late, {
          code: 'ERR_HANDLER_TIMEOUT',
          phase: 'running',
          cpuReclaimed: true,
        });
        // It is as it says.
        await untilDead([pid]);
        await eventually(
          () => activeStats(registry, 'endless'),
          ({ activeRequests, abandoned, lanes }) =>
            activeRequests === 0 && abandoned === 0 && lanes.serving === 1,
        );
        t.deepEqual(said, Array(round).fill({ replaced: true, killed: true }));
      }
      // Killing is no crash: it never counts as a loop.
      t.is(activeStats(registry, 'endless').refusing, null);
      t.like(await registry.unload('endless'), { library: 'unloaded', abandoned: 0 });
    },
  );
}

onLinux('a call that is dropped and ignores it is gone when the report comes', async (t) => {
  const registry = await openIsolated(t, { cancelGraceMs: 1, loadTimeoutMs: 60_000 });
  await registry.load('own_process');
  const gate = await fileGate(t);
  const dropped = failure(registry.execute('own_process', {}, gate.request), 'reason');
  await gate.started();
  const { drained } = await registry.swap('own_process', fixture('own_process'));
  t.deepEqual(await dropped, { code: 'ERR_HANDLER_DROPPED', reason: 'swap' });
  t.like(await drained, { dropped: 1, abandoned: 0, library: 'unloaded' });
});

onLinux('who waits behind a stuck call is served by the next process', async (t) => {
  const registry = await openIsolated(t, { cancelGraceMs: 50 });
  await registry.load('own_process');
  const gate = await fileGate(t);
  const controller = new AbortController();
  const stuck = outcome(registry.execute('own_process', {}, gate.request, controller));
  await gate.started();
  const behind = Array.from({ length: 40 }, (_, index) =>
    outcome(registry.execute('own_process', {}, `${index}`)),
  );
  controller.abort(new Error('given up'));
  t.regex(await stuck, /given up/);
  t.deepEqual(
    await Promise.all(behind),
    behind.map((_, index) => `${index}`),
  );
});

onLinux(
  'what an immediate swap drops is killed after the grace, and then it is gone',
  async (t) => {
    const registry = await openIsolated(t, { cancelGraceMs: 50 });
    await registry.loadFrom('x', fixture('endless'));
    const pid = await pidOf(registry, 'x');
    const dropped = outcome(registry.executeWithTimeout('x', {}, '', FOREVER));
    await eventually(
      () => activeStats(registry, 'x').running,
      (running) => running === 1,
    );
    const { drained } = await registry.swap('x', fixture('version_b'));
    t.is(await dropped, 'ERR_HANDLER_DROPPED');
    await untilDead([pid]);
    await eventually(
      () => registry.drainingCount,
      (draining) => draining === 0,
    );
    t.like(await drained, { dropped: 1 });
  },
);

onLinux('close ends what is endless, within its time', async (t) => {
  const registry = await openIsolated(t, { cancelGraceMs: 60_000 });
  await registry.load('own_process');
  const pid = await pidOf(registry, 'own_process');
  // Nobody opens the gate. Unlike the fixture `endless`, the call keeps no core busy meanwhile.
  const gate = await fileGate(t);
  const dropped = outcome(registry.executeWithTimeout('own_process', {}, gate.request, FOREVER));
  await gate.started();
  const report = await registry.close({ timeoutMs: 12_000 });
  t.is(await dropped, 'ERR_HANDLER_DROPPED');
  t.deepEqual(report.leftBehind, []);
  t.false(await isAlive(pid));
});

onLinux('a call that ends as its grace does is not the death of the next one', async (t) => {
  // The grace of each aborted call ends about when the call does, and others are always waiting.
  const registry = await openIsolated(t, { cancelGraceMs: 3, maxInFlight: 64 });
  await registry.load('sleep');
  const outcomes = new Map<string, number>();
  for (let round = 0; round < 60; round++) {
    const controller = new AbortController();
    const aborted = outcome(registry.execute('sleep', {}, '4', controller));
    // A little later each time, so that all moments come up.
    const beginMs = performance.now();
    while (performance.now() - beginMs < round / 20);
    const others = Array.from({ length: 3 }, () => outcome(registry.execute('sleep', {}, '0')));
    controller.abort(new Error('given up'));
    await aborted;
    for (const said of await Promise.all(others)) {
      outcomes.set(said, (outcomes.get(said) ?? 0) + 1);
    }
  }
  t.is(outcomes.size, 1, [...outcomes.keys()].join());
  t.is(activeStats(registry, 'sleep').totals.laneExited, 0);
});
