/** koffi without a pool. */

import { bindWork, bindWorkAsync } from '../native/library.js';
import type { Contender } from './contender.js';

/** On the main thread, which it blocks. */
export async function startKoffiOnMain(): Promise<Contender> {
  return { call: bindWork(), close: async () => undefined };
}

/** On libuv's threads. How many there are, UV_THREADPOOL_SIZE says when the process starts. */
export async function startKoffiAsync(): Promise<Contender> {
  return { call: bindWorkAsync(), close: async () => undefined };
}
