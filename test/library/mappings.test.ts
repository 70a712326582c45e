import { copyFile, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { isMapped, listsFile } from '../../src/library/mappings.js';
import { needs } from '../support/needs.js';

const onLinux = needs('Linux', process.platform === 'linux');

onLinux('the running program is mapped', async (t) => {
  t.true(await isMapped(process.execPath));
});

onLinux('a file that exists but is not mapped, and one that does not exist, are not', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'mappings-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const file = join(directory, 'libhandler_echo.so');
  await writeFile(file, 'not mapped');
  t.false(await isMapped(file));
  t.false(await isMapped(join(directory, 'missing', 'libhandler_echo.so')));
});

onLinux('a copy of a mapped file is not mapped', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'mappings-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const copy = join(directory, 'node');
  await copyFile(process.execPath, copy);
  t.false(await isMapped(copy));
});

onLinux('symbolic links to the file or to its directory are followed', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'mappings-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const program = await realpath(process.execPath);
  await symlink(program, join(directory, 'file-link'));
  await symlink(join(program, '..'), join(directory, 'directory-link'));
  t.true(await isMapped(join(directory, 'file-link')));
  t.true(await isMapped(join(directory, 'directory-link', program.replace(/^.*\//, ''))));
});

test("reads the kernel's notation", (t) => {
  const maps = [
    '7f00-7f10 r--p 00000000 fe:00 11                  /tmp/a b/libhandler_echo.so',
    '7f10-7f20 r-xp 00001000 fe:00 12                  /tmp/gone.so (deleted)',
    '7f20-7f30 r-xp 00001000 fe:00 13                  /tmp/new\\012line.so',
    '7f30-7f40 r-xp 00001000 fe:00 14                  /tmp/back\\slash.so',
    '7f40-7f50 rw-p 00000000 00:00 0 ',
    '7ffd-7ffe rw-p 00000000 00:00 0                   [stack]',
    '',
  ].join('\n');
  t.true(listsFile(maps, '/tmp/a b/libhandler_echo.so'));
  t.true(listsFile(maps, '/tmp/gone.so'));
  t.true(listsFile(maps, '/tmp/new\nline.so'));
  t.true(listsFile(maps, '/tmp/back\\slash.so'));
  t.false(listsFile(maps, '/tmp/a b/libhandler_ech'));
  t.false(listsFile(maps, '/libhandler_echo.so'));
  t.false(listsFile(maps, '/tmp/gone'));
  t.false(listsFile(maps, '[stack]'));
});

test('tells where it cannot tell', async (t) => {
  t.is((await isMapped(process.execPath)) === undefined, process.platform !== 'linux');
});
