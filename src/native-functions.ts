/**
 * What the main thread calls of native code, bound before the first handler is loaded.
 *
 * Binding takes the dynamic loader's lock. A handler whose constructor hangs in a lane's thread holds
 * that lock for ever, and a main thread that then binds something never comes back.
 */

import { prepareGivingBack } from './call-memory.js';
import { CancelFlags } from './cancel-flags.js';
import { prepareExit } from './exit-process.js';
import { prepareCopy } from './native-copy.js';
import { prepareDiscarding } from './shared-memory.js';
import { prepareStarting } from './start-child.js';

let bound: Promise<void> | null = null;

/** Binds everything, once. A later call waits for the first one. */
export function bindNativeFunctions(): Promise<void> {
  bound ??= bindAll().catch((error: unknown) => {
    // What was missing, descriptors for instance, may be there for the next load.
    bound = null;
    throw error;
  });
  return bound;
}

async function bindAll(): Promise<void> {
  await prepareExit();
  await prepareCopy();
  if (process.platform !== 'linux') return;
  await prepareGivingBack();
  await prepareDiscarding();
  await prepareStarting();
  await CancelFlags.prepare();
  const { bindNoMore } = await import('../workers/c-functions.js');
  bindNoMore();
}
