/** Libraries that are refused: what the caller is told, and that nothing else notices. */

import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import {
  AbiMismatchError,
  type HandlerError,
  InitFailedError,
  LibraryInvalidError,
  LibraryNotFoundError,
  LoadError,
  LoadTimeoutError,
  MissingDependencyError,
  MissingSymbolError,
} from '../src/index.js';
import { isPrepareThread } from '../src/library/prepare/prepare-thread.js';
import { copiesIn, copyOf, scratch } from './support/files.js';
import { gate } from './support/gate.js';
import { holdInit } from './support/held-init.js';
import { outcome, rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { threadCount } from './support/process.js';
import { openRegistry } from './support/registry.js';

interface Refusal {
  /** Makes the file in an empty directory, or names a fixture. */
  path(directory: string): Promise<string>;
  error: new (...parts: never[]) => HandlerError;
  fields: Record<string, unknown>;
  /** How many lanes find out without pre-flight; one if left out. */
  lanes?: number;
}

const ofFixture = (id: string) => async () => fixture(id);

async function written(directory: string, bytes: Uint8Array | string): Promise<string> {
  const path = join(directory, 'libhandler_x.so');
  await writeFile(path, bytes);
  return path;
}

const REFUSALS: Record<string, Refusal> = {
  'another ABI version': {
    path: ofFixture('wrong_abi'),
    error: AbiMismatchError,
    fields: { code: 'ERR_HANDLER_ABI_MISMATCH', expected: 1, actual: 2 },
    lanes: 2,
  },
  'no handler_entry': {
    path: ofFixture('missing_entry'),
    error: MissingSymbolError,
    fields: { code: 'ERR_HANDLER_MISSING_SYMBOL', symbol: 'handler_entry' },
  },
  'no handler_abi_version': {
    path: ofFixture('missing_abi'),
    error: MissingSymbolError,
    fields: { code: 'ERR_HANDLER_MISSING_SYMBOL', symbol: 'handler_abi_version' },
  },
  'a handler_init that fails': {
    path: ofFixture('failing_init'),
    error: InitFailedError,
    fields: { code: 'ERR_HANDLER_INIT_FAILED', handlerCode: 13, handlerMessage: 'no licence' },
    lanes: 2,
  },
  'a missing library': {
    path: ofFixture('missing_dependency'),
    error: MissingDependencyError,
    fields: { code: 'ERR_HANDLER_MISSING_DEPENDENCY' },
  },
  'a missing function': {
    path: ofFixture('missing_function'),
    error: MissingDependencyError,
    fields: { code: 'ERR_HANDLER_MISSING_DEPENDENCY' },
  },
  'no file': {
    path: async (directory) => join(directory, 'libhandler_x.so'),
    error: LibraryNotFoundError,
    fields: { code: 'ERR_HANDLER_LIBRARY_NOT_FOUND' },
  },
  'no directory': {
    path: async (directory) => join(directory, 'nowhere', 'libhandler_x.so'),
    error: LibraryNotFoundError,
    fields: { code: 'ERR_HANDLER_LIBRARY_NOT_FOUND' },
  },
  'a directory': {
    path: async (directory) => {
      const path = join(directory, 'libhandler_x.so');
      await mkdir(path);
      return path;
    },
    error: LibraryInvalidError,
    fields: { code: 'ERR_HANDLER_LIBRARY_INVALID', defect: 'not-a-file' },
  },
  'an empty file': {
    path: (directory) => written(directory, ''),
    error: LibraryInvalidError,
    fields: { code: 'ERR_HANDLER_LIBRARY_INVALID', defect: 'not-a-library' },
  },
  'a text file': {
    path: (directory) => written(directory, 'this is not a library\n'.repeat(1000)),
    error: LibraryInvalidError,
    fields: { code: 'ERR_HANDLER_LIBRARY_INVALID', defect: 'not-a-library' },
  },
  'a truncated library': {
    path: async (directory) => {
      const whole = await readFile(fixture('echo'));
      return written(directory, whole.subarray(0, Math.floor(whole.length * 0.6)));
    },
    error: LibraryInvalidError,
    fields: { code: 'ERR_HANDLER_LIBRARY_INVALID', defect: 'truncated' },
  },
};

/** By a child process, which is the default, and by the lanes. */
const WAYS = ['pre-flight', 'lanes'] as const;

for (const [what, refusal] of Object.entries(REFUSALS)) {
  const { path: makePath, error: ErrorClass, fields, lanes = 1 } = refusal;

  test(`${what}: refused, with and without pre-flight, and the active version serves on, untouched`, async (t) => {
    // An id is forgotten once what its load has started is gone, which may take a busy machine long.
    const { registry, cacheDir } = await openRegistry(t, { cancelGraceMs: 20_000 });
    const path = await makePath(await scratch(t));
    // Only for what is refused: the versions that are not have one lane and no pre-flight.
    const ways = WAYS.map((way) => ({
      way,
      options: way === 'lanes' ? { preflight: false, threads: lanes } : { preflight: true },
    }));
    const failures: unknown[] = [];
    registry.on('loadFailed', (details) => failures.push(details));

    for (const { way, options } of ways) {
      const first = await rejection(registry.loadFrom('x', path, options));
      t.true(first instanceof ErrorClass && first instanceof LoadError, way);
      t.like(first, { ...fields, path, endpoint: 'x', version: 1 }, way);
      t.is((first as HandlerError).name, ErrorClass.name, way);
      t.deepEqual(registry.stats().endpoints, [], 'ids that never loaded do not pile up');
      t.deepEqual(failures.splice(0), [{ endpoint: 'x', version: 1, path, error: first }], way);
    }

    const active = await registry.loadFrom('x', fixture('version_a'));
    for (const { way, options } of ways) {
      for (const replace of [
        () => registry.loadFrom('x', path, options),
        () => registry.swap('x', path, options),
        () => registry.swapGraceful('x', path, 0, options),
      ]) {
        const refused = rejection(replace());
        const meanwhile = await outcome(registry.execute('x', {}, 'meanwhile'));
        t.like(await refused, { ...fields, path }, way);
        t.is(meanwhile, 'A:meanwhile', way);
        t.is(registry.get('x'), active, way);
        t.is(active.state, 'active', way);
        t.is(registry.drainingCount, 0, way);
        t.is(await outcome(active.execute({}, 'after')), 'A:after', way);
      }
      t.is((await copiesIn(cacheDir)).length, 1, `the active version's copy, ${way}`);
    }
    t.is((await registry.loadFrom('x', fixture('version_b'))).state, 'active');
    t.is(await outcome(registry.execute('x', {}, 'x')), 'B:x');
  });
}

test('a refused swap drops nothing, immediate as it would have been', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  await registry.load('gate');
  const held = [gate(t), gate(t)];
  const requests = held.map(({ request }) => registry.execute('gate', {}, request));
  await held[0]?.untilEntered();
  await rejection(registry.swap('gate', fixture('failing_init')));
  t.is(registry.get('gate')?.activeRequests, 2);
  for (const gate of held) gate.open();
  t.deepEqual(await Promise.all(requests.map(outcome)), ['released', 'released']);
});

test('a version is active only when every lane has loaded it', async (t) => {
  const { registry } = await openRegistry(t, { threads: 4, preflight: true });
  const seen: unknown[] = [];
  registry.on('loaded', ({ endpoint }) => {
    seen.push(registry.endpoint(endpoint).stats()?.versions[0]?.lanes);
  });
  await registry.load('echo');
  await registry.load('echo');
  t.deepEqual(seen, Array(2).fill({ starting: 0, serving: 4, stuck: 0 }));
});

// Serial: the environment is the whole process's.
test.serial('a load that takes too long fails, and undoes itself when it can', async (t) => {
  const { registry, cacheDir } = await openRegistry(t);
  const init = await holdInit(t);
  const path = fixture('slow_init');
  const active = await registry.loadFrom('x', fixture('version_a'), { cancelGraceMs: 1 });
  const error = await rejection(
    registry.loadFrom('x', path, { loadTimeoutMs: 100, preflight: false }),
  );
  t.true(error instanceof LoadTimeoutError);
  t.like(error, { code: 'ERR_HANDLER_LOAD_TIMEOUT', timeoutMs: 100, path, endpoint: 'x' });
  t.is(registry.get('x'), active);
  t.is(await outcome(registry.execute('x', {}, 'x')), 'A:x');
  await init.release();
  await eventually(
    () => copiesIn(cacheDir),
    (copies) => copies.length === 1,
  );
});

test('without any grace, a refused load still says why', async (t) => {
  const { registry } = await openRegistry(t, { cancelGraceMs: 0, preflight: false });
  t.like(await rejection(registry.load('wrong_abi')), { code: 'ERR_HANDLER_ABI_MISMATCH' });
  t.like(await rejection(registry.load('failing_init')), { code: 'ERR_HANDLER_INIT_FAILED' });
  await registry.load('echo');
});

test('ids that never loaded do not pile up, also when asked at once', async (t) => {
  const { registry, cacheDir } = await openRegistry(t, { preflight: true });
  const ids = Array.from({ length: 50 }, (_, index) => `none-${index}`);
  const attempts = ids.flatMap((id) => [registry.load(id), registry.load(id)]);
  for (const attempt of await Promise.allSettled(attempts)) t.is(attempt.status, 'rejected');
  t.deepEqual(registry.stats().endpoints, []);
  t.is(registry.count, 0);
  await registry.load('echo');
  t.is((await copiesIn(cacheDir)).length, 1);
});

test('a file that grows while it is loaded is loaded as it was, or refused', async (t) => {
  const { registry } = await openRegistry(t, { preflight: true });
  const path = await copyOf('version_a', join(await scratch(t), 'libhandler_x.so'));
  const loading = registry.loadFrom('x', path).then(
    () => 'loaded',
    (error) => error.code,
  );
  await appendFile(path, 'more');
  t.regex(await loading, /^(loaded|ERR_HANDLER_LIBRARY_INVALID)$/);
});

test.serial('loads that are refused leave no thread behind', async (t) => {
  if (process.platform !== 'linux') {
    t.pass();
    return;
  }
  const { registry } = await openRegistry(t, { threads: 2, preflight: false });
  await rejection(registry.loadFrom('x', fixture('wrong_abi')));
  const before = await threadCount();
  for (let round = 0; round < 5; round++) {
    await rejection(registry.loadFrom('x', fixture('wrong_abi')));
    await rejection(registry.loadFrom('x', fixture('failing_init')));
  }
  await eventually(threadCount, (threads) => threads <= before);
  t.pass();
});

// Serial: nobody else starts threads meanwhile.
test.serial(
  'threads are started one in a turn of the event loop, which each of them holds up',
  async (t) => {
    let turn = 0;
    let counting = true;
    const count = () => {
      turn += 1;
      if (counting) setImmediate(count);
    };
    const startedIn: number[] = [];
    const started = (worker: Worker) => {
      if (!isPrepareThread(worker)) startedIn.push(turn);
    };
    process.on('worker', started);
    t.teardown(() => {
      counting = false;
      process.off('worker', started);
    });
    count();
    const { registry } = await openRegistry(t, { threads: 4 });
    await registry.load('echo');
    t.is(startedIn.length, 4);
    t.is(new Set(startedIn).size, 4);
  },
);
