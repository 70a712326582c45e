/** What is read of ELF files, whatever linker and whatever options they are made with. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { fixture } from '../../../fixtures/paths.js';
import { ElfError } from '../../../src/library/elf/bytes.js';
import {
  ElfFile,
  type ElfSymbol,
  isExported,
  isImported,
} from '../../../src/library/elf/elf-file.js';
import { flipped, truncations } from '../../fuzz/mutants.js';
import { scratch } from '../../support/files.js';
import { compileIn } from '../../support/libraries.js';
import { needs } from '../../support/needs.js';
import { onLinux } from '../../support/process.js';

const onLinuxX64 = needs('Linux on x64', process.platform === 'linux' && process.arch === 'x64');

/** Opened until the test is over. */
function opened(t: ExecutionContext, path: string): ElfFile {
  const file = ElfFile.open(path);
  t.teardown(() => file.close());
  return file;
}

const namesOf = (symbols: Iterable<ElfSymbol>, which: (symbol: ElfSymbol) => boolean): string[] =>
  [...symbols]
    .filter(which)
    .map(({ name }) => name)
    .toSorted();

const CODE = `
extern int elsewhere(void);
int one(void); int one(void) { return elsewhere(); }
int two; __attribute__((weak)) int three(void); int three(void) { return one() + two; }
__attribute__((visibility("hidden"))) int four(void); int four(void) { return 4; }
`;

const STYLES = {
  'both hash tables': ['-Wl,--hash-style=both'],
  'the newer hash table alone': ['-Wl,--hash-style=gnu'],
  'the older hash table alone': ['-Wl,--hash-style=sysv'],
  'no sections of its own': ['-Wl,-s'],
};

for (const [what, flags] of Object.entries(STYLES)) {
  onLinux(`symbols of a library with ${what}`, async (t) => {
    const directory = await scratch(t);
    const file = opened(t, await compileIn(directory, { name: 'libx.so', code: CODE, flags }));
    const own = ['one', 'three', 'two'];
    t.deepEqual(
      namesOf(file.symbols(), isExported).filter((name) => !name.startsWith('_')),
      own,
    );
    t.true(namesOf(file.symbols(), isImported).includes('elsewhere'));
    for (const name of own) t.is(file.find(name)?.name, name);
    t.is(file.find('three')?.binding, 'weak');
    for (const name of ['elsewhere', 'four', 'nothing']) t.is(file.find(name), undefined);
    const referred = [...file.relocations()].map(({ symbol }) =>
      symbol === 0 ? '' : file.symbol(symbol).name,
    );
    t.true(referred.includes('elsewhere'));
  });
}

onLinux('a library that defines nothing has symbols all the same', async (t) => {
  const directory = await scratch(t);
  const hide = join(directory, 'hide');
  await writeFile(hide, '{ local: *; };');
  const flags = ['-nostdlib', '-Wl,--hash-style=gnu', `-Wl,--version-script,${hide}`];
  const code = `${CODE} __attribute__((used)) static int (*five)(void) = one;`;
  const file = opened(t, await compileIn(directory, { name: 'libx.so', code, flags }));
  t.deepEqual(namesOf(file.symbols(), isExported), []);
  t.deepEqual(namesOf(file.symbols(), isImported), ['elsewhere']);
});

onLinux('names of libraries, search paths and versions', async (t) => {
  const directory = await scratch(t);
  const script = join(directory, 'versions');
  await writeFile(script, 'OLD { global: old; }; NEW { global: fresh; } OLD;');
  const code =
    'int old(void); int old(void) { return 1; } int fresh(void); int fresh(void) { return 2; }';
  const dep = await compileIn(directory, {
    name: 'libdep.so.1',
    code,
    flags: ['-Wl,-soname,libdep.so.1', `-Wl,--version-script,${script}`],
  });
  const user = await compileIn(directory, {
    name: 'libuser.so',
    code: 'int old(void); int fresh(void); int all(void); int all(void) { return old() + fresh(); }',
    flags: [dep, '-Wl,-rpath,/a:$ORIGIN/ü'],
  });
  const [library, needing] = [opened(t, dep), opened(t, user)];
  t.is(library.soname, 'libdep.so.1');
  t.deepEqual(
    library.versionDefinitions().map(({ name }) => name),
    ['libdep.so.1', 'OLD', 'NEW'],
  );
  t.is(needing.soname, null);
  t.true(needing.needed.includes('libdep.so.1'));
  t.is(needing.runpath ?? needing.rpath, '/a:$ORIGIN/ü');
  const need = needing.versionNeeds().find(({ file }) => file === 'libdep.so.1');
  t.deepEqual(need?.versions.map(({ name }) => name).toSorted(), ['NEW', 'OLD']);
  t.is(needing.interpreter, null);
});

onLinux('the program that runs this', (t) => {
  const file = opened(t, process.execPath);
  t.not(file.interpreter, null);
  t.true(file.needed.some((name) => name.startsWith('libc.')));
  t.true(file.symbolCount > 1000);
  t.true(file.isLike(fixture('echo')));
  t.false(file.isLike(new URL(import.meta.url).pathname));
});

/** All that there is to read. */
function readAll(file: ElfFile): void {
  for (const symbol of file.symbols()) file.find(symbol.name);
  for (const { symbol } of file.relocations()) if (symbol !== 0) file.symbol(symbol);
  file.versionNeeds();
  file.versionDefinitions();
  void [file.needed, file.soname, file.runpath, file.rpath, file.interpreter];
}

onLinuxX64('a damaged file is read as far as it goes, and never beyond itself', async (t) => {
  const whole = new Uint8Array(await readFile(fixture('cpp_unique')));
  const mutants = [...truncations(whole, 'cut'), ...flipped(whole, 1, 300)];
  let refused = 0;
  for (const { name, bytes } of mutants) {
    try {
      readAll(ElfFile.from(bytes));
    } catch (error) {
      if (!(error instanceof ElfError)) throw new Error(`${name}: ${error}`, { cause: error });
      refused += 1;
    }
  }
  t.true(refused > 0 && refused < mutants.length);
});
