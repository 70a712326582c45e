/** Loads that failed and whose native code has not come back: they are counted, and limited. */

import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import { holdInit } from './support/held-init.js';
import { rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { activeOf, openRegistry } from './support/registry.js';

// Serial: whether handler_init is held is said in the environment, which is the whole process's.
test.serial('failed loads that hang count as versions that drain', async (t) => {
  const { registry } = await openRegistry(t, { preflight: false, maxDrainingVersions: 2 });
  await registry.loadFrom('x', fixture('echo'));
  const held = await holdInit(t);
  const load = () =>
    rejection(registry.loadFrom('x', fixture('slow_init'), { loadTimeoutMs: 2000 }));
  // One that a busy machine does not bring as far as handler_init in that time does not hang.
  for (let loads = 0; loads < 20 && registry.stats().hangingLoads < 2; loads++) {
    t.like(await load(), { code: 'ERR_HANDLER_LOAD_TIMEOUT' });
  }
  for (let loads = 0; loads < 2; loads++) {
    t.like(await load(), { code: 'ERR_HANDLER_DRAINING_LIMIT', endpoint: 'x' });
  }
  const { hangingLoads, loadedCount, drainingCount, endpoints } = registry.stats();
  t.deepEqual(
    { hangingLoads, loadedCount, drainingCount },
    { hangingLoads: 2, loadedCount: 1, drainingCount: 0 },
  );
  const states = endpoints[0]?.versions.map(({ state }) => state);
  t.deepEqual(states, ['active', 'failed', 'failed']);
  t.is(activeOf(registry, 'x').version, 1);

  await held.release();
  await eventually(
    () => registry.stats().hangingLoads,
    (count) => count === 0,
    'what hung has come back',
  );
  t.is((await registry.loadFrom('x', fixture('counter'))).state, 'active');
});
