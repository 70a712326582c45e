/** Lane processes never outlive their host, however that ends; and `close` leaves nothing of them. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Worker } from 'node:worker_threads';
import type { ExecutionContext } from 'ava';
import { fixture } from '../../fixtures/paths.js';
import { HandlerRegistry } from '../../src/index.js';
import { isPrepareThread } from '../../src/library/prepare/prepare-thread.js';
import { scratch } from '../support/files.js';
import { outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { descriptorCount, onLinux, onLinuxAlone, threadCount } from '../support/process.js';
import { isAlive, openIsolated, pidOf, untilDead } from './helpers.js';

/** More than a busy machine needs. */
const PATIENCE_MS = 60_000;

const index = new URL('../../src/index.js', import.meta.url).href;

/** A host in a process of its own with two lanes: says their process ids, then does what `body` says. */
async function startHost(
  t: ExecutionContext,
  id: string,
  body: string,
): Promise<{ host: ChildProcess; pids: number[] }> {
  const cacheDir = await scratch(t);
  const source = `
    import { HandlerRegistry, exitProcess } from ${JSON.stringify(index)};
    const registry = new HandlerRegistry({
      cacheDir: ${JSON.stringify(cacheDir)}, isolation: 'process', threads: 2, cancelGraceMs: 60_000, preflight: false, loadTimeoutMs: 60_000,
    });
    await registry.loadFrom('x', ${JSON.stringify(fixture(id))});
    const version = () => registry.stats().endpoints[0].versions[0];
    const untilRunning = async (count) => {
      while (version().running < count) await new Promise((resolve) => setTimeout(resolve, 2));
    };
    const say = () => console.log(JSON.stringify(version().processIds));
    ${body}
  `;
  const host = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => void host.kill('SIGKILL'));
  const lines = createInterface({ input: host.stdout });
  const [line] = (await once(lines, 'line')) as [string];
  return { host, pids: JSON.parse(line) as number[] };
}

const ONE_ENDLESS = `
  registry.execute('x', {}, '').catch(() => undefined);
  await untilRunning(1);
  say();
`;

onLinux('the host is killed: idle processes and one in an endless call end', async (t) => {
  const { host, pids } = await startHost(t, 'endless', ONE_ENDLESS);
  t.deepEqual(await Promise.all(pids.map(isAlive)), [true, true]);
  host.kill('SIGKILL');
  await untilDead(pids);
});

onLinux('the host is killed while its processes start', async (t) => {
  const { host, pids } = await startHost(
    t,
    'own_process',
    `
      const options = { preflight: false, env: { CHANGEOVER_TEST_FAULT: 'hang@constructor' } };
      registry.loadFrom('y', ${JSON.stringify(fixture('fault'))}, options).catch(() => undefined);
      say();
    `,
  );
  const below = await eventually(
    () => processesBelow(host.pid ?? 0),
    (found) => found.length > pids.length,
    'a process is being started',
  );
  host.kill('SIGKILL');
  await untilDead([...below, ...pids]);
  t.true(below.length > pids.length);
});

const ENDS: Record<string, { body: string; exitCode: number | null; signal: string | null }> = {
  'process.exit() during an endless call': {
    body: `${ONE_ENDLESS} process.exit(5);`,
    exitCode: 5,
    signal: null,
  },
  'exitProcess() during an endless call': {
    body: `${ONE_ENDLESS} await exitProcess(6);`,
    exitCode: 6,
    signal: null,
  },
  'an error that nobody catches, during an endless call': {
    body: `${ONE_ENDLESS} setTimeout(() => { process.on('uncaughtException', () => process.exit(7)); throw new Error('uncaught'); });`,
    exitCode: 7,
    signal: null,
  },
  'SIGTERM, which nobody listens for': {
    body: `${ONE_ENDLESS} process.kill(process.pid, 'SIGTERM');`,
    exitCode: null,
    signal: 'SIGTERM',
  },
  'nothing more to do': { body: 'say();', exitCode: 0, signal: null },
};

for (const [how, { body, exitCode, signal }] of Object.entries(ENDS)) {
  onLinux(`the host ends by ${how}`, async (t) => {
    const { host, pids } = await startHost(t, 'endless', body);
    if (host.exitCode === null && host.signalCode === null) await once(host, 'exit');
    t.deepEqual([host.exitCode, host.signalCode], [exitCode, signal]);
    await untilDead(pids);
  });
}

onLinuxAlone('the process of a lane whose thread has ended is waited for', async (t) => {
  const threads: Worker[] = [];
  const remember = (worker: Worker) => {
    if (!isPrepareThread(worker)) threads.push(worker);
  };
  process.on('worker', remember);
  const registry = await openIsolated(t, { threads: 1 });
  await registry.load('own_process');
  process.off('worker', remember);
  const pid = await pidOf(registry, 'own_process');

  await threads.at(-1)?.terminate();

  const next = Number(await outcome(registry.execute('own_process', {}, 'pid')));
  t.not(next, pid);
  const below = await eventually(
    () => processesBelow(process.pid),
    (pids) => !pids.includes(pid),
    'it is no zombie',
  );
  t.true(below.includes(next));
});

onLinux('signals that go to the whole group end no request', async (t) => {
  const registry = new HandlerRegistry({
    cacheDir: await scratch(t),
    isolation: 'process',
    threads: 1,
    preflight: false,
    loadTimeoutMs: PATIENCE_MS,
  });
  t.teardown(() => registry.close());
  await registry.loadFrom('x', fixture('own_process'));
  const [pid = 0] = registry.stats().endpoints[0]?.versions[0]?.processIds ?? [];
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.kill(pid, signal);
  t.is(Number(await outcome(registry.execute('x', {}, 'pid'))), pid);
});

/** Process ids of a process's children. */
async function processesBelow(pid: number): Promise<number[]> {
  const threads = await readdir(`/proc/${pid}/task`);
  const lists = await Promise.all(
    threads.map((thread) =>
      readFile(`/proc/${pid}/task/${thread}/children`, 'utf8').catch((error) => {
        // A thread may have ended since the others were listed: ESRCH if that was while it was read.
        if (['ENOENT', 'ESRCH'].includes(error.code)) return '';
        throw error;
      }),
    ),
  );
  return lists.flatMap((list) => list.split(' ').filter(Boolean).map(Number));
}

onLinuxAlone(
  'after close there are as many descriptors, threads and children as before',
  async (t) => {
    const cacheDir = await scratch(t);
    const cycle = async () => {
      const registry = new HandlerRegistry({
        cacheDir,
        isolation: 'process',
        threads: 2,
        recycleAfterRequests: 20,
        crashLoopAfter: 100,
        preflight: false,
        loadTimeoutMs: PATIENCE_MS,
        closeTimeoutMs: PATIENCE_MS,
      });
      await registry.loadFrom('x', fixture('dies'));
      const requests = Array.from({ length: 60 }, (_, count) =>
        outcome(registry.execute('x', {}, count % 20 === 19 ? 'abort' : `${count}`)),
      );
      const outcomes = await Promise.all(requests);
      await registry.swapGraceful('x', fixture('version_b'));
      const { leftBehind } = await registry.close();
      return { crashed: outcomes.filter((one) => one.startsWith('ERR')).length, leftBehind };
    };
    t.deepEqual(await cycle(), { crashed: 3, leftBehind: [] });
    const before = [await descriptorCount(), await threadCount()];
    for (let round = 0; round < 5; round++) {
      t.deepEqual(await cycle(), { crashed: 3, leftBehind: [] });
    }
    await eventually(
      async () => [await descriptorCount(), await threadCount()],
      (now) => now.every((count, at) => count <= (before[at] ?? 0)),
    );
    t.deepEqual(await processesBelow(process.pid), []);
  },
);
