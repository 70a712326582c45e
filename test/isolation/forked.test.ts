/**
 * Lanes whose end is not seen on their socket, or that may not be killed: the handler forked a
 * process that holds the socket open, or the host has become another user.
 */

import { execFile } from 'node:child_process';
import { chmod } from 'node:fs/promises';
import { promisify } from 'node:util';
import { fixture } from '../../fixtures/paths.js';
import { scratch } from '../support/files.js';
import { needs } from '../support/needs.js';
import { failure, outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { onLinux } from '../support/process.js';
import { activeStats } from '../support/registry.js';
import { fileGate, isAlive, openIsolated, pidOf, untilDead } from './helpers.js';

onLinux('a crash is noticed although a forked process lives on', async (t) => {
  const registry = await openIsolated(t);
  await registry.load('own_process');
  const gate = await fileGate(t);
  const request = gate.request.replace('wait', 'orphan');
  t.deepEqual(await failure(registry.execute('own_process', {}, request), 'signal'), {
    code: 'ERR_HANDLER_LANE_EXITED',
    signal: 'SIGABRT',
  });
  t.is(await outcome(registry.execute('own_process', {}, 'x')), 'x');
  await gate.open();
});

onLinux('a stuck lane is killed and replaced although a forked process lives on', async (t) => {
  const registry = await openIsolated(t, { cancelGraceMs: 10, maxStuckLanes: 0 });
  await registry.load('own_process');
  const stuck: boolean[] = [];
  registry.on('laneStuck', ({ killed }) => stuck.push(killed));
  const gates = [];
  for (let round = 0; round < 3; round++) {
    const pid = await pidOf(registry, 'own_process');
    const gate = await fileGate(t);
    gates.push(gate);
    const controller = new AbortController();
    const request = gate.request.replace('wait', 'fork');
    const given = registry.execute('own_process', {}, request, controller).catch((error) => error);
    await gate.started();
    controller.abort('given up');
    t.is(await given, 'given up');
    t.is(await outcome(registry.execute('own_process', {}, 'x')), 'x');
    await untilDead([pid]);
  }
  t.deepEqual(stuck, [true, true, true]);
  t.is(activeStats(registry, 'own_process').refusing, null);
  await Promise.all(gates.map((gate) => gate.open()));
});

onLinux('a probe of a crash loop that hangs is killed, and the loop goes on', async (t) => {
  const registry = await openIsolated(t, {
    crashLoopAfter: 1,
    cancelGraceMs: 10,
    maxStuckLanes: 0,
  });
  await registry.load('own_process');
  const loops: number[] = [];
  registry.on('crashLoop', ({ crashes }) => loops.push(crashes));
  const accepting = () =>
    eventually(
      () => activeStats(registry, 'own_process').refusing,
      (refusing) => refusing === null,
    );
  const gate = await fileGate(t);
  const crash = outcome(registry.execute('own_process', {}, gate.request));
  await gate.started();
  process.kill(await pidOf(registry, 'own_process'), 'SIGKILL');
  t.is(await crash, 'ERR_HANDLER_LANE_EXITED');
  await accepting();

  const hanging = await fileGate(t);
  const controller = new AbortController();
  const probe = registry
    .execute('own_process', {}, hanging.request, controller)
    .catch((error) => error);
  await hanging.started();
  controller.abort('given up');
  t.is(await probe, 'given up');
  await eventually(
    () => loops.length,
    (count) => count === 2,
  );
  t.deepEqual(loops, [1, 2]);
  await accepting();
  t.is(await outcome(registry.execute('own_process', {}, 'x')), 'x');
});

/** Becomes another user, as a server does once it has its ports. */
const unprivileged = `
  import { HandlerRegistry } from ${JSON.stringify(new URL('../../src/index.js', import.meta.url).href)};
  const [path, cacheDir] = process.argv.slice(-2);
  const registry = new HandlerRegistry({ cacheDir, isolation: 'process', threads: 2, cancelGraceMs: 10, preflight: false, loadTimeoutMs: 60_000 });
  // What is only waited for keeps no process alive.
  setInterval(() => undefined, 60_000);
  const uncaught = [];
  process.on('uncaughtException', ({ code }) => uncaught.push(code));
  await registry.loadFrom('it', path);
  const stats = () => registry.stats().endpoints[0].versions[0];
  const pids = stats().processIds;
  process.setgid(65534);
  process.setuid(65534);
  const stuck = new Promise((resolve) => registry.once('laneStuck', resolve));
  const code = await registry.executeWithTimeout('it', {}, '', 50).catch((error) => error.code);
  const { killed } = await stuck;
  // The other lane is in an endless call when the host ends.
  registry.executeWithTimeout('it', {}, '', Infinity).catch(() => undefined);
  while (stats().running < 1) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  console.log(JSON.stringify({ code, killed, uncaught, pids }));
  process.kill(process.pid, 'SIGKILL');
`;

needs('Linux and root', process.platform === 'linux' && process.getuid?.() === 0)(
  'a host that has become another user ends its processes all the same',
  async (t) => {
    const cacheDir = await scratch(t);
    await chmod(cacheDir, 0o755);
    const args = ['--input-type=module', '-e', unprivileged, fixture('endless'), cacheDir];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 }).catch(
      (error: { stdout: string }) => error,
    );
    const { pids, ...said } = JSON.parse(stdout) as { pids: number[] };
    t.deepEqual(said, { code: 'ERR_HANDLER_TIMEOUT', killed: true, uncaught: [] } as object);
    await untilDead(pids);
    t.deepEqual(await Promise.all(pids.map(isAlive)), [false, false]);
  },
);
