/** A request does something bad. Others wait behind it, and another endpoint has requests too. */

import { fixture } from '../../fixtures/paths.js';
import type { RegistryOptions } from '../../src/index.js';
import {
  ask,
  type Closing,
  finish,
  GIVE_UP_MS,
  given,
  open,
  recover,
  say,
  tell,
} from './backend.js';

const { library, request, endless, options, ...closing } = given<
  {
    library: string;
    request: string;
    /** Whether it never ends by itself. */
    endless: boolean;
    options: RegistryOptions;
  } & Closing
>();
const registry = open(options);
await registry.loadFrom('x', fixture(library));
// It is only there to be unharmed, and need not be tried.
await registry.loadFrom('other', fixture('echo'), { preflight: false });
registry.once('laneStuck', ({ replaced, killed }) =>
  tell({ type: 'said', what: 'laneStuck', fields: { replaced, killed } }),
);
const timeoutMs = endless ? GIVE_UP_MS : Number.POSITIVE_INFINITY;
const bad = ask('bad', registry.executeWithTimeout('x', {}, request, timeoutMs));
const others = [
  ...['1', '2', '3', '4'].map((text) => ask('behind', registry.execute('x', {}, text))),
  ...['5', '6'].map((text) => ask('elsewhere', registry.execute('other', {}, text))),
];
await bad;
await recover(registry, 'x');
await Promise.all(others);
await say('unload', registry.unload('x', { drainTimeoutMs: 0 }));
await finish(registry, closing);
