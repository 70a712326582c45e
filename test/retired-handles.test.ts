/** What callers may keep of versions that have retired: handles, reports and guards, which must be small. */

import { setImmediate } from 'node:timers/promises';
import { queryObjects, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import { Dispatcher } from '../src/dispatcher.js';
import { Lanes } from '../src/lanes.js';
import { RingProducer } from '../src/ring/producer.js';
import { rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { openRegistry } from './support/registry.js';
import { captureWarnings } from './support/warnings.js';

/** What a version takes memory for: objects of this process that can be reached. */
const machinery = () =>
  [RingProducer, Dispatcher, Lanes].map((kind) => queryObjects(kind as never, { format: 'count' }));

test.serial(
  'a handle of a retired version holds nothing of what executed its requests',
  async (t) => {
    const isOfQuery = ({ name, message }: Error) =>
      name === 'ExperimentalWarning' && message.includes('queryObjects');
    captureWarnings(t, isOfQuery);
    const { registry } = await openRegistry(t, { preflight: false });
    const kept: unknown[] = [];
    let last = await registry.loadFrom('x', fixture('echo'));
    const before = machinery();
    for (let swap = 0; swap < 4; swap++) {
      const guard = last.acquireRequest();
      const response = await last.execute({}, new Uint8Array(100_000));
      guard?.release();
      const { drained } = await registry.swapGraceful('x', fixture('echo'));
      kept.push(last, guard, response, drained, await drained);
      t.is(last.state, 'retired');
      last = registry.get('x') ?? last;
    }
    await eventually(machinery, (counts) => String(counts) === String(before));

    const [handle] = kept as [typeof last];
    t.like(handle, { id: 'x', version: 1, state: 'retired', draining: false, activeRequests: 0 });
    t.regex(handle.sha256, /^[0-9a-f]{64}$/);
    t.deepEqual([handle.patches, handle.sharedStatics], [[], null]);
    t.is(handle.acquireRequest(), null);
    t.like(await rejection(handle.execute({}, 'x')), { code: 'ERR_HANDLER_NOT_LOADED' });
  },
);

test.serial(
  'shared buffers that are collected while their version retires are nobody’s concern',
  async (t) => {
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    const { registry } = await openRegistry(t, { threads: 1, preflight: false });
    const version = await registry.loadFrom('x', fixture('echo'));
    const buffers = Array.from({ length: 400 }, () => new SharedArrayBuffer(8192));
    for (const buffer of buffers) await version.execute({}, new Uint8Array(buffer));
    const unloaded = registry.unload('x');
    // One in each turn, so that one is in the turn in which it retires.
    while (version.state !== 'retired' && buffers.length > 0) {
      buffers.pop();
      collectGarbage();
      await setImmediate();
    }
    await unloaded;
    t.is(version.state, 'retired');
    t.true(buffers.length > 0, 'there was one for each turn');
    // What fails in a finalizer fails as an uncaught exception.
    await setImmediate();
  },
);
