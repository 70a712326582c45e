/** What a library gets: its own where it has brought it, and the process's where they share. */

import { watch } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { fixture, fixtureDependency } from '../../fixtures/paths.js';
import type { Isolation } from '../../src/index.js';
import { failure, outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { onLinux } from '../support/process.js';
import { activeOf, openRegistry } from '../support/registry.js';
import { linesOf, systemLibrary } from './child.js';

/** What the process it runs in was given. A thread sees that of the host. */
const ENV = { BOUND: 'yes', TZ: 'XYZ-9' };
const SHARED = ['said', 'BOUND=yes', 'allocated', '-32400'];

/** What the process prints that loads both libraries in both isolations: whose lines they are is said first. */
const ISOLATIONS = ['thread', 'process'] as const;
const ANSWERS = ISOLATIONS.flatMap((isolation) => [
  `${isolation} bound: default `,
  ...SHARED,
  `${isolation} bound_own: own zlibVersion`,
  ...SHARED,
  'its own',
  'unloaded',
]);

const asks = `
  for (const isolation of ${JSON.stringify(ISOLATIONS)}) {
    // Wherever the lanes are to run, pre-flight does the same: once is enough.
    const preflight = isolation === 'thread';
    const env = isolation === 'process' ? ${JSON.stringify(ENV)} : {};
    for (const id of ['bound', 'bound_own']) {
      const { binding } = await registry.load(id, { isolation, env, preflight });
      console.log(isolation + ' ' + id + ': ' + binding.mode, binding.symbols?.join() ?? '');
      for (const what of ['cerr', 'environ', 'memory', 'timezone']) console.log(await ask(id, what));
    }
    console.log(await ask('bound_own', 'zlib'));
    console.log((await registry.unload('bound_own')).library);
  }
`;

onLinux(
  'streams, environment, time zone and memory are shared, whatever the binding; with its own there is its own dependency',
  async (t) => {
    t.deepEqual(await linesOf(t, asks, { env: ENV }), ANSWERS);
  },
);

for (const preload of [
  fixtureDependency('strict_malloc'),
  ...['libjemalloc.so.2', 'libtcmalloc_minimal.so.4', 'libmimalloc.so.2.0'].flatMap(
    (name) => systemLibrary(name) ?? [],
  ),
]) {
  onLinux(`memory of a preloaded allocator (${preload.replace(/^.*\//, '')})`, async (t) => {
    const env = { ...ENV, LD_PRELOAD: preload };
    t.deepEqual(await linesOf(t, asks, { env }), ANSWERS);
  });
}

async function answers(t: ExecutionContext, isolation: Isolation, binding: 'default' | 'own') {
  const { registry } = await openRegistry(t, { isolation });
  await registry.load('bound_own', { binding });
  const said = await outcome(registry.execute('bound_own', {}, 'zlib'));
  return { said, ...activeOf(registry, 'bound_own').binding };
}

for (const isolation of ISOLATIONS) {
  onLinux(`${isolation}: the option decides`, async (t) => {
    t.like(await answers(t, isolation, 'own'), { said: 'its own', mode: 'own' });
    const ordinary = await answers(t, isolation, 'default');
    t.is(ordinary.mode, 'default');
    const version = process.versions.zlib.replace(/-.*/, '');
    t.true(ordinary.said.startsWith(version), `${ordinary.said}, not ${version}`);
  });
}

onLinux('versions side by side, each bound in its own way', async (t) => {
  const body = `
    await registry.load('bound_own');
    const first = registry.get('bound_own');
    await registry.load('bound');
    for (const id of ['bound', 'bound_own']) console.log(await ask(id, 'cerr'));
    const guard = first.acquireRequest();
    await registry.load('bound_own', { binding: 'default' });
    console.log(first.binding.mode, registry.get('bound_own').binding.mode);
    guard.release();
  `;
  const options = { preflight: false };
  t.deepEqual(await linesOf(t, body, { options }), ['said', 'said', 'own default']);
});

// It may be killed at any instruction, when its time is up or nobody wants the library any more.
onLinux('who opens a library writes nothing beside its copy', async (t) => {
  const { registry, cacheDir } = await openRegistry(t, { preflight: true });
  await registry.load('echo');
  const [store = ''] = await readdir(cacheDir);
  const changes = watch(join(cacheDir, store));
  t.teardown(() => changes.close());
  const names = new Set<string | null>();
  changes.on('change', (_, name) => names.add(name as string | null));
  // The child, the thread and the process that open it each need a runtime shim.
  await registry.load('bound_own');
  await registry.unload('bound_own');
  await registry.loadFrom('last', fixture('bound_own'), { isolation: 'process' });
  await registry.unload('last');
  await eventually(
    () => [...names].some((name) => name?.startsWith('last-')),
    Boolean,
    'the last copy is seen',
  );
  // What it has brought along is a copy of its version's own.
  const copies = /^(bound_own|last)-|-libfixture_own_zlib\.so$/;
  t.deepEqual(
    [...names].filter((name) => !copies.test(name ?? '')),
    [],
  );
});

onLinux('what is wrong with the option is said before anything is loaded', async (t) => {
  const { registry } = await openRegistry(t);
  const wrong = { binding: 'deep' } as unknown as { binding: 'own' };
  t.like(await failure(registry.load('echo', wrong), 'option'), {
    code: 'ERR_HANDLER_INVALID_OPTION',
    option: 'binding',
  });
});
