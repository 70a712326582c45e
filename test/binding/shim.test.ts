/** The runtime shim has what ordinary binding finds, and nothing else. */

import { fixtureDependency } from '../../fixtures/paths.js';
import { ProcessScope } from '../../src/library/binding/process-scope.js';
import { makeShim, SHIM_SONAME, shimObstacle } from '../../src/library/binding/shim.js';
import { SHN, STT } from '../../src/library/elf/constants.js';
import { ElfFile } from '../../src/library/elf/elf-file.js';
import { bind } from '../../workers/c-functions.js';
import { onLinux } from '../support/process.js';
import { linesOf, systemLibrary } from './child.js';

function ownShim(): ElfFile {
  const scope = ProcessScope.open();
  try {
    return ElfFile.from(makeShim(scope));
  } finally {
    scope.close();
  }
}

onLinux('each name has the address that ordinary binding finds', (t) => {
  const shim = ownShim();
  t.is(shim.soname, SHIM_SONAME);
  t.deepEqual(shim.needed, []);
  const dlsym = bind<(handle: number, name: string) => number>('dlsym', 'uintptr_t', [
    'uintptr_t',
    'const char *',
  ]);
  const symbols = [...shim.symbols()];
  t.true(symbols.length > 20, `${symbols.length} symbols`);
  for (const { name, value, section, type } of symbols) {
    t.is(section, SHN.ABS, name);
    t.false(type === STT.TLS || type === STT.GNU_IFUNC, name);
    t.is(dlsym(0, name), value, name);
  }
});

onLinux('all names of one variable have one address', (t) => {
  const shim = ownShim();
  const address = (name: string) => shim.find(name)?.value;
  t.not(address('environ'), undefined);
  t.is(address('__environ'), address('environ'));
  t.is(address('_environ'), address('environ'));
  t.not(address('_ZSt4cerr'), undefined);
});

onLinux('functions of the C library that nobody stands in for are not in it', (t) => {
  const shim = ownShim();
  for (const name of ['malloc', 'strdup', 'memcpy', 'printf'])
    t.is(shim.find(name), undefined, name);
});

onLinux('this process can have one', (t) => {
  const scope = ProcessScope.open();
  t.is(shimObstacle(scope), null);
  scope.close();
});

const preloads = [
  fixtureDependency('strict_malloc'),
  ...['libjemalloc.so.2', 'libtcmalloc_minimal.so.4', 'libmimalloc.so.2.0'].flatMap(
    (name) => systemLibrary(name) ?? [],
  ),
];

for (const preload of preloads) {
  onLinux(
    `what is preloaded stands in for the C library (${preload.replace(/^.*\//, '')})`,
    async (t) => {
      const base = new URL('../../src/library/', import.meta.url).href;
      const [mallocs, frees] = await linesOf(
        t,
        `
      import { ElfFile } from '${base}elf/elf-file.js';
      import { ProcessScope } from '${base}binding/process-scope.js';
      import { makeShim } from '${base}binding/shim.js';
      const { bind } = await import('${new URL('../../workers/c-functions.js', import.meta.url).href}');
      const scope = ProcessScope.open();
      const shim = ElfFile.from(makeShim(scope));
      // Not by the global scope: there, the address of a function can be that of a jump to it in
      // the executable.
      const handle = bind('dlopen', 'uintptr_t', ['const char *', 'int'])(${JSON.stringify(preload)}, 5);
      const dlsym = bind('dlsym', 'uintptr_t', ['uintptr_t', 'const char *']);
      for (const name of ['malloc', 'free']) console.log(shim.find(name)?.value === dlsym(handle, name));
      `,
        { env: { LD_PRELOAD: preload } },
      );
      t.deepEqual([mallocs, frees], ['true', 'true']);
    },
  );
}
