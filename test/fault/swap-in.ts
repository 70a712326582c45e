/** A version serves; a library that does something bad while it is loaded is to take its place. */

import { fixture } from '../../fixtures/paths.js';
import type { LoadOptions, RegistryOptions } from '../../src/index.js';
import { askUntil, finish, given, open, recover, say } from './backend.js';

const { library, load, options, laterMs } = given<{
  library: string;
  load: LoadOptions;
  options: RegistryOptions;
  laterMs?: number;
}>();
const registry = open(options);
await registry.loadFrom('x', fixture('version_a'));
const swap = registry.swapGraceful('x', fixture(library), undefined, load);
const said = say('load', swap);
await askUntil(registry, 'x', swap);
await said;
await recover(registry, 'x');
// Whether anything else can be loaded after that.
if (laterMs !== undefined)
  await say('later load', registry.loadFrom('other', fixture('echo'), { loadTimeoutMs: laterMs }));
await finish(registry, options);
