/** Libraries that somebody else could have put there, and files that are none. */

import { execFile } from 'node:child_process';
import { chmod, chown, link, mkdir, rename, stat, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { fixture, packageRoot } from '../../fixtures/paths.js';
import { type LoadError, libraryFileName, UnsafeLibraryError } from '../../src/index.js';
import { copyOf, scratch } from '../support/files.js';
import { needs } from '../support/needs.js';
import { outcome, rejection } from '../support/outcomes.js';
import { openRegistry } from '../support/registry.js';

const run = promisify(execFile);
const index = new URL('../../src/index.js', import.meta.url).href;
const onUnix = needs('Unix', process.platform !== 'win32');
const isRoot = process.geteuid?.() === 0;
/** Only root can give files away. */
const asRoot = needs('root', isRoot);
const SOMEBODY = 54_321;
const file = libraryFileName('x');

async function handlers(t: ExecutionContext): Promise<{ directory: string; path: string }> {
  const directory = join(await scratch(t), 'handlers');
  await mkdir(directory, { mode: 0o755 });
  await chmod(directory, 0o755);
  const path = await copyOf('version_a', join(directory, file));
  await chmod(path, 0o755);
  return { directory, path };
}

/** Refused by name and by path, with the active version untouched, and accepted if it is allowed. */
async function assertUnsafe(
  t: ExecutionContext,
  { directory, path }: { directory: string; path: string },
  expected: { danger: string; culprit: string },
): Promise<void> {
  const { registry } = await openRegistry(t, { handlersDir: directory, preflight: false });
  const active = await registry.loadFrom('x', fixture('version_b'));
  for (const attempt of [registry.load('x'), registry.swap('x', path)]) {
    const error = await rejection(attempt);
    t.true(error instanceof UnsafeLibraryError, `${error}`);
    t.like(error, { code: 'ERR_HANDLER_LIBRARY_UNSAFE', path, ...expected });
    t.true((error as LoadError).message.includes(expected.culprit));
  }
  t.is(registry.get('x'), active);
  await registry.load('x', { allowUnsafePermissions: true });
  t.is(await outcome(registry.execute('x', {}, '1')), 'A:1');
}

onUnix('a file and a directory that only their owner may write are fine', async (t) => {
  const { directory } = await handlers(t);
  const { registry } = await openRegistry(t, { handlersDir: directory });
  t.is((await registry.load('x')).state, 'active');
});

for (const mode of [0o757, 0o777]) {
  onUnix(`a file with mode ${mode.toString(8)}`, async (t) => {
    const made = await handlers(t);
    await chmod(made.path, mode);
    await assertUnsafe(t, made, { danger: 'writable-by-others', culprit: made.path });
  });

  onUnix(`a directory with mode ${mode.toString(8)}`, async (t) => {
    const made = await handlers(t);
    await chmod(made.directory, mode);
    await assertUnsafe(t, made, { danger: 'writable-by-others', culprit: made.directory });
  });
}

asRoot('what a group may write', async (t) => {
  const made = await handlers(t);
  await chown(made.path, 0, SOMEBODY);
  await chmod(made.path, 0o775);
  await assertUnsafe(t, made, { danger: 'writable-by-others', culprit: made.path });
  await chown(made.path, 0, 0);
  const { registry } = await openRegistry(t, { handlersDir: made.directory });
  t.is((await registry.load('x')).state, 'active', "the user's own group");
});

onUnix(
  'a directory where anyone may create files and nobody may replace those of others',
  async (t) => {
    const { directory } = await handlers(t);
    await chmod(directory, 0o1777);
    const { registry } = await openRegistry(t, { handlersDir: directory });
    t.is((await registry.load('x')).state, 'active');
  },
);

asRoot("somebody else's file", async (t) => {
  const made = await handlers(t);
  await chown(made.path, SOMEBODY, 0);
  await assertUnsafe(t, made, { danger: 'foreign-owner', culprit: made.path });
});

asRoot("somebody else's directory", async (t) => {
  const made = await handlers(t);
  await chown(made.directory, SOMEBODY, 0);
  await assertUnsafe(t, made, { danger: 'foreign-owner', culprit: made.directory });
});

asRoot(
  'a link in a safe directory to a file in an unsafe one, and the other way round',
  async (t) => {
    const [safe, unsafe] = [await handlers(t), await handlers(t)];
    await chmod(unsafe.directory, 0o777);
    const there = { directory: safe.directory, path: join(safe.directory, libraryFileName('y')) };
    await symlink(unsafe.path, there.path);
    const { registry } = await openRegistry(t);
    const danger = { danger: 'writable-by-others', culprit: unsafe.directory };
    t.like(await rejection(registry.loadFrom('x', there.path)), danger);
    const back = join(unsafe.directory, 'link.so');
    await symlink(safe.path, back);
    t.like(await rejection(registry.loadFrom('x', back)), danger);
  },
);

asRoot('a user loads what belongs to root, and what is his own', async (t) => {
  const { directory, path } = await handlers(t);
  for (let above = dirname(directory); above !== '/'; above = dirname(above)) {
    if (above.includes('changeover-test-')) await chmod(above, 0o755);
  }
  if (!(await isOpenToAll(packageRoot))) {
    t.pass();
    return;
  }
  const cacheDir = await scratch(t);
  await chown(cacheDir, SOMEBODY, SOMEBODY);
  await chmod(dirname(directory), 0o755);
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(index)};
    const registry = new HandlerRegistry({ cacheDir: ${JSON.stringify(cacheDir)}, threads: 1, loadTimeoutMs: 60_000 });
    const load = () => registry.loadFrom('x', ${JSON.stringify(path)}).then(({ state }) => state, ({ danger }) => danger);
    process.stdout.write(await load());
    await registry.close();
  `;
  const load = async () => {
    const ids = { uid: SOMEBODY, gid: SOMEBODY, cwd: '/' };
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', source], ids);
    return stdout;
  };
  t.is(await load(), 'active', "root's");
  await chown(path, SOMEBODY, SOMEBODY);
  await chmod(path, 0o775);
  t.is(await load(), 'active', 'his own, in his own group');
  await chown(path, SOMEBODY + 1, SOMEBODY);
  t.is(await load(), 'foreign-owner');
});

async function isOpenToAll(directory: string): Promise<boolean> {
  if (((await stat(directory)).mode & 0o005) !== 0o005) return false;
  return dirname(directory) === directory || isOpenToAll(dirname(directory));
}

onUnix('a link that leads out of the handlers directory', async (t) => {
  const [inside, outside] = [await handlers(t), await handlers(t)];
  const y = join(inside.directory, libraryFileName('y'));
  await symlink(outside.path, y);
  const { registry } = await openRegistry(t, { handlersDir: inside.directory });
  const error = await rejection(registry.load('y'));
  t.true(error instanceof UnsafeLibraryError);
  t.like(error, { danger: 'leads-outside', culprit: outside.path, path: y });
  t.is((await registry.loadFrom('y', y)).state, 'active', 'a path is what it is');

  const following = await openRegistry(t, {
    handlersDir: inside.directory,
    allowOutsideLinks: true,
  });
  t.is((await following.registry.load('y')).state, 'active');
});

onUnix('links inside of it, below it, and to it', async (t) => {
  const { directory, path } = await handlers(t);
  const below = join(directory, 'releases');
  await mkdir(below, { mode: 0o755 });
  await rename(path, join(below, '..x.so'));
  await symlink(join('releases', '..x.so'), path);
  const current = join(dirname(directory), 'current');
  await symlink(directory, current);
  const { registry } = await openRegistry(t, { handlersDir: current });
  t.is((await registry.load('x')).state, 'active');
  await link(join(below, '..x.so'), join(directory, libraryFileName('hard')));
  t.is((await registry.load('hard')).state, 'active');
});

onUnix('what is not a file is refused and not waited for', async (t) => {
  const { directory } = await handlers(t);
  const paths = { fifo: join(directory, libraryFileName('fifo')), directory, zero: '/dev/zero' };
  await run('mkfifo', [paths.fifo]);
  const links = Object.entries(paths).map(async ([name, target]) => {
    const path = join(directory, libraryFileName(`link_${name}`));
    await symlink(target, path);
    return path;
  });
  const { registry } = await openRegistry(t, { handlersDir: directory });
  for (const path of [...Object.values(paths), ...(await Promise.all(links))]) {
    t.like(await rejection(registry.loadFrom('x', path)), {
      code: 'ERR_HANDLER_LIBRARY_INVALID',
      defect: 'not-a-file',
    });
  }
});
