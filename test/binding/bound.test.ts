/** What a library gets: its own where it has brought it, and the process's where they share. */

import type { ExecutionContext } from 'ava';
import { fixtureDependency } from '../../fixtures/paths.js';
import type { Isolation } from '../../src/index.js';
import { failure, outcome } from '../support/outcomes.js';
import { onLinux } from '../support/process.js';
import { activeOf, openRegistry } from '../support/registry.js';
import { linesOf, systemLibrary } from './child.js';

/** What the process it runs in was given. A thread sees that of the host. */
const ENV = { BOUND: 'yes', TZ: 'XYZ-9' };
const SHARED = ['said', 'BOUND=yes', 'allocated', '-32400'];

const asks = `
  const asks = async (id) => {
    for (const what of ['cerr', 'environ', 'memory', 'timezone']) console.log(await ask(id, what));
  };
`;

for (const isolation of ['thread', 'process'] as const) {
  const options = { isolation, env: isolation === 'process' ? ENV : {} };

  onLinux(
    `${isolation}: ordinary binding shares streams, environment, time zone and memory`,
    async (t) => {
      const body = `${asks}
      const { binding } = await registry.load('bound');
      console.log(binding.mode);
      await asks('bound');
    `;
      t.deepEqual(await linesOf(t, body, { env: ENV, options }), ['default', ...SHARED]);
    },
  );

  onLinux(`${isolation}: own binding shares them too, and has its own dependency`, async (t) => {
    const body = `${asks}
      const { binding } = await registry.load('bound_own');
      console.log(binding.mode, binding.symbols.join());
      await asks('bound_own');
      console.log(await ask('bound_own', 'zlib'));
      const { library } = await registry.unload('bound_own');
      console.log(library);
    `;
    const expected = ['own zlibVersion', ...SHARED, 'its own', 'unloaded'];
    t.deepEqual(await linesOf(t, body, { env: ENV, options }), expected);
  });

  for (const preload of [
    fixtureDependency('strict_malloc'),
    ...['libjemalloc.so.2', 'libtcmalloc_minimal.so.4', 'libmimalloc.so.2.0'].flatMap(
      (name) => systemLibrary(name) ?? [],
    ),
  ]) {
    onLinux(
      `${isolation}: memory of a preloaded allocator (${preload.replace(/^.*\//, '')})`,
      async (t) => {
        const body = `${asks}
        for (const id of ['bound', 'bound_own']) {
          await registry.load(id);
          await asks(id);
        }
        console.log(await ask('bound_own', 'zlib'));
      `;
        const env = { ...ENV, LD_PRELOAD: preload };
        const expected = [...SHARED, ...SHARED, 'its own'];
        t.deepEqual(await linesOf(t, body, { env, options }), expected);
      },
    );
  }
}

async function answers(t: ExecutionContext, isolation: Isolation, binding: 'default' | 'own') {
  const { registry } = await openRegistry(t, { isolation });
  await registry.load('bound_own', { binding });
  const said = await outcome(registry.execute('bound_own', {}, 'zlib'));
  return { said, ...activeOf(registry, 'bound_own').binding };
}

for (const isolation of ['thread', 'process'] as const) {
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
  t.deepEqual(await linesOf(t, body), ['said', 'said', 'own default']);
});

onLinux('what is wrong with the option is said before anything is loaded', async (t) => {
  const { registry } = await openRegistry(t);
  const wrong = { binding: 'deep' } as unknown as { binding: 'own' };
  t.like(await failure(registry.load('echo', wrong), 'option'), {
    code: 'ERR_HANDLER_INVALID_OPTION',
    option: 'binding',
  });
});
