/**
 * The process that a registry lives in: how its loader was set up, what Node permits it, and which
 * thread it is.
 */

import { execFile } from 'node:child_process';
import { chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { compileLibrary } from '../fixtures/compile.js';
import { fixture, fixtureSourcesDir, packageRoot } from '../fixtures/paths.js';
import { copyOf, scratch } from './support/files.js';
import { compileIn, HANDLER } from './support/libraries.js';
import { needs } from './support/needs.js';
import { onLinux } from './support/process.js';
import { atMost } from './support/turns.js';

const index = new URL('../src/index.js', import.meta.url).href;
const PATIENCE_MS = 60_000;
/** Processes at once. */
const inTurn = atMost(2);

interface Host {
  flags?: readonly string[];
  env?: Record<string, string>;
  /**
   * The code of a module, which has `HandlerRegistry`, `tell` and `library`, the path of the
   * library.
   */
  body: string;
  library: string;
  /** Runs it in a worker thread. */
  inWorker?: boolean;
}

/**
 * What a module tells, line by line, in a process of its own, and what it writes to standard error.
 */
async function told(
  t: ExecutionContext,
  { flags = [], env = {}, body, library, inWorker = false }: Host,
): Promise<{ lines: unknown[]; stderr: string }> {
  const cacheDir = await scratch(t);
  const module = `
    const { HandlerRegistry } = await import(${JSON.stringify(index)});
    const library = ${JSON.stringify(library)};
    const tell = (value) => console.log(JSON.stringify(value));
    const open = (options) =>
      new HandlerRegistry({ cacheDir: ${JSON.stringify(cacheDir)}, threads: 1, loadTimeoutMs: 60_000, ...options });
    ${body}
  `;
  const source = inWorker
    ? `import { Worker } from 'node:worker_threads';
       new Worker(new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(module)})));`
    : module;
  const args = [...flags, '--input-type=module', '-e', source];
  const limits = { timeout: PATIENCE_MS, killSignal: 'SIGKILL', env: { ...process.env, ...env } };
  const run = () =>
    new Promise<{ lines: unknown[]; stderr: string }>((resolve, reject) => {
      execFile(process.execPath, args, limits as object, (error, stdout, stderr) => {
        if (error !== null) reject(new Error(`${error.message}\n${stdout}${stderr}`));
        else
          resolve({
            lines: stdout
              .trimEnd()
              .split('\n')
              .map((line) => JSON.parse(line)),
            stderr,
          });
      });
    });
  return inTurn(run);
}

// ---- The dynamic loader ----------------------------------------------------------------------------------

/** Loads it in both modes, tried before, and executes one request in each. */
const BOTH_MODES = `
  for (const isolation of ['thread', 'process']) {
    const registry = open({ isolation });
    try {
      await registry.loadFrom('one', library);
      tell([isolation, (await registry.execute('one', {}, 'hello')).text()]);
    } catch (error) {
      tell([isolation, error.code, error.flag]);
    }
    await registry.close();
  }
`;

onLinux(
  'a library that LD_LIBRARY_PATH leads to is found in threads and in processes',
  async (t) => {
    const directory = await scratch(t);
    const output = join(directory, 'libabsent.so');
    await compileLibrary({ source: join(fixtureSourcesDir, 'absent.c'), output });
    const host = { body: BOTH_MODES, library: fixture('missing_dependency') };

    const { lines } = await told(t, { ...host, env: { LD_LIBRARY_PATH: directory } });

    t.deepEqual(lines, [
      ['thread', ''],
      ['process', ''],
    ]);
  },
);

onLinux(
  'what is set after the start has no effect on the loader, so processes do not get it',
  async (t) => {
    const body = `
    process.env.LD_LIBRARY_PATH = '/nowhere';
    process.env.LD_SDK_KEY = 'secret';
    const registry = open({ isolation: 'process', env: { LD_BIND_NOW: '' } });
    await registry.loadFrom('one', library);
    for (const name of ['LD_LIBRARY_PATH', 'GLIBC_TUNABLES', 'LD_SDK_KEY', 'LD_BIND_NOW']) {
      tell((await registry.execute('one', {}, 'env ' + name)).text());
    }
    await registry.close();
  `;
    const env = {
      GLIBC_TUNABLES: 'glibc.malloc.arena_max=4',
      LD_SDK_KEY: 'secret',
      LD_BIND_NOW: '1',
      LD_LIBRARY_PATH: '/somewhere',
    };

    const { lines } = await told(t, { body, env, library: fixture('own_process') });

    t.deepEqual(lines, ['/somewhere', 'glibc.malloc.arena_max=4', '(not set)', '']);
  },
);

// ---- Another user ----------------------------------------------------------------------------------------

/** Nobody's number, on most systems. */
const OTHER_USER = 65_534;

/** A directory that the other user may write to. */
async function otherUsers(t: ExecutionContext): Promise<string> {
  const directory = await scratch(t);
  await chown(directory, OTHER_USER, OTHER_USER);
  return directory;
}

/** What a server does once it has its ports; from then on, most of /proc/self is closed to it. */
const becomeOther = `
  process.setgid(${OTHER_USER});
  process.setuid(${OTHER_USER});
`;

const asRoot = needs('Linux and root', process.platform === 'linux' && process.getuid?.() === 0);

asRoot(
  'a host that has become another user loads, with a search path it may not read',
  async (t) => {
    const directory = await otherUsers(t);
    const closed = join(directory, 'closed');
    await mkdir(closed, { mode: 0o700 });
    const library = await compileIn(directory, {
      name: 'libhandler_built.so',
      code: `${HANDLER}
    int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
      (void)ctx; (void)req;
      return say(res, "build", 1);
    }`,
      flags: [`-Wl,-rpath,${closed}/lib`],
    });
    const body = `
    ${becomeOther}
    for (const isolation of ['thread', 'process']) {
      const registry = open({ isolation, cacheDir: ${JSON.stringify(directory)} });
      await registry.loadFrom('one', library);
      tell([isolation, (await registry.execute('one', {}, '')).text()]);
      tell((await registry.unload('one')).library);
      await registry.close();
    }
  `;
    const { lines } = await told(t, { body, library });
    t.deepEqual(lines, [['thread', 'build 1'], 'unloaded', ['process', 'build 1'], 'unloaded']);
  },
);

asRoot('a host that has become another user keeps a library that a thread is in', async (t) => {
  const directory = await otherUsers(t);
  const body = `
    ${becomeOther}
    const registry = open({ preflight: false, cacheDir: ${JSON.stringify(directory)} });
    registry.on('laneExited', ({ error }) => tell(String(error)));
    await registry.loadFrom('one', library);
    await registry.execute('one', {}, '');
    const { library: fate, reason } = await registry.unload('one');
    tell([fate, /thread/.test(reason)]);
    await registry.close();
  `;
  const library = await copyOf('left_thread', join(directory, 'left_thread.so'));
  const { lines } = await told(t, { body, library });
  t.deepEqual(lines, [['resident', true]]);
});

// ---- What Node permits -----------------------------------------------------------------------------------

const PERMISSION = process.allowedNodeEnvironmentFlags.has('--permission')
  ? '--permission'
  : '--experimental-permission';

const GRANTS = {
  '--allow-fs-read': '--allow-fs-read=*',
  '--allow-fs-write': '--allow-fs-write=*',
  '--allow-worker': '--allow-worker',
  '--allow-addons': '--allow-addons',
  '--allow-child-process': '--allow-child-process',
  // Of Node 26.
  ...(process.allowedNodeEnvironmentFlags.has('--allow-net')
    ? { '--allow-net': '--allow-net' }
    : {}),
};

onLinux('with everything granted, it works under the permission model', async (t) => {
  const flags = [PERMISSION, ...Object.values(GRANTS)];
  const { lines } = await told(t, { flags, body: BOTH_MODES, library: fixture('echo') });
  t.deepEqual(lines, [
    ['thread', 'hello'],
    ['process', 'hello'],
  ]);
});

for (const missing of Object.keys(GRANTS)) {
  onLinux(`without ${missing}, the error names it`, async (t) => {
    const library = await copyOf('echo', join(await scratch(t), 'echo.so'));
    const granted = Object.entries(GRANTS).filter(([flag]) => flag !== missing);
    const flags = [PERMISSION, ...granted.map(([, grant]) => grant)];
    // Without this, Node could not even read the package.
    if (missing === '--allow-fs-read') flags.push(`--allow-fs-read=${packageRoot}`);

    const { lines } = await told(t, { flags, body: BOTH_MODES, library });

    t.deepEqual(lines, [
      ['thread', 'ERR_HANDLER_PERMISSION', missing],
      ['process', 'ERR_HANDLER_PERMISSION', missing],
    ]);
  });
}

onLinux('nothing is tried in a process where none may be started', async (t) => {
  const { '--allow-child-process': _, ...others } = GRANTS;
  const flags = [PERMISSION, ...Object.values(others)];
  const body = `
    const registry = open({ preflight: false });
    await registry.loadFrom('one', library);
    tell((await registry.execute('one', {}, 'hello')).text());
    await registry.close();
  `;
  const { lines } = await told(t, { flags, body, library: fixture('echo') });
  t.deepEqual(lines, ['hello']);
});

// ---- A registry in a worker thread -----------------------------------------------------------------------

onLinux('a registry in a worker thread, in both modes and with standby: no warnings', async (t) => {
  const body = `
    for (const isolation of ['thread', 'process']) {
      const registry = open({ isolation, standby: true });
      await registry.loadFrom('one', library);
      const { drained } = await registry.swapGraceful('one', library);
      tell([isolation, (await drained).library]);
      await registry.close();
    }
  `;
  const { lines, stderr } = await told(t, { body, library: fixture('echo'), inWorker: true });
  t.deepEqual(lines, [
    ['thread', 'unloaded'],
    ['process', 'unloaded'],
  ]);
  t.is(stderr, '');
});
