/** A version serves; a library that does something bad while it is loaded is to take its place. */

import { fixture } from '../../fixtures/paths.js';
import type { LoadOptions, RegistryOptions } from '../../src/index.js';
import {
  askUntil,
  type Closing,
  finish,
  given,
  hangTimeoutMs,
  open,
  recover,
  say,
} from './backend.js';

const { library, load, hangs, options, laterMs, ...closing } = given<
  {
    library: string;
    load: LoadOptions;
    hangs?: boolean;
    options: RegistryOptions;
    laterMs?: number;
  } & Closing
>();
const registry = open(options);
const timeoutMs = await hangTimeoutMs(() => registry.loadFrom('x', fixture('version_a')));
const swap = registry.swapGraceful('x', fixture(library), undefined, {
  ...load,
  ...(hangs ? { loadTimeoutMs: timeoutMs } : {}),
});
const said = say('load', swap);
await askUntil(registry, 'x', swap);
await said;
await recover(registry, 'x');
// Whether anything else can be loaded after that.
if (laterMs !== undefined)
  await say('later load', registry.loadFrom('other', fixture('echo'), { loadTimeoutMs: laterMs }));
await finish(registry, closing);
