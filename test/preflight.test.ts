/** Pre-flight: what a library does in the child process, what the caller is told, and that this process does not notice. */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { fixture } from '../fixtures/paths.js';
import {
  type HandlerRegistry,
  LoadError,
  LoadTimeoutError,
  PreflightError,
  type PreflightOptions,
  type RegistryOptions,
} from '../src/index.js';
import { copiesIn, scratch } from './support/files.js';
import { outcome, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { onLinux } from './support/process.js';
import { type OwnRegistry, openRegistry } from './support/registry.js';

const isLinux = process.platform === 'linux';
const index = new URL('../src/index.js', import.meta.url).href;

const openTrying = (t: ExecutionContext, options: RegistryOptions = {}): Promise<OwnRegistry> =>
  openRegistry(t, { preflight: true, ...options });

const selfTest: PreflightOptions = { selfTest: { request: 'hello' } };

/** Loads the fixture that does `fault` (such as "segv@init") in the child process; here it sees no such order. */
const loadFault = (registry: HandlerRegistry, fault: string, options = {}) =>
  registry.loadFrom('x', fixture('fault'), {
    env: { CHANGEOVER_TEST_FAULT: fault },
    preflight: selfTest,
    ...options,
  });

/** Where the fixture can fail, and the step that is to blame. */
const STEPS = {
  constructor: 'open',
  abi: 'abi',
  info: 'info',
  init: 'init',
  entry: 'self-test',
  shutdown: 'shutdown',
  destructor: 'unload',
} as const;

const ENDS: Record<string, Record<string, unknown>> = {
  segv: { reason: 'crashed', signal: 'SIGSEGV', exitCode: undefined },
  abort: { reason: 'crashed', signal: 'SIGABRT', exitCode: undefined },
  overflow: { reason: 'crashed', signal: 'SIGSEGV', exitCode: undefined },
  exit: { reason: 'exited', signal: undefined, exitCode: 3 },
  exit0: { reason: 'exited', signal: undefined, exitCode: 0 },
  ...(isLinux
    ? { pthread_exit: { reason: 'thread-ended', signal: undefined, exitCode: undefined } }
    : {}),
};

for (const [place, step] of Object.entries(STEPS)) {
  test(`a library that takes its process down in its ${place}: refused, and nothing else notices`, async (t) => {
    const { registry, cacheDir } = await openTrying(t);
    const active = await registry.loadFrom('x', fixture('version_a'));
    for (const [fault, end] of Object.entries(ENDS)) {
      const refused = rejection(loadFault(registry, `${fault}@${place}`));
      t.is(await outcome(registry.execute('x', {}, 'meanwhile')), 'A:meanwhile');
      const error = await refused;
      t.true(error instanceof PreflightError && error instanceof LoadError, `${error}`);
      const code = 'ERR_HANDLER_PREFLIGHT';
      t.like(error, { code, step, path: fixture('fault'), endpoint: 'x', ...end });
      t.is(registry.get('x'), active);
    }
    t.is((await copiesIn(cacheDir)).length, 1, 'only the active version is left');
  });
}

test.serial('a library that hangs, wherever: the load times out and says where', async (t) => {
  const { registry } = await openTrying(t, { loadTimeoutMs: 4000 });
  const directory = await scratch(t);
  const order = ['start', ...Object.values(STEPS)];
  await Promise.all(
    Object.entries(STEPS).map(async ([place, step]) => {
      // A loop and a sleep: neither has a way out.
      const fault = place === 'init' ? 'hang@init' : `sleep@${place}`;
      const reached = join(directory, place);
      const env = { CHANGEOVER_TEST_FAULT: fault, CHANGEOVER_TEST_LOG: reached };
      const options = { env, preflight: selfTest };
      const error = await rejection(registry.loadFrom(place, fixture('fault'), options));
      t.true(error instanceof LoadTimeoutError);
      t.like(error, { code: 'ERR_HANDLER_LOAD_TIMEOUT', timeoutMs: 4000 });
      // On a busy machine the time may be up before the library gets there. Then an earlier step is the truth.
      const said = (error as LoadTimeoutError).step as string;
      if (existsSync(reached)) t.is(said, step);
      else t.true(order.indexOf(said) <= order.indexOf(step), `${said} before ${step}`);
    }),
  );
  t.deepEqual(await childrenOf(process.pid), []);
  t.is((await registry.load('echo')).state, 'active', 'the loader of this process is free');
});

onLinux('a thread that shutdown leaves behind', async (t) => {
  const { registry } = await openTrying(t);
  for (const place of ['constructor', 'init', 'entry', 'shutdown']) {
    const error = await rejection(loadFault(registry, `thread@${place}`));
    t.like(error, { code: 'ERR_HANDLER_PREFLIGHT', reason: 'threads-left', step: 'shutdown' });
  }
  const joined = await registry.load('own_thread');
  t.like(joined.preflight, { threadsLeft: 0, unloads: true });
});

test('what is printed comes with the error, and messages are not mistaken', async (t) => {
  const { registry } = await openTrying(t);
  const error = await rejection(loadFault(registry, 'print@init'));
  t.like(error, { code: 'ERR_HANDLER_PREFLIGHT', reason: 'child-failed' });
  t.is((error as PreflightError).stderr, 'something is odd');
  t.regex((error as PreflightError).message, /something is odd/);
});

for (const fault of ['flood', 'flood_lines']) {
  test(`a library that writes to the messages without end is refused (${fault})`, async (t) => {
    const { registry } = await openTrying(t);
    const error = await rejection(loadFault(registry, `${fault}@init`));
    // At once: one that went on until the timeout would be a LoadTimeoutError.
    t.like(error, { code: 'ERR_HANDLER_PREFLIGHT', reason: 'child-failed', step: 'init' });
  });
}

test('what was learned is there to read', async (t) => {
  const { registry } = await openTrying(t);
  const plain = await registry.load('fault');
  t.like(plain.preflight, {
    info: { name: 'fault', version: '1.2.3', description: null },
    unloads: isLinux ? true : null,
    threadsLeft: isLinux ? 0 : null,
    descriptorsLeft: isLinux ? 0 : null,
    selfTestMs: null,
  });
  t.true((plain.preflight?.tookMs ?? 0) > 0);
  const leaky = await loadFault(registry, 'file@init');
  t.is(leaky.preflight?.descriptorsLeft, isLinux ? 1 : null);
  const pinned = await registry.load('pinned');
  t.is(pinned.preflight?.unloads, isLinux ? false : null);
});

test('false skips it, and is inherited until it is given again', async (t) => {
  const { registry } = await openTrying(t);
  const skipped = await loadFault(registry, 'segv@init', { preflight: false });
  t.is(skipped.preflight, null);
  t.is((await registry.loadFrom('x', fixture('fault'))).preflight, null);
  const error = await rejection(registry.loadFrom('x', fixture('fault'), { preflight: true }));
  t.like(error, { reason: 'crashed', step: 'init' });
});

// ---- The self-test ---------------------------------------------------------------------------------

test('a self-test is answered as a request is, and its check decides', async (t) => {
  const { registry } = await openTrying(t);
  const seen: string[] = [];
  const loadWith = (check: (text: string) => unknown) =>
    registry.loadFrom('x', fixture('context'), {
      preflight: {
        selfTest: {
          context: { requestId: 'r-1', metadata: { deep: ['ü'] } },
          request: 'payload',
          check: (response) => check(response.text()),
        },
      },
    });
  const passed = await loadWith((text) => void seen.push(text));
  t.true((passed.preflight?.selfTestMs ?? -1) >= 0);
  const context = { requestId: 'r-1', metadata: { deep: ['ü'] } };
  const endless = Number.POSITIVE_INFINITY;
  const answer = registry.executeWithTimeout('x', context, 'payload', endless);
  t.deepEqual(seen, [await outcome(answer)]);

  const reason = new Error('not what I want');
  for (const check of [
    () => {
      throw reason;
    },
    () => Promise.reject(reason),
  ]) {
    const error = await rejection(loadWith(check));
    t.like(error, { code: 'ERR_HANDLER_PREFLIGHT', reason: 'self-test-failed', cause: reason });
  }
  t.like(await rejection(loadWith(() => false)), { reason: 'self-test-failed' });
  t.is(registry.get('x'), passed);
});

test('a self-test with bytes, and with a large response in memory of its own', async (t) => {
  const { registry } = await openTrying(t);
  const same = (one: Uint8Array, other: Uint8Array) => Buffer.compare(one, other) === 0;
  const bytes = new Uint8Array(1_000_000).map((_, position) => position * 7);
  await registry.load('echo', {
    preflight: {
      selfTest: { request: bytes, check: (response) => t.true(same(response.bytes, bytes)) },
    },
  });
  await registry.load('large_response', {
    preflight: {
      selfTest: {
        request: '5000000',
        check: (response) => t.is(response.bytes.length, 5_000_000),
      },
    },
  });
});

test('a self-test that is not answered with success', async (t) => {
  const { registry } = await openTrying(t, { preflight: selfTest, maxPayloadBytes: 100_000 });
  const failed = { reason: 'self-test-failed', step: 'self-test' };
  const error = await rejection(loadFault(registry, 'fail@entry'));
  t.like(error, failed);
  t.regex((error as Error).message, /returned 22: told to fail/);
  for (const id of ['null_response', 'lying_length', 'fails']) {
    t.like(await rejection(registry.load(id)), failed, id);
  }
  const large = { preflight: { selfTest: { request: '100001' } } };
  t.like(await rejection(registry.load('large_response', large)), failed);
});

test('a self-test that cannot be sent', async (t) => {
  const { registry } = await openTrying(t, { maxPayloadBytes: 4 });
  t.like(await rejection(registry.load('echo', { preflight: selfTest })), {
    code: 'ERR_HANDLER_PAYLOAD_TOO_LARGE',
  });
  const request = Promise.resolve('hello');
  t.like(await rejection(registry.load('echo', { preflight: { selfTest: { request } } })), {
    code: 'ERR_HANDLER_INVALID_REQUEST',
  });
});

// ---- The child's life --------------------------------------------------------------------------------

/** The process ids of a process's children. */
async function childrenOf(pid: number): Promise<number[]> {
  const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(
    all.map((name) => readFile(`/proc/${name}/stat`, 'latin1').catch(() => '')),
  );
  // State and parent come after the program's name; what has ended and is not yet reaped does not count.
  const children = stats.filter((text) => {
    const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return parent === String(pid) && state !== 'Z';
  });
  return children.map((text) => Number.parseInt(text, 10));
}

/** A process of its own that is busy with the pre-flight of a library that never comes back. */
async function hangingHost(t: ExecutionContext, fault: string) {
  const options = { cacheDir: await scratch(t), loadTimeoutMs: 100_000, threads: 1 };
  const load = { env: { CHANGEOVER_TEST_FAULT: fault } };
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(index)};
    const registry = new HandlerRegistry(${JSON.stringify(options)});
    registry.loadFrom('x', ${JSON.stringify(fixture('fault'))}, ${JSON.stringify(load)}).catch((error) => console.log(error.code));
    process.stdin.once('data', () => registry.close());
  `;
  const host = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => host.kill('SIGKILL'));
  const pid = host.pid as number;
  const [child] = await eventually(
    () => childrenOf(pid),
    (children) => children.length === 1,
  );
  // It has the library in its hands: the copy is mapped.
  await eventually(
    () => readFile(`/proc/${child}/maps`, 'utf8').catch(() => ''),
    (maps) => maps.includes(options.cacheDir),
  );
  return { host, child: child as number };
}

/** Whether a process has ended. One that its new parent has not reaped yet is a zombie. */
async function isGone(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  return text === '' || text.slice(text.lastIndexOf(')') + 2).startsWith('Z');
}

for (const fault of ['hang@constructor', 'sleep@init']) {
  onLinux(`the child ends when its parent is killed (${fault})`, async (t) => {
    const { host, child } = await hangingHost(t, fault);
    const exit = once(host, 'exit');
    host.kill('SIGKILL');
    await exit;
    t.true(await eventually(() => isGone(child), Boolean));
  });
}

onLinux('the child ends when the registry is closed, and the process can end', async (t) => {
  const { host, child } = await hangingHost(t, 'hang@destructor');
  let printed = '';
  host.stdout.on('data', (chunk) => {
    printed += chunk;
  });
  // Not 'exit', which may come before the last of the output has been read.
  const closed = once(host, 'close');
  host.stdin.end('close');
  t.deepEqual(await closed, [0, null]);
  t.is(printed, 'ERR_HANDLER_CLOSED\n');
  t.true(await isGone(child));
});

test('without a child process there is no verdict, and no load', async (t) => {
  // In a process of its own: what cannot be started is Node itself.
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(index)};
    process.execPath = '/nowhere/node';
    const registry = new HandlerRegistry({ cacheDir: ${JSON.stringify(await scratch(t))}, threads: 1 });
    const load = (options) => registry.loadFrom('x', ${JSON.stringify(fixture('echo'))}, options);
    await load().catch((error) => console.log(error.code, error.reason, error.step, error.cause.code));
    console.log((await load({ preflight: false })).state);
    await registry.close();
  `;
  const printed = await new Promise((resolve) => {
    execFile(process.execPath, ['--input-type=module', '-e', source], (_error, stdout, stderr) =>
      resolve(stdout + stderr),
    );
  });
  t.is(printed, 'ERR_HANDLER_PREFLIGHT not-started start ENOENT\nactive\n');
});

// ---- The environment -----------------------------------------------------------------------------------

test.serial('the child sees none of this environment, only what is given', async (t) => {
  const log = join(await scratch(t), 'log');
  process.env['CHANGEOVER_TEST_LOG'] = log;
  t.teardown(() => {
    delete process.env['CHANGEOVER_TEST_LOG'];
  });
  const { registry } = await openTrying(t);
  const path = fixture('init_shutdown');
  const lines = async () => (await readFile(log, 'utf8')).split('\n').slice(0, -1);
  await registry.loadFrom('x', path);
  t.deepEqual(await lines(), ['init'], 'that of this process');
  await registry.loadFrom('y', path, { env: { CHANGEOVER_TEST_LOG: log } });
  t.deepEqual(await lines(), ['init', 'init', 'shutdown', 'init']);
});

test.serial('neither does a lane', async (t) => {
  // Node looks at this variable for each worker and each process; an unknown flag in it is fatal.
  process.env['NODE_OPTIONS'] = '--no-such-flag';
  t.teardown(() => {
    delete process.env['NODE_OPTIONS'];
  });
  const { registry } = await openTrying(t);
  t.is((await registry.load('echo')).state, 'active');
  const env = { NODE_OPTIONS: '--no-such-flag' };
  t.like(await rejection(registry.load('echo', { env })), { step: 'start', exitCode: 9 });
  t.like(await rejection(registry.load('echo', { env, preflight: false })), {
    code: 'ERR_HANDLER_LOAD_FAILED',
  });
});

test('a private copy that somebody removes after pre-flight: the error says so', async (t) => {
  const { registry, cacheDir } = await openTrying(t);
  const removeCopies = async () => {
    const [store = ''] = await readdir(cacheDir);
    for (const name of await readdir(join(cacheDir, store)))
      await rm(join(cacheDir, store, name), { recursive: true });
  };
  const selfTest = { request: 'x', check: removeCopies };

  for (const isolation of process.platform === 'linux'
    ? (['thread', 'process'] as const)
    : (['thread'] as const)) {
    const error = await rejection(registry.load('echo', { isolation, preflight: { selfTest } }));
    t.like(error, { code: 'ERR_HANDLER_CACHE_DIR', path: fixture('echo') });
    t.regex(String(error), /vanished/);
  }
});
