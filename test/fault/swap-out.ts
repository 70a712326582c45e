/** A version that does something bad when it leaves is replaced by a good one. */

import { fixture } from '../../fixtures/paths.js';
import type { LoadOptions, RegistryOptions } from '../../src/index.js';
import { ask, askUntil, finish, given, open, recover, say } from './backend.js';

const { library, load, request, options } = given<{
  library: string;
  load: LoadOptions;
  request: string;
  options: RegistryOptions;
}>();
const registry = open(options);
await registry.loadFrom('x', fixture(library), load);
await ask('before', registry.execute('x', {}, request));
const { drained } = await registry.swapGraceful('x', fixture('version_b'));
const said = say('drained', Promise.resolve(drained));
await askUntil(registry, 'x', said);
await recover(registry, 'x');
await finish(registry, options);
