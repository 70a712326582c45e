/** Lanes that are started ahead for the next version: what they save, and that nothing of them stays. */

import * as childProcess from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Worker } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { childProcesses } from '../bench/harness/process-state.js';
import { fixture } from '../fixtures/paths.js';
import type { HandlerRegistry, RegistryOptions } from '../src/index.js';
import { failure } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { activeStats, openRegistry } from './support/registry.js';

/** Threads that were started since and have not ended. Tests that look at them run one at a time. */
function watchThreads(t: ExecutionContext): { started: Worker[]; alive: Set<Worker> } {
  const started: Worker[] = [];
  const alive = new Set<Worker>();
  const onWorker = (thread: Worker) => {
    started.push(thread);
    alive.add(thread);
    thread.once('exit', () => alive.delete(thread));
  };
  process.on('worker', onWorker);
  t.teardown(() => process.off('worker', onWorker));
  return { started, alive };
}

const execFile = promisify(childProcess.execFile);

const aloneOnLinux = process.platform === 'linux' ? test.serial : test.serial.skip;

const open = (t: ExecutionContext, options: RegistryOptions = {}) =>
  openRegistry(t, { standby: true, threads: 2, ...options });

const waiting = (registry: HandlerRegistry, id = 'it') =>
  registry.stats().endpoints.find((endpoint) => endpoint.id === id)?.standbyLanes;

const filled = (registry: HandlerRegistry, lanes = 2) =>
  eventually(
    () => waiting(registry),
    (count) => count === lanes,
    'the next version has its lanes',
  );

const answer = async (registry: HandlerRegistry) =>
  (await registry.execute('it', {}, 'still here')).text();

test.serial('a swap starts no thread, and the next one finds some again', async (t) => {
  const { registry } = await open(t);
  const threads = watchThreads(t);
  await registry.loadFrom('it', fixture('echo'));
  t.is(threads.started.length, 2);
  t.is(waiting(registry), 0);

  for (const swaps of [1, 2]) {
    await filled(registry);
    const before = [...threads.started];
    t.is(before.length, 2 + 2 * swaps);
    const { drained } = await registry.swapGraceful('it', fixture('echo'));
    t.deepEqual(threads.started, before);
    t.is(waiting(registry), 0);
    t.is(await answer(registry), 'still here');
    t.is((await drained)?.library, 'unloaded');
    t.is(activeStats(registry, 'it').lanes.serving, 2);
  }
  await registry.close();
  t.is(threads.alive.size, 0);
});

test.serial('it is off unless asked for', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('it', fixture('echo'));
  t.is(waiting(registry), 0);
  await registry.swapGraceful('it', fixture('echo'), undefined, { standby: true });
  await filled(registry, 1);
  await registry.swapGraceful('it', fixture('echo'), undefined, { standby: false });
  t.is(waiting(registry), 0);
  t.is(await answer(registry), 'still here');
});

test.serial('a swap while the lanes are being started takes those that are there', async (t) => {
  const { registry } = await open(t);
  const threads = watchThreads(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry, 1);

  await registry.swapGraceful('it', fixture('echo'));

  // Two of the first version, the one that waited, and one more.
  t.is(threads.started.length, 4);
  t.is(await answer(registry), 'still here');
  await filled(registry);
});

test.serial('unload and close end what waits', async (t) => {
  const { registry } = await open(t);
  const threads = watchThreads(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  await registry.unload('it');
  t.is(threads.alive.size, 0);

  await registry.loadFrom('it', fixture('echo'));
  await filled(registry, 1);
  await registry.close();
  t.is(threads.alive.size, 0);
});

test.serial('a version with other options than the last gets threads of its own', async (t) => {
  const { registry } = await open(t);
  const threads = watchThreads(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  const [, , ...unfit] = threads.started;

  await registry.swapGraceful('it', fixture('echo'), undefined, { env: { TZ: 'UTC' } });

  t.is(threads.started.length, 6);
  await eventually(
    () => unfit.filter((thread) => threads.alive.has(thread)).length,
    (left) => left === 0,
    'what does not fit has ended',
  );
  t.is(await answer(registry), 'still here');
  // From now on it is made with the new options, and a limit that lanes are told with their library does not matter.
  await filled(registry);
  const before = threads.started.length;
  await registry.swapGraceful('it', fixture('echo'), undefined, { maxPayloadBytes: 4096 });
  t.is(threads.started.length, before);
  await t.throwsAsync(registry.execute('it', {}, new Uint8Array(4097)), {
    code: 'ERR_HANDLER_PAYLOAD_TOO_LARGE',
  });
});

test.serial(
  'a library that pre-flight refuses does not use it up, one that lanes refuse does',
  async (t) => {
    const { registry } = await open(t);
    const threads = watchThreads(t);
    await registry.loadFrom('it', fixture('echo'));
    await filled(registry);

    const refused = await failure(registry.swapGraceful('it', fixture('failing_init')));
    t.is(refused['code'], 'ERR_HANDLER_INIT_FAILED');
    t.is(waiting(registry), 2);
    const { length } = threads.started;
    const inLanes = await failure(
      registry.swapGraceful('it', fixture('failing_init'), undefined, { preflight: false }),
    );
    t.is(inLanes['code'], 'ERR_HANDLER_INIT_FAILED');
    t.is(threads.started.length, length);
    t.is(await answer(registry), 'still here');

    await filled(registry);
    t.is(threads.alive.size, 4);
  },
);

test.serial('a thread that dies while it waits costs nothing but a warning', async (t) => {
  const { registry } = await open(t);
  const threads = watchThreads(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  const warned = once(process, 'warning');

  await threads.started[2]?.terminate();

  t.regex(String(await warned), /not everything is ready for the next version \(worker exited/);
  t.is(waiting(registry), 1);
  await registry.swapGraceful('it', fixture('echo'));
  t.is(threads.started.length, 5);
  t.is(await answer(registry), 'still here');
  t.is(activeStats(registry, 'it').lanes.serving, 2);
});

aloneOnLinux(
  'the process that tries the library is started ahead, and ended if unused',
  async (t) => {
    const { registry } = await open(t);
    await registry.loadFrom('it', fixture('echo'));
    await filled(registry);
    const first = childProcesses();
    t.is(first.length, 1);

    await registry.swapGraceful('it', fixture('echo'));

    t.truthy(registry.get('it')?.preflight);
    await filled(registry);
    const second = childProcesses();
    t.is(second.length, 1);
    t.notDeepEqual(second, first);
    // Not needed, so it goes.
    await registry.swapGraceful('it', fixture('echo'), undefined, { preflight: false });
    await eventually(
      () => childProcesses().length,
      (count) => count === 0,
    );
    await filled(registry);
    t.deepEqual(childProcesses(), []);
    await registry.swapGraceful('it', fixture('echo'), undefined, { preflight: true });
    await filled(registry);
    t.is(childProcesses().length, 1);
    await registry.unload('it');
    t.deepEqual(childProcesses(), []);
  },
);

aloneOnLinux('a self-test that cannot be sent leaves the process for the next swap', async (t) => {
  const { registry } = await open(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  const before = childProcesses();
  const selfTest = { request: new Uint8Array(17) };

  await t.throwsAsync(
    registry.swapGraceful('it', fixture('echo'), undefined, {
      preflight: { selfTest },
      maxPayloadBytes: 16,
    }),
    { code: 'ERR_HANDLER_PAYLOAD_TOO_LARGE' },
  );

  t.deepEqual(childProcesses(), before);
  await registry.swapGraceful('it', fixture('echo'));
  t.is(await answer(registry), 'still here');
});

aloneOnLinux('a process that dies while it waits costs nothing but a warning', async (t) => {
  const { registry } = await open(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  const warned = once(process, 'warning');
  const [pid] = childProcesses();

  process.kill(pid ?? 0, 'SIGKILL');

  t.regex(String(await warned), /not everything is ready .*SIGKILL/);
  await registry.swapGraceful('it', fixture('echo'));
  t.truthy(registry.get('it')?.preflight);
  t.is(await answer(registry), 'still here');
});

aloneOnLinux('one that has died without notice does not refuse a library', async (t) => {
  const { registry } = await open(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  const [pid = 0] = childProcesses();

  // The library is copied before the process is needed, and this thread hears of its death when it has nothing else to do.
  registry.on('loading', () => {
    process.kill(pid, 'SIGKILL');
  });
  await registry.swapGraceful('it', fixture('echo'));

  t.truthy(registry.get('it')?.preflight);
  t.is(await answer(registry), 'still here');
});

aloneOnLinux('a process that was started elsewhere is not used', async (t) => {
  // Threads cannot change the working directory, and tests may run in one.
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(new URL('../src/index.js', import.meta.url).href)};
    import { childProcesses } from ${JSON.stringify(new URL('../bench/harness/process-state.js', import.meta.url).href)};
    const registry = new HandlerRegistry({ threads: 1, standby: true });
    const ready = async () => {
      while (registry.stats().endpoints[0].standbyLanes < 1) await new Promise((resolve) => setTimeout(resolve, 10));
      return childProcesses();
    };
    await registry.loadFrom('it', ${JSON.stringify(fixture('echo'))});
    const seen = new Set(await ready());
    process.chdir('/');
    setInterval(() => childProcesses().forEach((pid) => seen.add(pid)), 2).unref();
    await registry.swapGraceful('it', ${JSON.stringify(fixture('echo'))});
    console.log(seen.size);
    await registry.close();
  `;
  const { stdout } = await execFile(process.execPath, ['--input-type=module', '-e', source]);
  t.is(stdout, '2\n');
});

aloneOnLinux('closing while a standby is made leaves nothing', async (t) => {
  for (const isolation of ['thread', 'process'] as const) {
    const { registry } = await open(t, { isolation });
    const threads = watchThreads(t);
    await registry.loadFrom('it', fixture('echo'));
    await registry.close();
    // One that was made all the same would start its process a second later.
    const { length } = threads.started;
    await pause(1500);
    t.is(threads.started.length, length);
    t.is(threads.alive.size, 0);
    t.deepEqual(childProcesses(), []);
  }
});

aloneOnLinux('a process that waits ends with its host, however that ends', async (t) => {
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(new URL('../src/index.js', import.meta.url).href)};
    const registry = new HandlerRegistry({ threads: 1 });
    await registry.loadFrom('it', ${JSON.stringify(fixture('echo'))}, { standby: true });
    setInterval(() => {
      if (registry.stats().endpoints[0].standbyLanes === 1) console.log('ready');
    }, 10);
  `;
  const host = childProcess.spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(host, 'exit');
  await once(host.stdout, 'data');
  const [pid] = childProcesses(host.pid);
  t.truthy(pid);

  host.kill('SIGKILL');

  await exited;
  await eventually(
    () => readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => ''),
    (command) => !command.includes('preflight.js'),
    'it has ended too',
  );
});

test.serial(
  'lanes that are processes are started ahead too, but for their processes',
  async (t) => {
    const { registry } = await open(t, { isolation: 'process' });
    const threads = watchThreads(t);
    await registry.loadFrom('it', fixture('echo'));
    await filled(registry);
    const { length } = threads.started;

    const { drained } = await registry.swapGraceful('it', fixture('echo'));

    t.is(threads.started.length, length);
    t.is(await answer(registry), 'still here');
    t.is((await drained)?.library, 'unloaded');
    t.is(activeStats(registry, 'it').processIds.length, 2);
  },
);
