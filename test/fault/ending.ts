/** The process ends while a version is in a certain state. */

import { fixture } from '../../fixtures/paths.js';
import type { RegistryOptions } from '../../src/index.js';
import { ask, finish, given, open, say, tell, untilRunning } from './backend.js';

type State = 'loading' | 'idle' | 'running' | 'endless' | 'draining' | 'drained';

const { state, end, options } = given<{
  state: State;
  end: 'close' | 'exit' | 'SIGTERM' | 'SIGKILL';
  options: RegistryOptions;
}>();
const registry = open(options);
const FOREVER = Number.POSITIVE_INFINITY;

/** Resolves in that state. */
const reach: Record<State, () => Promise<unknown>> = {
  loading: () => {
    const begun = new Promise((resolve) => registry.once('loading', resolve));
    void say('load', registry.loadFrom('x', fixture('slow_init')));
    return begun;
  },
  idle: () => registry.loadFrom('x', fixture('version_a')),
  running: async () => {
    await registry.loadFrom('x', fixture('sleep'));
    void ask('running', registry.execute('x', {}, '250'));
    await untilRunning(registry);
  },
  endless: async () => {
    await registry.loadFrom('x', fixture('endless'));
    void ask('running', registry.executeWithTimeout('x', {}, '', FOREVER));
    await untilRunning(registry);
  },
  draining: async () => {
    await reach.running();
    const { drained } = await registry.swapGraceful('x', fixture('version_b'));
    void say('drained', Promise.resolve(drained));
  },
  drained: async () => {
    await reach.idle();
    const drained = new Promise((resolve) => registry.once('drained', resolve));
    void say('unload', registry.unload('x'));
    await drained;
  },
};

await reach[state]();
process.on('exit', () => tell({ type: 'said', what: 'exit', fields: {} }));
if (end === 'close') {
  await finish(registry, options);
} else if (end === 'exit') {
  process.exit(5);
} else {
  process.kill(process.pid, end);
}
