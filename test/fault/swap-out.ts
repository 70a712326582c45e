/** A version that does something bad when it leaves is replaced by a good one. */

import { fixture } from '../../fixtures/paths.js';
import type { LoadOptions, RegistryOptions } from '../../src/index.js';
import {
  ask,
  askUntil,
  type Closing,
  finish,
  given,
  hangTimeoutMs,
  open,
  PATIENCE_MS,
  recover,
  say,
} from './backend.js';

const { library, load, hangs, request, options, ...closing } = given<
  {
    library: string;
    load: LoadOptions;
    /** It never comes to its end: the time that it has for that is the time that it had for loading. */
    hangs?: boolean;
    request: string;
    options: RegistryOptions;
  } & Closing
>();
const registry = open(options);
const loadTimeoutMs = hangs
  ? await hangTimeoutMs(() => registry.loadFrom('x', fixture('version_a')))
  : PATIENCE_MS;
await registry.loadFrom('x', fixture(library), { ...load, loadTimeoutMs });
await ask('before', registry.execute('x', {}, request));
const { drained } = await registry.swapGraceful('x', fixture('version_b'), undefined, {
  loadTimeoutMs: PATIENCE_MS,
});
const said = say('drained', Promise.resolve(drained));
await askUntil(registry, 'x', said);
await recover(registry, 'x');
await finish(registry, closing);
