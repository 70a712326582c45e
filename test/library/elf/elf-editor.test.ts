/** What is changed in copies of libraries: the result is what was asked for, whole, and loads. */

import { execFile } from 'node:child_process';
import { copyFile, open, readdir, readFile, realpath, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { fixture } from '../../../fixtures/paths.js';
import { ElfError } from '../../../src/library/elf/bytes.js';
import { PT } from '../../../src/library/elf/constants.js';
import { ElfEditor } from '../../../src/library/elf/elf-editor.js';
import { ElfFile } from '../../../src/library/elf/elf-file.js';
import { checkLibraryFile } from '../../../src/library/format/check.js';
import { flipped, truncations } from '../../fuzz/mutants.js';
import { scratch } from '../../support/files.js';
import { compileIn } from '../../support/libraries.js';
import { needs } from '../../support/needs.js';
import { onLinux } from '../../support/process.js';
import { atMost } from '../../support/turns.js';

const onLinuxX64 = needs('Linux on x64', process.platform === 'linux' && process.arch === 'x64');

async function refusalOf(path: string): Promise<string | null> {
  const file = await open(path);
  try {
    await checkLibraryFile(file, (await file.stat()).size, path);
    return null;
  } catch (error) {
    return String(error);
  } finally {
    await file.close();
  }
}

/**
 * What the dynamic loader says of a library in a process of its own: it is no addon, if it says
 * nothing else.
 */
async function load(path: string): Promise<string> {
  const code = `try { process.dlopen({ exports: {} }, ${JSON.stringify(path)}) } catch (error) {
    console.log(error.message.replaceAll(${JSON.stringify(path)}, 'it'));
  } process.exit(0)`;
  const run = promisify(execFile)(process.execPath, ['-e', code], { timeout: 60_000 });
  return run.then(({ stdout }) => stdout.trim()).catch((error) => `ended by ${error.signal}`);
}

const NOT_AN_ADDON = /self-register|not a valid|did not/;

/** Changes everything that can be. */
function changeAll(path: string): { renamed: string; needed: string[]; unique: number } {
  const file = ElfFile.open(path, 'r+');
  try {
    const { needed, runpath, rpath } = file;
    const renamed = `private-${basename(path)}`;
    const editor = new ElfEditor(file);
    const unique = editor.makeUniqueOrdinary();
    editor.addNeededFirst('libm.so.6');
    editor.setSoname(renamed);
    editor.setRunpath(`$ORIGIN:${runpath ?? rpath ?? ''}`);
    // The same library by another of its names, so that there is something to find.
    editor.renameNeeded(new Map([['libc.so.6', 'libc.so.6']]));
    editor.save();
    return { renamed, needed, unique };
  } finally {
    file.close();
  }
}

function assertChanged(t: ExecutionContext, path: string, changed: ReturnType<typeof changeAll>) {
  const file = ElfFile.open(path);
  t.teardown(() => file.close());
  t.is(file.soname, changed.renamed);
  t.deepEqual(file.needed, ['libm.so.6', ...changed.needed]);
  t.true(file.runpath?.startsWith('$ORIGIN:'));
  t.is(file.rpath, null);
  t.false([...file.symbols()].some(({ binding }) => binding === 'unique'));
  const base = file.versionDefinitions().find(({ flags }) => (flags & 1) !== 0);
  if (base !== undefined) t.is(base.name, changed.renamed);
  const loads = file.segments.filter(({ type }) => type === PT.LOAD);
  t.deepEqual(
    loads.map(({ address }) => address),
    loads.map(({ address }) => address).toSorted((one, other) => one - other),
  );
}

const SHAPES: Record<string, readonly string[]> = {
  'as the linker makes it': [],
  'no room in its dynamic section': ['-Wl,--spare-dynamic-tags=1'],
  'no notes whose header could be given up': [
    '-Wl,--build-id=none',
    '-Wl,-z,nognustack',
    '-fcf-protection=none',
  ],
  'an RPATH': ['-Wl,-rpath,/nowhere', '-Wl,--disable-new-dtags'],
  'the older hash table': ['-Wl,--hash-style=sysv'],
  'large pages': ['-Wl,-z,max-page-size=2097152'],
  'code and data in one segment': ['-Wl,-z,noseparate-code'],
  'no sections of its own': ['-Wl,-s'],
};

const CODE = `
#include <string>
template <class T> struct Kept { static int value; };
template <class T> int Kept<T>::value = 7;
int read_it(); int read_it() { return Kept<int>::value + (int)std::to_string(1).size(); }
`;

for (const [what, flags] of Object.entries(SHAPES)) {
  onLinuxX64(`everything is changed in a library: ${what}`, async (t) => {
    const directory = await scratch(t);
    const path = await compileIn(directory, {
      name: 'libx.so',
      code: CODE,
      flags,
      language: 'c++',
    });
    t.is(await refusalOf(path), null);
    const changed = changeAll(path);
    t.true(changed.unique > 0);
    t.is(await refusalOf(path), null);
    assertChanged(t, path, changed);
    t.regex(await load(path), NOT_AN_ADDON);
    // Once more, of what was changed already.
    const again = changeAll(path);
    t.is(again.unique, 0);
    t.is(await refusalOf(path), null);
    t.regex(await load(path), NOT_AN_ADDON);
  });
}

onLinuxX64('nothing asked for, nothing written', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'libx.so');
  await copyFile(fixture('echo'), path);
  const before = await readFile(path);
  const file = ElfFile.open(path, 'r+');
  const editor = new ElfEditor(file);
  t.is(editor.makeUniqueOrdinary(), 0);
  t.false(editor.isChanged);
  editor.save();
  file.close();
  t.deepEqual(await readFile(path), before);
});

onLinuxX64('a unique symbol that is to stay so does, others do not', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'libx.so');
  await copyFile(fixture('cpp_unique'), path);
  const file = ElfFile.open(path, 'r+');
  const names = [...file.symbols()].flatMap(({ binding, name }) =>
    binding === 'unique' ? [name] : [],
  );
  const [kept = '', ...others] = names;
  const editor = new ElfEditor(file);
  t.is(editor.makeUniqueOrdinary(new Set([kept])), others.length);
  editor.save();
  file.close();
  const changed = ElfFile.open(path);
  const left = [...changed.symbols()].flatMap(({ binding, name }) =>
    binding === 'unique' ? [name] : [],
  );
  changed.close();
  t.deepEqual([names.length > 1, left], [true, [kept]]);
});

onLinuxX64('a segment is added only where its place is a page of its own', async (t) => {
  const bytes = new Uint8Array(await readFile(fixture('echo')));
  const { programHeadersAt, layout, segments } = ElfFile.from(bytes.slice());
  const index = segments.findIndex(({ type }) => type === PT.LOAD);
  const alignAt = programHeadersAt + index * layout.programHeaderBytes + 48;
  // A multiple of nothing that the loader maps by.
  new DataView(bytes.buffer).setBigUint64(alignAt, 0x1031n, true);
  const before = bytes.slice();
  const editor = new ElfEditor(ElfFile.from(bytes));
  editor.setSoname('libprivate.so');
  t.throws(() => editor.save(), { instanceOf: ElfError });
  t.deepEqual(bytes, before);
});

onLinuxX64('of a damaged library, the changed copy is whole or there is none', async (t) => {
  const whole = new Uint8Array(await readFile(fixture('cpp_unique')));
  const mutants = [...truncations(whole, 'cut'), ...flipped(whole, 2, 300)];
  let changed = 0;
  for (const { name, bytes } of mutants) {
    try {
      const file = ElfFile.from(bytes.slice());
      const editor = new ElfEditor(file);
      editor.makeUniqueOrdinary();
      editor.addNeededFirst('libfirst.so');
      editor.setSoname('libprivate.so');
      editor.setRunpath('$ORIGIN');
      editor.save();
      changed += 1;
    } catch (error) {
      if (!(error instanceof ElfError)) throw new Error(`${name}: ${error}`, { cause: error });
    }
  }
  t.true(changed > 0 && changed < mutants.length);
});

/** So many of the system's libraries are loaded, which takes a process each; all are changed. */
const LOADED = 12;
const MOST_LIBRARIES = 4000;

async function librariesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(
    () => [],
  );
  return entries
    .filter((entry) => entry.isFile() && /\.so(?:\.[\d.]+)?$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .slice(0, MOST_LIBRARIES);
}

onLinux('every library of the system can be changed, and loads as before', async (t) => {
  t.timeout(600_000);
  const directory = await scratch(t);
  const libraries = await librariesBelow(await realpath('/usr/lib'));
  const turn = atMost(2);
  const whole: string[] = [];
  for (const path of libraries) {
    // Parts of a debugger or for another machine, and libraries that are not ours to judge.
    if ((await refusalOf(path)) !== null) continue;
    whole.push(path);
  }
  t.true(whole.length > 20);
  const step = Math.max(1, Math.floor(whole.length / LOADED));
  const compared = await Promise.all(
    whole.map((path, index) =>
      turn(async () => {
        const copy = join(directory, `${index}-${basename(path)}`);
        await copyFile(path, copy);
        const changed = changeIn(copy, dirname(path));
        t.is(await refusalOf(copy), null, path);
        t.is(changed, `private-${basename(copy)}`, path);
        const isSample = index % step === 0;
        const said = isSample ? [await load(path), await load(copy)] : [];
        // Together they are as large as the system.
        await rm(copy);
        return { path, said };
      }),
    ),
  );
  for (const { path, said } of compared) t.is(said[0], said[1], path);
});

/**
 * Changes a copy of a library whose own dependencies are looked for where it was; returns its name.
 */
function changeIn(copy: string, from: string): string | null {
  const file = ElfFile.open(copy, 'r+');
  const editor = new ElfEditor(file);
  editor.makeUniqueOrdinary();
  editor.setSoname(`private-${basename(copy)}`);
  const path = [file.runpath ?? file.rpath, from].filter((part) => part !== null).join(':');
  editor.setRunpath(path.replaceAll(/\$\{?ORIGIN\}?/g, from));
  editor.save();
  file.close();
  const changed = ElfFile.open(copy);
  const { soname } = changed;
  changed.close();
  return soname;
}
