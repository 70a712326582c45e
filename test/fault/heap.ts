/**
 * A lane's JavaScript heap runs out while it has a request. What it is made to remember is the one thing that a lane keeps by request:
 * shared buffers, each of which it knows by its address once a request has brought it.
 */

import { writeFile } from 'node:fs/promises';
import { fixture } from '../../fixtures/paths.js';
import type { LoadOptions, RegistryOptions } from '../../src/index.js';
import {
  ask,
  type Closing,
  finish,
  given,
  open,
  recover,
  say,
  tell,
  untilRunning,
} from './backend.js';

const { path, options, ...closing } = given<{ path: string; options: RegistryOptions } & Closing>();
/** More than fit into what a lane leaves free of the heap below, on every version of Node. */
const BUFFERS = 40_000;
const LOAD: LoadOptions = {
  // Starting a lane takes up to 8 MiB: with just these some starts fail on Node 24.
  resourceLimits: { maxOldGenerationSizeMb: 10, maxYoungGenerationSizeMb: 1 },
  // The lanes that follow are each told of all of them, which takes long.
  crashLoopAfter: 2,
  loadTimeoutMs: 60_000,
  maxInFlight: BUFFERS + 100,
  defaultTimeoutMs: Number.POSITIVE_INFINITY,
};

const sharedBytes = () => new Uint8Array(new SharedArrayBuffer(8));

const registry = open(options);
await registry.loadFrom('x', fixture('own_process'), LOAD);
await registry.loadFrom('other', fixture('echo'));
registry.once('laneExited', ({ error }) =>
  tell({ type: 'said', what: 'laneExited', fields: { cause: (error as { code?: unknown }).code } }),
);

// While the lane is in a call, it reads nothing. Nobody waits for these requests any more when it comes to them.
const gate = `${path}.gate`;
const running = ask('running', registry.execute('x', {}, `wait ${gate}`));
await untilRunning(registry);
const buffers = Array.from({ length: BUFFERS }, sharedBytes);
// A signal each: one takes off each of its listeners by looking through all of them.
const flood = buffers.map((bytes) => {
  const givenUp = new AbortController();
  const answer = registry.execute('x', {}, bytes, givenUp).catch(() => undefined);
  return { givenUp, answer };
});
for (const { givenUp } of flood) givenUp.abort();
await Promise.all(flood.map(({ answer }) => answer));
const bad = ask('bad', registry.execute('x', {}, sharedBytes()));
const others = [
  ...['1', '2', '3', '4'].map((text) => ask('behind', registry.execute('x', {}, text))),
  ...['5', '6'].map((text) => ask('elsewhere', registry.execute('other', {}, text))),
];
await writeFile(`${gate}.open`, '');
await running;
await bad;
// A lane that takes its place is told of every buffer that is still there, and ends as this one did. A new version knows none of them.
await Promise.all(others);
tell({ type: 'said', what: 'kept', fields: { buffers: buffers.length } });
const { drained } = await registry.swapGraceful('x', fixture('own_process'), undefined, LOAD);
await recover(registry, 'x');
// What is left of them takes its time, with so much to tell each lane; closing has little of it.
await Promise.all([drained, registry.unload('other')]);
await say('unload', registry.unload('x', { drainTimeoutMs: 0 }));
await finish(registry, closing);
