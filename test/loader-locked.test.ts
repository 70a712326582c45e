/**
 * A handler whose constructor hangs in a lane's thread holds the dynamic loader's lock. Whatever has
 * to load something waits for it, and times out; the main thread never does.
 */

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fixturesDir } from '../fixtures/paths.js';
import { scratch } from './support/files.js';
import { onLinux } from './support/process.js';

const index = new URL('../src/index.js', import.meta.url).href;
/** A host that hangs is killed after this, and is none that any test expects. */
const PATIENCE_MS = 100_000;

const execute = promisify(execFile);

/** What a host has seen while a constructor hung in one of its threads. */
async function whileLocked(directory: string, body: string): Promise<unknown> {
  const source = `
    import { existsSync } from 'node:fs';
    import { setTimeout as delay } from 'node:timers/promises';
    import { HandlerRegistry, exitProcess } from ${JSON.stringify(index)};
    const registry = new HandlerRegistry(${JSON.stringify({ handlersDir: fixturesDir, cacheDir: join(directory, 'cache'), threads: 1, loadTimeoutMs: 60_000 })});
    const seen = {};
    const outcome = (promise) => promise.then((said) => said.text?.() ?? 'loaded', ({ code }) => code);
    const locked = async () => {
      const held = ${JSON.stringify(join(directory, 'held'))};
      process.env.CHANGEOVER_TEST_HELD = held;
      registry.load('held_constructor', { preflight: false }).catch(() => undefined);
      while (!existsSync(held)) await delay(2);
    };
    const finish = () => {
      process.stdout.write(JSON.stringify(seen), () => exitProcess(0));
    };
    ${body}
  `;
  const args = ['--input-type=module', '-e', source];
  const limits = { timeout: PATIENCE_MS, killSignal: 'SIGKILL' } as const;
  const { stdout } = await execute(process.execPath, args, limits);
  return JSON.parse(stdout);
}

onLinux('nothing that the main thread does waits for the loader', async (t) => {
  const seen = await whileLocked(
    await scratch(t),
    `
    await registry.load('echo', { preflight: false });
    await registry.loadFrom('apart', registry.get('echo').path, { preflight: false, isolation: 'process' });
    await locked();
    const shortly = { loadTimeoutMs: 1500 };
    // Its trial comes to its end in a child process, and says so.
    seen.refused = await outcome(registry.load('failing_init'));
    seen.thread = await outcome(registry.loadFrom('second', registry.get('echo').path, shortly));
    const apart = { ...shortly, isolation: 'process', preflight: false };
    seen.process = await outcome(registry.loadFrom('third', registry.get('echo').path, apart));
    seen.timer = await new Promise((resolve) => setTimeout(resolve, 1, 'fired'));
    seen.loadedCount = registry.stats().loadedCount;
    seen.lane = await outcome(registry.execute('echo', {}, 'hello'));
    seen.laneProcess = await outcome(registry.execute('apart', {}, 'hello'));
    seen.large = (await registry.execute('echo', {}, new Uint8Array(1 << 20))).bytes.length;
    finish();
    `,
  );
  t.deepEqual(seen, {
    refused: 'ERR_HANDLER_INIT_FAILED',
    thread: 'ERR_HANDLER_LOAD_TIMEOUT',
    process: 'ERR_HANDLER_LOAD_TIMEOUT',
    timer: 'fired',
    loadedCount: 2,
    lane: 'hello',
    laneProcess: 'hello',
    large: 1 << 20,
  });
});

for (const [what, options] of [
  ['a pre-flight', {}],
  ['a process', { isolation: 'process', preflight: false }],
] as const) {
  onLinux(`${what} may come for the first time after a constructor has hung`, async (t) => {
    const loading = JSON.stringify({ ...options, loadTimeoutMs: 1500 });
    const seen = await whileLocked(
      await scratch(t),
      `
      await locked();
      seen.later = await outcome(registry.load('echo', ${loading}));
      finish();
      `,
    );
    // Its lane has to load koffi, and cannot.
    t.deepEqual(seen, { later: 'ERR_HANDLER_LOAD_TIMEOUT' });
  });
}
