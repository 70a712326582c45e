/** The cache directory stops taking copies while a version serves, and takes them again. */

import { execFile } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fixture } from '../../fixtures/paths.js';
import type { RegistryOptions } from '../../src/index.js';
import { askUntil, type Closing, finish, given, open, say, tell } from './backend.js';

const { deed, options, ...closing } = given<
  {
    deed: 'delete' | 'fill' | 'read-only';
    options: RegistryOptions & { cacheDir: string };
  } & Closing
>();
const { cacheDir } = options;
const run = promisify(execFile);
const filler = join(cacheDir, 'filler');

const deeds = {
  delete: { break: () => rm(cacheDir, { recursive: true }), mend: async () => undefined },
  fill: {
    // More than there is: what fits is written, and then there is no room.
    break: () => writeFile(filler, Buffer.alloc(8 << 20)).catch(() => undefined),
    mend: () => rm(filler),
  },
  'read-only': {
    break: () => run('mount', ['-o', 'remount,ro', cacheDir]),
    mend: () => run('mount', ['-o', 'remount,rw', cacheDir]),
  },
};

const registry = open(options);
await registry.loadFrom('x', fixture('fault'));
await deeds[deed].break();
const swap = registry.swapGraceful('x', fixture('version_b'));
const said = say(
  'swap',
  swap.then(({ drained }) => drained),
);
await askUntil(registry, 'x', swap);
await said;
await deeds[deed].mend();
const beginMs = performance.now();
await registry.swapGraceful('x', fixture('version_b'));
tell({ type: 'recovered', ms: performance.now() - beginMs });
await finish(registry, closing);
