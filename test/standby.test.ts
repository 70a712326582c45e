/** Lanes that are started ahead for the next version: what they save, and that nothing of them stays. */

import * as childProcess from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Worker } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { childProcesses } from '../bench/harness/process-state.js';
import { fixture } from '../fixtures/paths.js';
import type { HandlerRegistry, RegistryOptions } from '../src/index.js';
import { isPrepareThread } from '../src/library/prepare/prepare-thread.js';
import { LANE, laneAt, WAIT } from '../src/ring/layout.js';
import { RingProducer } from '../src/ring/producer.js';
import { Standby } from '../src/standby.js';
import { scratch } from './support/files.js';
import { needs } from './support/needs.js';
import { failure } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { UNLOADED } from './support/process.js';
import { activeStats, openRegistry } from './support/registry.js';
import { captureWarnings } from './support/warnings.js';

const { paceMs } = Standby;

// Waiting for it would be most of what these tests do.
test.beforeEach(() => {
  Standby.paceMs = 20;
});

/** Threads of lanes that were started since and have not ended. Tests that look at them run one at a time. */
function watchThreads(t: ExecutionContext): { started: Worker[]; alive: Set<Worker> } {
  const started: Worker[] = [];
  const alive = new Set<Worker>();
  const onWorker = (thread: Worker) => {
    // One for all, which comes and goes as it is needed.
    if (isPrepareThread(thread)) return;
    started.push(thread);
    alive.add(thread);
    thread.once('exit', () => alive.delete(thread));
  };
  process.on('worker', onWorker);
  t.teardown(() => process.off('worker', onWorker));
  return { started, alive };
}

/** The lanes that have been started since, by the ring and the index of each, oldest first. */
function watchLanes(t: ExecutionContext): { ring: RingProducer; index: number }[] {
  const lanes: { ring: RingProducer; index: number }[] = [];
  const { prepareLane } = RingProducer.prototype;
  RingProducer.prototype.prepareLane = function (index) {
    lanes.push({ ring: this, index });
    prepareLane.call(this, index);
  };
  t.teardown(() => {
    RingProducer.prototype.prepareLane = prepareLane;
  });
  return lanes;
}

/** What has been made for versions since, be it taken or not, and not destroyed. */
function watchStandbys(t: ExecutionContext): Set<Standby> {
  const left = new Set<Standby>();
  const { create } = Standby;
  const { destroy } = Standby.prototype;
  Standby.create = async (options) => {
    const standby = await create(options);
    left.add(standby);
    return standby;
  };
  Standby.prototype.destroy = async function () {
    await destroy.call(this);
    left.delete(this);
  };
  t.teardown(() => {
    Standby.create = create;
    Standby.prototype.destroy = destroy;
  });
  return left;
}

/** Resolves in the tick in which the next thread is started. */
async function nextThread(): Promise<void> {
  // What is made ahead does not keep a process alive.
  const alive = setInterval(() => undefined, 1000);
  try {
    const signal = AbortSignal.timeout(60_000);
    for (;;) {
      const [thread] = (await once(process, 'worker', { signal })) as [Worker];
      if (!isPrepareThread(thread)) return;
    }
  } finally {
    clearInterval(alive);
  }
}

const notReadyWarnings = (t: ExecutionContext) =>
  captureWarnings(t, ({ message }) => message.startsWith('not everything is ready'));

const execFile = promisify(childProcess.execFile);

const aloneOnLinux = needs('Linux', process.platform === 'linux', test.serial);

const open = (t: ExecutionContext, options: RegistryOptions = {}) =>
  openRegistry(t, { standby: true, threads: 2, preflight: true, ...options });

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
    t.is((await drained)?.library, UNLOADED);
    t.is(activeStats(registry, 'it').lanes.serving, 2);
  }
  await registry.close();
  t.is(threads.alive.size, 0);
});

test.serial('it is off unless asked for', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  await registry.loadFrom('it', fixture('echo'));
  t.is(waiting(registry), 0);
  await registry.swapGraceful('it', fixture('echo'), undefined, { standby: true });
  await filled(registry, 1);
  await registry.swapGraceful('it', fixture('echo'), undefined, { standby: false });
  t.is(waiting(registry), 0);
  t.is(await answer(registry), 'still here');
});

test.serial('a swap while the lanes are being started takes those that are there', async (t) => {
  Standby.paceMs = paceMs;
  const { registry } = await open(t);
  const threads = watchThreads(t);
  await registry.loadFrom('it', fixture('echo'));
  await nextThread();
  t.is(waiting(registry), 1);

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
  await nextThread();
  t.is(waiting(registry), 1);
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
  const { first } = notReadyWarnings(t);
  const { registry } = await open(t);
  const threads = watchThreads(t);
  const lanes = watchLanes(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  // A thread that is terminated while it still loads koffi would take this process with it.
  const { ring, index } = lanes[2] as (typeof lanes)[number];
  await eventually(
    () => Atomics.load(ring.words, laneAt(ring.layout, index) + LANE.WAIT),
    (wait) => wait === WAIT.ASLEEP,
    'the lane waits for its order',
  );

  await threads.started[2]?.terminate();

  t.regex((await first()).message, /for the next version \(worker exited/);
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
  const { first } = notReadyWarnings(t);
  const { registry } = await open(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  const [pid] = childProcesses();
  t.truthy(pid);

  process.kill(pid as number, 'SIGKILL');

  t.regex((await first()).message, /SIGKILL/);
  await registry.swapGraceful('it', fixture('echo'));
  t.truthy(registry.get('it')?.preflight);
  t.is(await answer(registry), 'still here');
});

aloneOnLinux('one that has died without notice does not refuse a library', async (t) => {
  const { warnings } = notReadyWarnings(t);
  const { registry } = await open(t);
  await registry.loadFrom('it', fixture('echo'));
  await filled(registry);
  const [pid] = childProcesses();
  t.truthy(pid);

  // In the very tick in which the process is taken: this thread hears of its death only when it has nothing else to do.
  const request = {
    toJSON() {
      process.kill(pid as number, 'SIGKILL');
      return 'hello';
    },
  };
  await registry.swapGraceful('it', fixture('echo'), undefined, {
    preflight: { selfTest: { request } },
  });

  t.deepEqual(warnings, [], 'it was taken');
  t.truthy(registry.get('it')?.preflight);
  t.is(await answer(registry), 'still here');
});

aloneOnLinux('a process that was started elsewhere is not used', async (t) => {
  // Threads cannot change the working directory, and tests may run in one.
  const options = {
    threads: 1,
    standby: true,
    cacheDir: await scratch(t),
    loadTimeoutMs: 60_000,
  };
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(new URL('../src/index.js', import.meta.url).href)};
    import { childProcesses } from ${JSON.stringify(new URL('../bench/harness/process-state.js', import.meta.url).href)};
    const registry = new HandlerRegistry(${JSON.stringify(options)});
    await registry.loadFrom('it', ${JSON.stringify(fixture('echo'))});
    while (registry.stats().endpoints[0].standbyLanes < 1) await new Promise((resolve) => setTimeout(resolve, 10));
    const [pid, ...more] = childProcesses();
    // It could not try anything now.
    process.kill(pid, 'SIGSTOP');
    process.chdir('/');
    await registry.swapGraceful('it', ${JSON.stringify(fixture('echo'))});
    console.log(more.length, registry.get('it').preflight.unloads);
    await registry.close();
  `;
  const { stdout } = await execFile(process.execPath, ['--input-type=module', '-e', source]);
  t.is(stdout, '0 true\n');
});

aloneOnLinux('closing while a standby is made leaves nothing', async (t) => {
  for (const isolation of ['thread', 'process'] as const) {
    const { registry } = await open(t, { isolation });
    const threads = watchThreads(t);
    const standbys = watchStandbys(t);
    await registry.loadFrom('it', fixture('echo'));
    t.true(standbys.size > 0);
    await registry.close();
    // One that was made all the same would start its process later.
    t.is(standbys.size, 0);
    t.is(threads.alive.size, 0);
    t.deepEqual(childProcesses(), []);
  }
});

aloneOnLinux('a process that waits ends with its host, however that ends', async (t) => {
  const options = { threads: 1, cacheDir: await scratch(t), loadTimeoutMs: 60_000 };
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(new URL('../src/index.js', import.meta.url).href)};
    const registry = new HandlerRegistry(${JSON.stringify(options)});
    await registry.loadFrom('it', ${JSON.stringify(fixture('echo'))}, { standby: true });
    setInterval(() => {
      if (registry.stats().endpoints[0].standbyLanes === 1) console.log('ready');
    }, 10);
  `;
  const host = childProcess.spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => host.kill('SIGKILL'));
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
    t.is((await drained)?.library, UNLOADED);
    t.is(activeStats(registry, 'it').processIds.length, 2);
  },
);
