/** What is read of ELF files, whatever linker and whatever options they are made with. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { fixture } from '../../../fixtures/paths.js';
import { ElfError } from '../../../src/library/elf/bytes.js';
import { STV } from '../../../src/library/elf/constants.js';
import {
  ElfFile,
  type ElfSymbol,
  isExported,
  isImported,
} from '../../../src/library/elf/elf-file.js';
import { gnuHash } from '../../../src/library/elf/hash.js';
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

/** What is answered without naming symbols, beside what their entries say. */
function agrees(t: ExecutionContext, file: ElfFile): void {
  const symbols = [...file.symbols()];
  const indexesOf = (which: (symbol: ElfSymbol) => boolean) =>
    symbols.filter(which).map(({ index }) => index);
  t.deepEqual(file.imports.indexes, indexesOf(isImported));
  t.deepEqual(
    file.imports.hashes,
    symbols.filter(isImported).map(({ name }) => gnuHash(name)),
  );
  t.deepEqual(
    file.unique,
    indexesOf(({ binding }) => binding === 'unique'),
  );
  const isDefault = ({ visibility }: ElfSymbol) => visibility === STV.DEFAULT;
  t.deepEqual(
    indexesOf(({ index }) => file.isReplaceable(index)),
    indexesOf((symbol) => isExported(symbol) && isDefault(symbol)),
  );
  for (const { index, name } of symbols) {
    const hash = gnuHash(name);
    const stored = file.storedHashOf(index);
    if (file.nameHashOf(index) !== hash) t.fail(`the hash of ${name}`);
    if (stored !== null && stored !== (hash & ~1) >>> 0) t.fail(`the stored hash of ${name}`);
    if (stored !== null && !file.mayDefine(hash)) t.fail(`${name} is filtered out`);
  }
  const referenced = new Set([...file.relocations()].map(({ symbol }) => symbol));
  referenced.delete(0);
  t.deepEqual(
    file.referencedSymbols(),
    [...referenced].sort((a, b) => a - b),
  );
}

for (const [what, flags] of Object.entries(STYLES)) {
  onLinux(`bytes and hashes say what symbols do: ${what}`, async (t) => {
    const directory = await scratch(t);
    agrees(t, opened(t, await compileIn(directory, { name: 'libx.so', code: CODE, flags })));
  });
}

onLinux('bytes and hashes say what symbols do: C++, and the program that runs this', (t) => {
  for (const path of [fixture('cpp_unique'), '/proc/self/exe']) agrees(t, opened(t, path));
});

onLinux('a filter rules out names that are not there', async (t) => {
  const directory = await scratch(t);
  const flags = ['-Wl,--hash-style=gnu'];
  const file = opened(t, await compileIn(directory, { name: 'libx.so', code: CODE, flags }));
  const names = Array.from({ length: 1000 }, (_, index) => `nothing_${index}`);
  const passed = names.filter((name) => file.mayDefine(gnuHash(name)));
  t.true(passed.length < names.length / 2, `${passed.length} of ${names.length} pass`);
});

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
