/** Somebody changes a library's file while it is loaded and runs. */

import { copyFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { fixture } from '../../fixtures/paths.js';
import type { RegistryOptions } from '../../src/index.js';
import { ask, type Closing, finish, given, open, recover, say, untilRunning } from './backend.js';

const { deed, path, options, ...closing } = given<
  {
    deed: 'delete' | 'rename' | 'overwrite' | 'truncate';
    path: string;
    options: RegistryOptions;
  } & Closing
>();
const gate = `${path}.gate`;

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
await copyFile(fixture('own_process'), path);
await registry.loadFrom('x', path);
const running = ask('running', registry.execute('x', {}, `wait ${gate}`));
await untilRunning(registry);
await deeds[deed]();
await writeFile(`${gate}.open`, '');
await running;
await ask('meanwhile', registry.execute('x', {}, 'good'));
const swapped = registry.swapGraceful('x', path);
await say(
  'swap',
  swapped.then(() => ({ version: registry.get('x')?.version })),
);
await rm(path, { force: true });
await copyFile(fixture('version_b'), path);
await registry.swapGraceful('x', path);
await recover(registry, 'x');
await finish(registry, closing);
