/** Somebody changes a library's file while it is loaded. */

import { copyFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { fixture } from '../../fixtures/paths.js';
import type { RegistryOptions } from '../../src/index.js';
import { ask, finish, given, open, recover, say } from './backend.js';

const { deed, path, options } = given<{
  deed: 'delete' | 'rename' | 'overwrite' | 'truncate';
  path: string;
  options: RegistryOptions;
}>();

const deeds: Record<typeof deed, () => Promise<void>> = {
  delete: () => rm(path),
  rename: async () => {
    await copyFile(fixture('version_b'), `${path}.new`);
    await rename(`${path}.new`, path);
  },
  overwrite: () => writeFile(path, Buffer.alloc(64 * 1024, 'x'), { flag: 'r+' }),
  truncate: () => truncate(path, 100),
};

const registry = open(options);
await copyFile(fixture('gate'), path);
await registry.loadFrom('x', path);
const words = new Int32Array(new SharedArrayBuffer(8));
const entered = () => Atomics.load(words, 0) === 1;
const running = ask('running', registry.execute('x', {}, new Uint8Array(words.buffer)));
while (!entered()) await new Promise(setImmediate);
await deeds[deed]();
Atomics.store(words, 1, 1);
await running;
await ask('meanwhile', registry.execute('x', {}, new Uint8Array(new Int32Array([0, 1]).buffer)));
const swapped = registry.swapGraceful('x', path);
await say(
  'swap',
  swapped.then(() => ({ version: registry.get('x')?.version })),
);
await rm(path, { force: true });
await copyFile(fixture('version_b'), path);
await registry.swapGraceful('x', path);
await recover(registry, 'x');
await finish(registry);
