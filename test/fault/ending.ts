/** The process ends while a version is in a certain state. */

import { writeFileSync } from 'node:fs';
import { fixture } from '../../fixtures/paths.js';
import { exitProcess, type RegistryOptions } from '../../src/index.js';
import { ask, close, given, open, say, tell, untilRunning } from './backend.js';

type State = 'loading' | 'idle' | 'running' | 'endless' | 'draining' | 'drained';

const { state, end, path, closeMs, options } = given<{
  state: State;
  end: 'close' | 'exit' | 'SIGTERM' | 'SIGKILL';
  path: string;
  closeMs?: number;
  options: RegistryOptions;
}>();
const gate = `${path}.gate`;
/** Lets the call that is running come to its end. */
const openGate = () => writeFileSync(`${gate}.open`, '');
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
    await registry.loadFrom('x', fixture('own_process'));
    void ask('running', registry.execute('x', {}, `wait ${gate}`));
    await untilRunning(registry);
  },
  endless: async () => {
    await registry.loadFrom('x', fixture('fault'));
    // It sleeps: one that computes would keep a core busy for as long as closing waits for it.
    void ask('running', registry.executeWithTimeout('x', {}, 'do sleep', FOREVER));
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
process.on('exit', () => {
  tell({ type: 'said', what: 'exit', fields: {} });
  openGate();
});
if (end === 'close') {
  const closed = close(registry, closeMs);
  openGate();
  await closed;
  await exitProcess(0);
} else if (end === 'exit') {
  process.exit(5);
} else {
  process.kill(process.pid, end);
}
