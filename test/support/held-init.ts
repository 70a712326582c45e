/** `handler_init` of the fixture `slow_init`, held as long as a test wants. */

import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { scratch } from './files.js';
import { eventually } from './polling.js';

const VARIABLE = 'CHANGEOVER_TEST_ENTERED';

export interface HeldInit {
  untilEntered(): Promise<void>;
  /** Lets it return, and every later one. */
  release(): Promise<void>;
}

/**
 * Holds every `handler_init` of `slow_init` from now on. For serial tests only, since the
 * environment is the whole process's. Call it after the registry is opened: teardowns run in
 * reverse order, so it is released before the registry closes.
 */
export async function holdInit(t: ExecutionContext): Promise<HeldInit> {
  const directory = await scratch(t);
  const entered = join(directory, 'entered');
  process.env[VARIABLE] = entered;
  const release = async () => {
    delete process.env[VARIABLE];
    // Directory and all: an init that has read the variable already can no longer create its file,
    // and is not held.
    await rm(directory, { recursive: true, force: true });
  };
  t.teardown(release);
  return {
    untilEntered: async () => {
      await eventually(
        () => existsSync(entered),
        (exists) => exists,
        'handler_init is entered',
      );
    },
    release,
  };
}
