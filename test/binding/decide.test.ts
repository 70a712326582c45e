/** Which binding a library gets, from ELF files alone. */

import { writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { compileLibrary, type LibrarySource } from '../../fixtures/compile.js';
import { fixture, fixtureDependency } from '../../fixtures/paths.js';
import { type BindingDecision, decideBinding } from '../../src/library/binding/decide.js';
import { ProcessScope } from '../../src/library/binding/process-scope.js';
import { ElfFile } from '../../src/library/elf/elf-file.js';
import type { BindingOption } from '../../src/options.js';
import { scratch } from '../support/files.js';
import { onLinux } from '../support/process.js';

/** Decides for the first of these libraries, which needs the others. */
function decide(
  paths: readonly string[],
  wanted: BindingOption = 'auto',
  obstacle: string | null = null,
): BindingDecision {
  const closure = paths.map((path) => ({ name: basename(path), path, elf: ElfFile.open(path) }));
  const scope = ProcessScope.open();
  try {
    return decideBinding(closure, scope, wanted, obstacle);
  } finally {
    scope.close();
    for (const { elf } of closure) elf.close();
  }
}

async function compiled(
  t: ExecutionContext,
  name: string,
  text: string,
  flags: LibrarySource['flags'] = [],
): Promise<string> {
  const directory = await scratch(t);
  const source = join(directory, name);
  await writeFile(source, text);
  const output = join(directory, `${name}.so`);
  await compileLibrary({ source, output, flags });
  return output;
}

onLinux('nothing that node has too: ordinary', (t) => {
  for (const id of ['echo', 'cpp', 'cpp_unique', 'bound', 'openmp']) {
    const { report } = decide([fixture(id)]);
    t.like(report, { mode: 'default', symbols: [], symbolCount: 0 }, id);
  }
});

onLinux('a dependency that defines what node exports: its own', (t) => {
  const { report, withShim } = decide([fixture('bound_own'), fixtureDependency('own_zlib')]);
  t.like(report, { mode: 'own', symbols: ['zlibVersion'], symbolCount: 1 });
  t.true(withShim);
});

onLinux('a definition of its own that it uses by name', (t) => {
  t.like(decide([fixture('own_symbols')]).report, { mode: 'own', symbols: ['zlibVersion'] });
});

const ownInflate = `
  __attribute__((visibility("default"))) int inflate(void *stream, int flush);
  int inflate(void *stream, int flush) { return stream == 0 ? flush : 0; }
`;

onLinux("a definition that nothing refers to by name is nobody else's", async (t) => {
  const flags = ['-Wl,-Bsymbolic'];
  const used = `${ownInflate}
    __attribute__((visibility("default"))) int handler_entry(void);
    int handler_entry(void) { return inflate(0, 1); }
  `;
  t.is(decide([await compiled(t, 'used.c', used)]).report?.mode, 'own');
  t.is(decide([await compiled(t, 'symbolic.c', used, flags)]).report?.mode, 'default');
  t.is(decide([await compiled(t, 'unused.c', ownInflate)]).report?.mode, 'default');
});

onLinux('names of the C library and of standard templates are no reason', async (t) => {
  const allocator = `
    #include <stdlib.h>
    __attribute__((visibility("default"))) void *malloc(size_t bytes);
    static char room[4096];
    void *malloc(size_t bytes) { return bytes > sizeof room ? NULL : room; }
    __attribute__((visibility("default"))) void *use(void);
    void *use(void) { return malloc(10); }
  `;
  t.is(decide([await compiled(t, 'allocator.c', allocator)]).report?.mode, 'default');
  const templates = `
    #include <map>
    #include <string>
    #include <vector>
    #pragma GCC visibility push(default)
    std::vector<std::string> use(std::map<std::string, std::string> &from) {
      std::vector<std::string> all;
      for (auto &each : from) all.push_back(each.first + each.second);
      return all;
    }
  `;
  const flags = ['-fvisibility=default'];
  t.is(decide([await compiled(t, 'templates.cc', templates, flags)]).report?.mode, 'default');
});

onLinux('the option decides', (t) => {
  const own = [fixture('bound_own'), fixtureDependency('own_zlib')];
  t.is(decide(own, 'default').report?.mode, 'default');
  t.false(decide(own, 'default').withShim);
  t.like(decide([fixture('echo')], 'own'), { withShim: true, report: { mode: 'own' } });
});

onLinux(
  'without a shim: own binding where nothing is shared, else a conflict that says what',
  (t) => {
    const alone = decide([fixture('own_symbols')], 'auto', 'there is none');
    t.like(alone, { withShim: false, report: { mode: 'own' } });
    const { conflict } = decide(
      [fixture('bound_own'), fixtureDependency('own_zlib')],
      'auto',
      'there is none',
    );
    t.deepEqual(conflict?.own, ['zlibVersion']);
    t.true(conflict?.shared.includes('_ZSt4cerr'));
    t.true(conflict?.shared.includes('environ'));
    t.false(conflict?.shared.includes('malloc'), 'nobody stands in for it here');
    t.is(conflict?.obstacle, 'there is none');
  },
);
