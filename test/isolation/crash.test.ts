/** Handlers that take their process along: who is told what, and what goes on. */

import { fixture } from '../../fixtures/paths.js';
import type { LaneExitedError } from '../../src/index.js';
import { failure, outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { onLinux, onLinuxAlone } from '../support/process.js';
import { activeStats } from '../support/registry.js';
import { fileGate, isAlive, openIsolated, pidOf, untilDead } from './helpers.js';

const CRASHES: Record<string, { signal: string | null; exitCode: number | null }> = {
  segv: { signal: 'SIGSEGV', exitCode: null },
  abort: { signal: 'SIGABRT', exitCode: null },
  exit: { signal: null, exitCode: 3 },
  overflow: { signal: 'SIGSEGV', exitCode: null },
  throw: { signal: 'SIGABRT', exitCode: null },
  // Its process has lost the thread that mattered, and ends with a code of ours.
  pthread_exit: { signal: null, exitCode: 113 },
  // These two are ended by the host.
  'hang up': { signal: 'SIGKILL', exitCode: null },
  lie: { signal: 'SIGKILL', exitCode: null },
};

for (const [request, expected] of Object.entries(CRASHES)) {
  onLinux(`${request}: fails its own request, with how it ended`, async (t) => {
    const registry = await openIsolated(t);
    await registry.load('dies');
    const pid = await pidOf(registry, 'dies');
    const exits: LaneExitedError[] = [];
    registry.on('laneExited', ({ error }) => exits.push(error as LaneExitedError));
    const crashing = failure(registry.execute('dies', {}, request), 'signal', 'exitCode');
    // These wait behind it, and are answered by the next process.
    const behind = Array.from({ length: 5 }, (_, index) =>
      outcome(registry.execute('dies', {}, `${index}`)),
    );
    t.deepEqual(await crashing, { code: 'ERR_HANDLER_LANE_EXITED', ...expected });
    t.deepEqual(await Promise.all(behind), ['0', '1', '2', '3', '4']);
    t.false(await isAlive(pid));
    t.not(await pidOf(registry, 'dies'), pid);
    t.like(exits, [{ code: 'ERR_HANDLER_LANE_EXITED', ...expected }]);
    t.like(activeStats(registry, 'dies').totals, { laneExited: 1, succeeded: 5 });
    t.is(activeStats(registry, 'dies').activeRequests, 0);
  });
}

onLinux('a crash does not concern the other lanes', async (t) => {
  const registry = await openIsolated(t, { threads: 2 });
  await registry.loadFrom('x', fixture('own_process'));
  const gate = await fileGate(t);
  const running = outcome(registry.execute('x', {}, gate.request));
  await gate.started();
  const pid = Number(await outcome(registry.execute('x', {}, 'pid')));
  process.kill(pid, 'SIGKILL');
  await untilDead([pid]);
  await eventually(
    () => activeStats(registry, 'x').processIds,
    (pids) => pids.length === 2 && !pids.includes(pid),
  );
  await gate.open();
  t.is(await running, 'released');
});

onLinux('a process that ends without a request costs none', async (t) => {
  const registry = await openIsolated(t);
  await registry.load('own_process');
  for (let round = 0; round < 3; round++) {
    const pid = await pidOf(registry, 'own_process');
    process.kill(pid, 'SIGKILL');
    await untilDead([pid]);
    const now = Number(await outcome(registry.execute('own_process', {}, 'pid')));
    t.not(now, pid);
    t.true(await isAlive(now));
  }
  t.is(activeStats(registry, 'own_process').totals.laneExited, 0);
});

onLinux('a process that ends while nothing comes is replaced all the same', async (t) => {
  const registry = await openIsolated(t);
  await registry.load('own_process');
  const pid = await pidOf(registry, 'own_process');
  process.kill(pid, 'SIGKILL');
  const next = await eventually(
    () => activeStats(registry, 'own_process').processIds,
    (pids) => pids.length === 1 && pids[0] !== pid,
  );
  t.is(Number(await outcome(registry.execute('own_process', {}, 'pid'))), next[0] ?? 0);
});

onLinux('a crash loop: a clear error, half-open retries, and recovery by itself', async (t) => {
  const registry = await openIsolated(t, { crashLoopAfter: 3, maxInFlight: 32 });
  await registry.load('dies');
  const loops: number[] = [];
  const ended = new Promise<void>((resolve) => registry.once('crashLoopEnded', () => resolve()));
  registry.on('crashLoop', ({ crashes }) => loops.push(crashes));
  const crash = () => outcome(registry.execute('dies', {}, 'segv'));
  for (let count = 0; count < 2; count++) t.is(await crash(), 'ERR_HANDLER_LANE_EXITED');
  t.is(activeStats(registry, 'dies').refusing, null);
  const last = crash();
  const behind = Array.from({ length: 40 }, () =>
    failure(registry.execute('dies', {}, 'x'), 'crashes'),
  );
  t.is(await last, 'ERR_HANDLER_LANE_EXITED');
  // What was queued is told so at once, in the ring and behind it, and what comes now is refused.
  const loop = { code: 'ERR_HANDLER_CRASH_LOOP', crashes: 3 };
  t.deepEqual(await Promise.all(behind), Array(40).fill(loop));
  t.deepEqual(await failure(registry.execute('dies', {}, 'x'), 'crashes'), loop);
  t.is(activeStats(registry, 'dies').refusing, 'crash-loop');
  const error = await registry.execute('dies', {}, 'x').catch((reason: Error) => reason);
  t.like((error as Error).cause, { code: 'ERR_HANDLER_LANE_EXITED', signal: 'SIGSEGV' });

  const accepting = async () => {
    await eventually(
      () => activeStats(registry, 'dies').refusing,
      (refusing) => refusing === null,
    );
  };
  // A new lane is tried. One more crash, and it is refused again at once.
  await accepting();
  t.is(await crash(), 'ERR_HANDLER_LANE_EXITED');
  t.is(activeStats(registry, 'dies').refusing, 'crash-loop');
  await accepting();
  t.is(await outcome(registry.execute('dies', {}, 'good')), 'good');
  await ended;
  t.deepEqual(loops, [3, 4]);
  // From here on it counts anew.
  t.is(await crash(), 'ERR_HANDLER_LANE_EXITED');
  t.is(await outcome(registry.execute('dies', {}, 'good')), 'good');
});

onLinux('crashes with answers in between are no loop', async (t) => {
  const registry = await openIsolated(t, { crashLoopAfter: 2 });
  await registry.load('dies');
  for (let round = 0; round < 5; round++) {
    t.is(await outcome(registry.execute('dies', {}, 'abort')), 'ERR_HANDLER_LANE_EXITED');
    t.is(await outcome(registry.execute('dies', {}, 'good')), 'good');
  }
});

onLinux('a graceful swap ends a crash loop', async (t) => {
  const registry = await openIsolated(t, { crashLoopAfter: 1 });
  await registry.loadFrom('x', fixture('dies'));
  t.is(await outcome(registry.execute('x', {}, 'segv')), 'ERR_HANDLER_LANE_EXITED');
  t.is(await outcome(registry.execute('x', {}, 'x')), 'ERR_HANDLER_CRASH_LOOP');
  const { drained } = await registry.swapGraceful('x', fixture('version_b'));
  t.is(await outcome(registry.execute('x', {}, 'x')), 'B:x');
  t.like(await drained, { library: 'unloaded', dropped: 0 });
});

onLinux('a crash in handler_init refuses the library; the active version goes on', async (t) => {
  const registry = await openIsolated(t);
  await registry.loadFrom('x', fixture('version_a'));
  const options = { env: { CHANGEOVER_TEST_FAULT: 'abort@init' } };
  const error = await registry.swap('x', fixture('fault'), options).catch((reason) => reason);
  t.like(error, { code: 'ERR_HANDLER_LOAD_FAILED', path: fixture('fault') });
  t.like(error.cause, { code: 'ERR_HANDLER_LANE_EXITED', signal: 'SIGABRT' });
  t.is(await outcome(registry.execute('x', {}, 'x')), 'A:x');
});

onLinux('a constructor that hangs costs nothing but the load', async (t) => {
  const registry = await openIsolated(t);
  await registry.loadFrom('x', fixture('version_a'));
  const env = { CHANGEOVER_TEST_FAULT: 'hang@constructor' };
  const load = failure(
    registry.swap('x', fixture('fault'), { env, loadTimeoutMs: 500 }),
    'timeoutMs',
  );
  t.deepEqual(await load, { code: 'ERR_HANDLER_LOAD_TIMEOUT', timeoutMs: 500 });
  // The dynamic loader's lock was that of its process: others load.
  await registry.swap('x', fixture('version_b'), { loadTimeoutMs: 60_000 });
  t.is(await outcome(registry.execute('x', {}, 'x')), 'B:x');
});

onLinuxAlone('a shutdown that hangs is killed, and the report is true', async (t) => {
  // Asleep, not in a loop: it takes six seconds until it is killed.
  const env = { CHANGEOVER_TEST_FAULT: 'sleep@shutdown' };
  const registry = await openIsolated(t, { loadTimeoutMs: 6000, env });
  await registry.load('fault');
  const pid = await pidOf(registry, 'fault');
  const exits: unknown[] = [];
  registry.on('laneExited', ({ error }) => exits.push(error));
  const report = await registry.unload('fault');
  t.like(report, { library: 'unloaded', dropped: 0 });
  t.false(await isAlive(pid));
  t.like(exits, [{ code: 'ERR_HANDLER_LANE_EXITED', signal: 'SIGKILL' }]);
});

onLinux('the environment is what was given, and nothing else', async (t) => {
  const registry = await openIsolated(t, { env: { GIVEN: 'yes' } });
  const handler = await registry.load('own_process');
  const env = async (name: string) => (await handler.execute({}, `env ${name}`)).text();
  t.is(await env('GIVEN'), 'yes');
  t.is(await env('PATH'), '(not set)');
  t.is(await env('HOME'), '(not set)');
});
