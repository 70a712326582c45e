/** Private copies that cannot be removed: the load's own outcome is what counts. */

import { readdir } from 'node:fs/promises';
import { basename } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { deferred } from '../src/deferred.js';
import { LibraryStore, type PrivateCopy } from '../src/library/store.js';
import { failure } from './support/outcomes.js';
import { onLinuxAlone } from './support/process.js';
import { openRegistry } from './support/registry.js';
import { captureWarnings } from './support/warnings.js';

/**
 * Has copies go through `change` until the test is over, when those that could not be removed are.
 */
function changeCopies(
  t: ExecutionContext,
  change: (copy: PrivateCopy) => Promise<PrivateCopy>,
): void {
  const { copyAs } = LibraryStore.prototype;
  const made: PrivateCopy[] = [];
  t.teardown(async () => {
    LibraryStore.prototype.copyAs = copyAs;
    for (const copy of made) await copy.remove();
  });
  LibraryStore.prototype.copyAs = async function (this: LibraryStore, ...given) {
    const copy = await copyAs.apply(this, given);
    made.push(copy);
    return change(copy);
  };
}

function unremovable(copy: PrivateCopy): PrivateCopy {
  return { ...copy, remove: () => Promise.reject(new Error(`EIO: unlink ${copy.path}`)) };
}

function warningsOf(t: ExecutionContext) {
  return captureWarnings(t, ({ message }) => /left something behind: Error: EIO/.test(message));
}

test.serial('a copy that nobody waits for any more and that cannot be removed', async (t) => {
  const { registry } = await openRegistry(t);
  const warnings = warningsOf(t);
  const { promise: written, resolve: isWritten } = deferred<void>();
  const { promise: gate, resolve: open } = deferred<void>();
  changeCopies(t, async (copy) => {
    isWritten();
    await gate;
    return unremovable(copy);
  });
  const outcome = failure(registry.load('echo'));
  await written;
  const closing = registry.close();

  t.deepEqual(await outcome, { code: 'ERR_HANDLER_CLOSED' });
  open();
  t.deepEqual((await closing).leftBehind, []);
  t.regex((await warnings.first()).message, /libhandler_echo/);
});

test.serial('closing waits for a copy that is still being written', async (t) => {
  const { registry, cacheDir } = await openRegistry(t, { cancelGraceMs: 60_000 });
  const { promise: written, resolve: isWritten } = deferred<void>();
  const { promise: gate, resolve: open } = deferred<void>();
  changeCopies(t, async (copy) => {
    isWritten();
    await gate;
    return copy;
  });
  const outcome = failure(registry.load('echo'));
  await written;
  let isClosed = false;
  const closing = registry.close().finally(() => {
    isClosed = true;
  });
  t.deepEqual(await outcome, { code: 'ERR_HANDLER_CLOSED' });
  // More than one turn of the event loop, which is all that closing would need.
  for (let turn = 0; turn < 100; turn++) await setImmediate();
  t.false(isClosed);
  open();
  t.deepEqual((await closing).leftBehind, []);
  t.deepEqual(await readdir(cacheDir), []);
});

onLinuxAlone('a copy that cannot be removed hides no error, and holds no other copy', async (t) => {
  const { registry, cacheDir } = await openRegistry(t);
  const warnings = warningsOf(t);
  changeCopies(t, async (copy) => (/brought/.test(copy.path) ? unremovable(copy) : copy));
  const check = () => {
    throw new Error('no');
  };
  const preflight = { selfTest: { request: '', check } };

  t.deepEqual(await failure(registry.load('brings', { preflight }), 'step'), {
    code: 'ERR_HANDLER_PREFLIGHT',
    step: 'self-test',
  });

  await warnings.first();
  const files = await readdir(cacheDir, { recursive: true });
  const left = files.filter((path) => /\.so/.test(path)).map((path) => basename(path));
  t.is(left.length, 1);
  t.regex(left[0] ?? '', /brought/);
});
