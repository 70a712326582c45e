/** This process may not open another file, or start another thread; a version serves, one is to be loaded, a lane to be replaced. */

import { closeSync, openSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { fixture } from '../../fixtures/paths.js';
import type { RegistryOptions } from '../../src/index.js';
import { hold } from '../../src/library/prepare/prepare-thread.js';
import {
  ask,
  askUntil,
  type Closing,
  finish,
  GIVE_UP_MS,
  given,
  open,
  recover,
  say,
} from './backend.js';

const { limit, options, ...closing } = given<
  { limit: 'descriptors' | 'threads'; options: RegistryOptions } & Closing
>();

/** Takes all there are; the result gives them back. */
const takeAll: Record<typeof limit, () => Promise<() => Promise<void>>> = {
  descriptors: async () => {
    const taken: number[] = [];
    try {
      for (;;) taken.push(openSync('/dev/null', 'r'));
    } catch {
      // That was the last.
    }
    return async () => {
      for (const descriptor of taken) closeSync(descriptor);
    };
  },
  threads: async () => {
    const taken: Worker[] = [];
    try {
      for (;;) {
        const worker = new Worker('setInterval(() => {}, 1000)', { eval: true });
        taken.push(worker);
        await new Promise((resolve, reject) =>
          worker.once('online', resolve).once('error', reject),
        );
      }
    } catch {
      // That was the last.
    }
    return async () => {
      await Promise.all(taken.map((worker) => worker.terminate()));
    };
  },
};

const registry = open(options);
await registry.loadFrom('x', fixture('fault'));
// It ends after a while without work, and then which thread is the first that cannot be had would be a matter of time.
const preparer = await hold(new AbortController().signal);
const giveBack = await takeAll[limit]();
const swap = registry.swapGraceful('x', fixture('version_b'));
const said = say(
  'swap',
  swap.then(() => undefined),
);
await askUntil(registry, 'x', swap);
await said;
// A lane is stuck. Another can take its place only where what the stuck one held comes back, as it does from a process.
const exited = new Promise((resolve) => registry.once('laneExited', resolve));
await ask('bad', registry.executeWithTimeout('x', {}, 'do sleep', GIVE_UP_MS));
const behind = ask('behind', registry.execute('x', {}, 'good'));
await Promise.race([exited, behind]);
await giveBack();
await recover(registry, 'x');
await behind;
await say(
  'later swap',
  registry.swapGraceful('x', fixture('version_b')).then(() => undefined),
);
preparer.release();
await finish(registry, closing);
