import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, readdirSync, renameSync, statSync, truncateSync } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import {
  CacheDirError,
  type LibraryDefect,
  LibraryInvalidError,
  LibraryNotFoundError,
  LoadFailedError,
  RegistryClosedError,
} from '../../src/errors.js';
import { LibraryStore } from '../../src/library/store.js';
import { needs } from '../support/needs.js';

const onLinux = needs('Linux', process.platform === 'linux');
const run = promisify(execFile);

let fixtures: string;
let library: string;

test.before(async () => {
  fixtures = await mkdtemp(join(tmpdir(), 'store-'));
  library = join(fixtures, 'libhandler_echo.so');
  const source = join(fixtures, 'echo.c');
  await writeFile(source, 'int handler_entry(void) { return 0; }\n');
  await run('cc', ['-shared', '-fPIC', '-o', library, source]);
});

test.after.always(() => rm(fixtures, { recursive: true, force: true }));

/** An empty directory of the test's own, which is removed after it. */
async function scratch(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'store-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function filesIn(cacheDir: string): Promise<string[]> {
  const stores = await readdir(cacheDir);
  const files = await Promise.all(stores.map((store) => readdir(join(cacheDir, store))));
  return files.flat();
}

async function permissions(path: string): Promise<number> {
  return (await stat(path)).mode & 0o7777;
}

function causeCodeOf(error: Error | undefined): string | undefined {
  return (error?.cause as NodeJS.ErrnoException | undefined)?.code;
}

async function assertRefused(
  t: ExecutionContext,
  source: string,
  defect: LibraryDefect,
  note?: string,
): Promise<void> {
  const cacheDir = await scratch(t);
  const copying = new LibraryStore({ cacheDir }).copy(source, 'echo');
  const error = await t.throwsAsync(copying, { instanceOf: LibraryInvalidError }, note);
  t.is(error?.defect, defect, note);
  t.is(error?.path, source);
  t.deepEqual(await filesIn(cacheDir).catch(() => []), [], note);
}

// ---- Copies -------------------------------------------------------------------------------------

onLinux('a copy is a new private file with the hash of the source', async (t) => {
  const cacheDir = join(await scratch(t), 'made', 'on-demand');
  const copy = await new LibraryStore({ cacheDir }).copy(library, 'echo-v1');
  const bytes = await readFile(library);
  t.deepEqual(await readFile(copy.path), bytes);
  t.is(copy.sha256, createHash('sha256').update(bytes).digest('hex'));
  t.is(copy.sizeBytes, bytes.length);
  t.is(copy.sourcePath, library);
  t.regex(basename(copy.path), /^echo-v1-[0-9a-f]{16}\.so$/);
  t.not((await stat(copy.path)).ino, (await stat(library)).ino);
  t.is(await permissions(copy.path), 0o500);
  t.is(await permissions(dirname(copy.path)), 0o700);
  t.is(await permissions(cacheDir), 0o700);
});

onLinux('two copies of one library differ in path and inode', async (t) => {
  const store = new LibraryStore({ cacheDir: await scratch(t) });
  const [one, two] = await Promise.all([store.copy(library, 'echo'), store.copy(library, 'echo')]);
  t.not(one.path, two.path);
  t.not((await stat(one.path)).ino, (await stat(two.path)).ino);
  t.is(one.sha256, two.sha256);
  t.is(dirname(one.path), dirname(two.path));
});

onLinux('two stores have a directory each', async (t) => {
  const cacheDir = await scratch(t);
  const copies = await Promise.all(
    [1, 2].map(() => new LibraryStore({ cacheDir }).copy(library, 'echo')),
  );
  t.not(dirname(copies[0]?.path ?? ''), dirname(copies[1]?.path ?? ''));
});

onLinux('many copies at once share one directory', async (t) => {
  const cacheDir = await scratch(t);
  const store = new LibraryStore({ cacheDir });
  const copies = await Promise.all(
    Array.from({ length: 50 }, (_, index) => store.copy(library, `echo-${index}`)),
  );
  t.is(new Set(copies.map(({ path }) => path)).size, 50);
  t.is((await readdir(cacheDir)).length, 1);
  await Promise.all(copies.map((copy) => copy.remove()));
  await store.close();
  t.deepEqual(await readdir(cacheDir), []);
});

onLinux('a copy larger than one read is whole', async (t) => {
  const source = join(await scratch(t), 'libhandler_large.so');
  await copyFile(library, source);
  await truncate(source, 3_000_001);
  const copy = await new LibraryStore({ cacheDir: await scratch(t) }).copy(source, 'large');
  const bytes = await readFile(source);
  t.true(bytes.equals(await readFile(copy.path)));
  t.is(copy.sha256, createHash('sha256').update(bytes).digest('hex'));
});

onLinux('a label cannot lead out of the directory', async (t) => {
  const cacheDir = await scratch(t);
  const store = new LibraryStore({ cacheDir });
  for (const label of ['../../echo', '/etc/echo', 'e\0cho', 'x'.repeat(1000), '']) {
    const copy = await store.copy(library, label);
    t.is(dirname(dirname(copy.path)), cacheDir);
  }
});

onLinux('the source may be a symbolic link; the copy is at a real path', async (t) => {
  const directory = await scratch(t);
  await symlink(library, join(directory, 'link.so'));
  await mkdir(join(directory, 'cache'));
  await symlink(join(directory, 'cache'), join(directory, 'cache-link'));
  const store = new LibraryStore({ cacheDir: join(directory, 'cache-link') });
  const copy = await store.copy(join(directory, 'link.so'), 'echo');
  t.is(copy.path, await realpath(copy.path));
  t.is(dirname(dirname(copy.path)), join(directory, 'cache'));
});

onLinux('remove() may be called again and leaves other copies', async (t) => {
  const cacheDir = await scratch(t);
  const store = new LibraryStore({ cacheDir });
  const one = await store.copy(library, 'one');
  const two = await store.copy(library, 'two');
  await Promise.all([one.remove(), one.remove()]);
  await one.remove();
  t.deepEqual(await filesIn(cacheDir), [basename(two.path)]);
});

onLinux('a directory that a cleaner took is made again', async (t) => {
  const cacheDir = join(await scratch(t), 'cache');
  const store = new LibraryStore({ cacheDir });
  const lost = await store.copy(library, 'echo');
  for (const takenDirectory of [dirname(lost.path), cacheDir]) {
    await rm(takenDirectory, { recursive: true });
    const copies = await Promise.all([1, 2, 3].map(() => store.copy(library, 'echo')));
    t.is(new Set(copies.map(({ path }) => dirname(path))).size, 1);
    t.is((await filesIn(cacheDir)).length, 3);
    await Promise.all(copies.map((copy) => copy.remove()));
  }
  await lost.remove();
});

onLinux('close() removes the directory with the last copy, and no file', async (t) => {
  const cacheDir = await scratch(t);
  const store = new LibraryStore({ cacheDir });
  const one = await store.copy(library, 'one');
  const two = await store.copy(library, 'two');
  await store.close();
  await one.remove();
  t.deepEqual(await filesIn(cacheDir), [basename(two.path)]);
  await two.remove();
  t.deepEqual(await readdir(cacheDir), []);
  await store.close();
  await t.throwsAsync(store.copy(library, 'echo'), { instanceOf: RegistryClosedError });
  t.deepEqual(await readdir(cacheDir), []);
});

onLinux('close() during copies leaves nothing behind', async (t) => {
  const cacheDir = await scratch(t);
  // One after the other at each point of a copy: a turn of the event loop is about one step of it.
  for (let turns = 0; turns < 40; turns++) {
    const store = new LibraryStore({ cacheDir });
    const copying = store.copy(library, 'echo').catch((error: unknown) => error);
    for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
    await store.close();
    const outcome = await copying;
    if (outcome instanceof Error) t.true(outcome instanceof RegistryClosedError, `${outcome}`);
    else await (outcome as { remove(): Promise<void> }).remove();
    t.deepEqual(await readdir(cacheDir), [], `after ${turns} turns`);
  }
});

// ---- Sources that are refused -------------------------------------------------------------------

onLinux('refuses what is not a regular file, without waiting for one', async (t) => {
  const directory = await scratch(t);
  const fifo = join(directory, 'libhandler_fifo.so');
  await run('mkfifo', [fifo]);
  await assertRefused(t, fifo, 'not-a-file');
  await assertRefused(t, directory, 'not-a-file');
  await assertRefused(t, '/dev/null', 'not-a-file');
  const socket = join(directory, 'socket');
  const server = createServer().listen(socket);
  await once(server, 'listening');
  await assertRefused(t, socket, 'not-a-file');
  server.close();
});

onLinux('refuses empty, text and foreign files', async (t) => {
  const directory = await scratch(t);
  const source = join(directory, 'libhandler_bad.so');
  await writeFile(source, '');
  await assertRefused(t, source, 'not-a-library');
  await writeFile(source, 'int handler_entry;\n');
  await assertRefused(t, source, 'not-a-library');
  const bytes = await readFile(library);
  bytes.writeUInt16LE(8, 18); // MIPS
  await writeFile(source, bytes);
  await assertRefused(t, source, 'wrong-architecture');
  bytes[4] = 1; // 32-bit
  await writeFile(source, bytes);
  await assertRefused(t, source, 'wrong-architecture');
});

onLinux('refuses a library cut off anywhere', async (t) => {
  const source = join(await scratch(t), 'libhandler_cut.so');
  const bytes = await readFile(library);
  const sizes = [4096, bytes.length >> 1, bytes.length - 4096, bytes.length - 64, bytes.length - 1];
  for (let size = 64; size <= 2048; size += 64) sizes.push(size);
  for (const size of sizes) {
    await writeFile(source, bytes.subarray(0, size));
    await assertRefused(t, source, 'truncated', `${size} of ${bytes.length} bytes`);
  }
});

onLinux('refuses a library that grows or shrinks while it is copied', async (t) => {
  for (const change of ['grow', 'shrink'] as const) {
    const directory = await scratch(t);
    const source = join(directory, 'libhandler_busy.so');
    await copyFile(library, source);
    let size = 2_000_000;
    await truncate(source, size);
    // Every step of a copy takes at least one turn of the event loop, and each turn changes the
    // size.
    let immediate = setImmediate(function step() {
      if (change === 'grow') appendFileSync(source, 'x');
      else truncateSync(source, --size);
      immediate = setImmediate(step);
    });
    await assertRefused(t, source, 'changed-while-copied', change);
    clearImmediate(immediate);
  }
});

onLinux('takes a library that is replaced by a rename while it is copied', async (t) => {
  const directory = await scratch(t);
  const cacheDir = await scratch(t);
  const source = join(directory, 'libhandler_busy.so');
  await copyFile(library, source);
  await truncate(source, 8_000_000);
  const before = await readFile(source);
  const next = join(directory, 'next');
  await writeFile(next, 'the next version');

  // The file of the copy is there once the source is open and its state is noted.
  const copying = new LibraryStore({ cacheDir }).copy(source, 'busy');
  const deadlineMs = performance.now() + 10_000;
  let copies: string[] = [];
  while (copies.length === 0 && performance.now() < deadlineMs) {
    await new Promise(setImmediate);
    copies = readdirSync(cacheDir, { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('.so'),
    );
  }
  t.is(copies.length, 1);
  t.true(statSync(join(cacheDir, copies[0] ?? '')).size < before.length, 'still copying');
  renameSync(next, source);

  const copy = await copying;
  t.true(before.equals(await readFile(copy.path)));
  t.is(copy.sha256, createHash('sha256').update(before).digest('hex'));
});

onLinux('says what is there instead of a missing library', async (t) => {
  const directory = await scratch(t);
  for (const id of ['thumbnail', 'resize', 'a', 'b', 'c', 'd']) {
    await writeFile(join(directory, `libhandler_${id}.so`), '');
  }
  await writeFile(join(directory, 'notes.txt'), '');
  const store = new LibraryStore({ cacheDir: await scratch(t) });
  const path = join(directory, 'libhandler_thumbnial.so');
  const error = await t.throwsAsync(store.copy(path, 'x'), { instanceOf: LibraryNotFoundError });
  t.is(error?.path, path);
  t.is(causeCodeOf(error), 'ENOENT');
  t.regex(error?.message ?? '', /has libhandler_thumbnail\.so, /);
  t.is(error?.message.match(/libhandler_\w+\.so/g)?.length, 1 + 5);
  t.false(error?.message.includes('notes.txt'));
});

onLinux('refuses paths that lead nowhere', async (t) => {
  const directory = await scratch(t);
  await symlink('loop', join(directory, 'loop'));
  const paths: [string, string][] = [
    [join(directory, 'missing', 'libhandler_echo.so'), 'ENOENT'],
    [join(library, 'libhandler_echo.so'), 'ENOTDIR'],
    [join(directory, 'loop'), 'ELOOP'],
    [join(directory, 'x'.repeat(300)), 'ENAMETOOLONG'],
  ];
  const isRoot = process.geteuid?.() === 0;
  if (!isRoot) {
    const secret = join(directory, 'secret.so');
    await writeFile(secret, '', { mode: 0 });
    paths.push([secret, 'EACCES']);
  }
  const store = new LibraryStore({ cacheDir: await scratch(t) });
  for (const [path, code] of paths) {
    const error = await t.throwsAsync(store.copy(path, 'x'), { instanceOf: LibraryNotFoundError });
    t.is(causeCodeOf(error), code);
  }
  await t.throwsAsync(store.copy('a\0b', 'x'), { instanceOf: LoadFailedError });
});

// ---- The base directory -------------------------------------------------------------------------

/** A store with the default base in another directory for temporary files. */
function storeWithTemporaryDirectory(directory: string): LibraryStore {
  const before = process.env['TMPDIR'];
  process.env['TMPDIR'] = directory;
  try {
    return new LibraryStore();
  } finally {
    // Assigning undefined would set the text "undefined".
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
  }
}

onLinux('the default base is private to the user', async (t) => {
  const directory = await scratch(t);
  const base = join(directory, `changeover-${process.geteuid?.()}`);
  const copy = await storeWithTemporaryDirectory(directory).copy(library, 'echo');
  t.is(dirname(dirname(copy.path)), base);
  t.is(await permissions(base), 0o700);
});

onLinux('the default base is refused if it is not private, until it is put right', async (t) => {
  const directory = await scratch(t);
  const base = join(directory, `changeover-${process.geteuid?.()}`);
  const store = storeWithTemporaryDirectory(directory);
  const refused = async (why: RegExp) => {
    const error = await t.throwsAsync(store.copy(library, 'echo'), { instanceOf: CacheDirError });
    t.is(error?.path, library);
    t.truthy(error?.cause);
    t.regex(error?.message ?? '', why);
    t.regex(error?.message ?? '', /cacheDir/);
  };

  await symlink(fixtures, base);
  await refused(/symbolic link/);
  await rm(base);
  await writeFile(base, '');
  await refused(/not a directory/);
  await rm(base);
  await mkdir(base);
  for (const mode of [0o750, 0o701, 0o770, 0o1777]) {
    await chmod(base, mode);
    await refused(/others may use it/);
  }
  t.deepEqual(await readdir(base), []);

  await chmod(base, 0o700);
  await t.notThrowsAsync(store.copy(library, 'echo'));
});

onLinux("a caller's directory must be one, and not open to all", async (t) => {
  const directory = await scratch(t);
  const file = join(directory, 'file');
  await writeFile(file, '');
  const dangling = join(directory, 'dangling');
  await symlink('nowhere', dangling);
  // In /proc, which takes no entries, a recursive mkdir of Node never returns.
  for (const cacheDir of [file, join(file, 'below'), dangling, '/proc/changeover/cache']) {
    const copying = new LibraryStore({ cacheDir }).copy(library, 'echo');
    await t.throwsAsync(copying, { instanceOf: CacheDirError });
  }

  const cacheDir = join(directory, 'cache');
  await mkdir(cacheDir);
  await chmod(cacheDir, 0o777);
  const store = new LibraryStore({ cacheDir });
  await t.throwsAsync(store.copy(library, 'echo'), { instanceOf: CacheDirError });
  await chmod(cacheDir, 0o1777);
  await t.notThrowsAsync(store.copy(library, 'echo'));
});

onLinux('a copy that cannot be written is an error of the cache', async (t) => {
  const cacheDir = await scratch(t);
  const source = join(await scratch(t), 'libhandler_large.so');
  await copyFile(library, source);
  await truncate(source, 4_000_000);
  // A limit on the size of files stands in for a full disk: it fails in the middle of a copy too.
  const script = `
    import { LibraryStore } from ${JSON.stringify(STORE_URL)};
    const store = new LibraryStore({ cacheDir: ${JSON.stringify(cacheDir)} });
    process.on('SIGXFSZ', () => {});
    await store.copy(${JSON.stringify(source)}, 'large').catch((error) => {
      console.log(error.code, error.cause.code);
    });
    await store.close();
  `;
  const node = [process.execPath, '--input-type=module', '-e', script];
  const { stdout } = await run('sh', ['-c', 'ulimit -f 2000 && exec "$0" "$@"', ...node]);
  t.is(stdout, 'ERR_HANDLER_CACHE_DIR EFBIG\n');
  t.deepEqual(await readdir(cacheDir), []);
});

// ---- Leftovers ----------------------------------------------------------------------------------

const STORE_URL = new URL('../../src/library/store.js', import.meta.url).href;

/** A process that has made a copy and lives until it is killed; `path` is that of the copy. */
async function startOwner(
  t: ExecutionContext,
  cacheDir: string,
): Promise<{ child: ChildProcess; path: string }> {
  const script = `
    import { LibraryStore } from ${JSON.stringify(STORE_URL)};
    const store = new LibraryStore({ cacheDir: ${JSON.stringify(cacheDir)} });
    const copy = await store.copy(${JSON.stringify(library)}, 'echo');
    process.stdout.write(copy.path);
    setInterval(() => {}, 1_000_000);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const [path] = await once(child.stdout, 'data');
  return { child, path: String(path) };
}

async function kill(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

onLinux('the directory of a killed process is swept, those of living ones are not', async (t) => {
  const cacheDir = await scratch(t);
  const [dead, alive] = await Promise.all([startOwner(t, cacheDir), startOwner(t, cacheDir)]);
  const before = await new LibraryStore({ cacheDir }).copy(library, 'echo');
  t.is((await readdir(cacheDir)).length, 3);

  await kill(dead.child);
  const after = await new LibraryStore({ cacheDir }).copy(library, 'echo');
  const expected = [alive.path, before.path, after.path].map((path) => basename(dirname(path)));
  t.deepEqual((await readdir(cacheDir)).sort(), expected.sort());
  t.true((await stat(alive.path)).isFile());
});

onLinux('the namespace, the start time and foreign names are respected', async (t) => {
  const cacheDir = await scratch(t);
  const { child, path } = await startOwner(t, cacheDir);
  const [prefix, pid, start, namespace, random] = basename(dirname(path)).split('.');
  await kill(child);
  const name = (...parts: unknown[]) => join(cacheDir, [prefix, ...parts, random].join('.'));
  const kept = [
    name(pid, start, `${namespace}0`),
    name(pid, start, '0123456789ab'),
    name(process.pid, '', namespace),
    name(0, start, namespace),
    name(`${pid}x`, start, namespace),
    name('99999999999', start, namespace),
    join(cacheDir, 'changeover'),
    join(cacheDir, 'somebody-elses'),
  ];
  const swept = [name(pid, '', namespace), name(process.pid, '1', namespace)];
  for (const directory of [...kept, ...swept]) {
    await mkdir(directory);
    await writeFile(join(directory, 'echo.so'), '');
  }
  // Neither a link nor a nested directory of this name is anything that a store makes.
  const target = await scratch(t);
  await writeFile(join(target, 'precious'), '');
  const link = `${name(pid, '2', namespace)}0`;
  await symlink(target, link);
  const nested = `${name(pid, '3', namespace)}0`;
  await mkdir(join(nested, 'directory'), { recursive: true });

  const copy = await new LibraryStore({ cacheDir }).copy(library, 'echo');
  const expected = [...kept, link, nested, dirname(copy.path)].map((each) => basename(each));
  t.deepEqual((await readdir(cacheDir)).sort(), expected.sort());
  t.deepEqual(await readdir(target), ['precious']);
});

onLinux('many sweepers at once do not disturb one another', async (t) => {
  const cacheDir = await scratch(t);
  const { child, path } = await startOwner(t, cacheDir);
  await kill(child);
  const leftover = basename(dirname(path));
  for (let index = 0; index < 20; index++) {
    const directory = join(cacheDir, `${leftover}${index}`);
    await mkdir(directory);
    for (const name of ['a.so', 'b.so', 'c.so']) await writeFile(join(directory, name), '');
  }
  const stores = Array.from({ length: 10 }, () => new LibraryStore({ cacheDir }));
  const copies = await Promise.all(stores.map((store) => store.copy(library, 'echo')));
  const expected = copies.map((copy) => basename(dirname(copy.path)));
  // Where two sweepers met, one may have given up; the next one finds what is left.
  const last = await new LibraryStore({ cacheDir }).copy(library, 'echo');
  expected.push(basename(dirname(last.path)));
  t.deepEqual((await readdir(cacheDir)).sort(), expected.sort());
});

test('what is to be kept for all when the store has closed is removed', async (t) => {
  const cacheDir = await scratch(t);
  const store = new LibraryStore({ cacheDir });
  const copy = await store.copy(library, 'late');
  await store.close();
  const finish = async () => t.fail('nobody will use it');
  await t.throwsAsync(store.keep('key', [copy], finish), { instanceOf: RegistryClosedError });
  t.deepEqual(await readdir(cacheDir), []);
});
