/** What callers may keep of versions that have retired: handles, reports and guards, which must be small. */

import { queryObjects } from 'node:v8';
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

test('a handle of a retired version holds nothing of what executed its requests', async (t) => {
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
});
