/** Lanes that are replaced although nothing is wrong with them: no request notices. */

import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { HandlerRegistry, RegistryOptions } from '../../src/index.js';
import { outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { onLinux } from '../support/process.js';
import { activeStats, openRegistry } from '../support/registry.js';
import { fileGate, isAlive, MODES, pidOf, untilDead } from './helpers.js';

const MIB = 1024 * 1024;
const RECYCLED = 4;

interface Scene {
  registry: HandlerRegistry;
  /** Why lanes were replaced, so far. */
  reasons: string[];
}

async function scene(t: ExecutionContext, options: RegistryOptions): Promise<Scene> {
  const { registry } = await openRegistry(t, { preflight: false, ...options });
  const reasons: string[] = [];
  registry.on('laneRecycled', ({ reason }) => reasons.push(reason));
  await registry.load('own_process');
  return { registry, reasons };
}

/** Sends requests until lanes have been replaced often enough, or `patienceMs` have passed. */
async function loadUntilRecycled({ registry, reasons }: Scene): Promise<string[]> {
  const wrong: string[] = [];
  const callers = Array.from({ length: 8 }, async (_, caller) => {
    for (let count = 0; reasons.length < RECYCLED; count++) {
      const text = `${caller}.${count}`;
      const said = await outcome(registry.execute('own_process', {}, text));
      if (said !== text) wrong.push(said);
    }
  });
  await Promise.all(callers);
  return wrong;
}

for (const isolation of MODES) {
  for (const [threads, maxStuckLanes] of [
    [1, 2],
    [2, 0],
  ] as const) {
    test(`${isolation}: after so many requests, ${threads} lanes`, async (t) => {
      const options = { isolation, threads, maxStuckLanes, recycleAfterRequests: 50 };
      const it = await scene(t, options);
      const before = activeStats(it.registry, 'own_process').processIds;
      t.deepEqual(await loadUntilRecycled(it), []);
      t.deepEqual([...new Set(it.reasons)], ['requests']);
      // The worn ones leave, and as many serve as should.
      await eventually(
        () => activeStats(it.registry, 'own_process').lanes,
        ({ starting, serving }) => starting === 0 && serving === threads,
      );
      if (isolation === 'process') await untilDead(before);
    });
  }

  test(`${isolation}: after some time, with and without requests`, async (t) => {
    const it = await scene(t, { isolation, recycleAfterMs: 100 });
    t.deepEqual(await loadUntilRecycled(it), []);
    const count = it.reasons.length;
    await eventually(
      () => it.reasons.length,
      (now) => now > count + 1,
    );
    t.deepEqual([...new Set(it.reasons)], ['age']);
    t.is(await outcome(it.registry.execute('own_process', {}, 'x')), 'x');
  });

  test(`${isolation}: a lane that is busy leaves when its request is done`, async (t) => {
    const it = await scene(t, { isolation, recycleAfterMs: 200 });
    const gate = await fileGate(t);
    const running = outcome(it.registry.execute('own_process', {}, gate.request));
    await gate.started();
    await eventually(
      () => it.reasons.length,
      (count) => count >= 1,
    );
    t.is(await outcome(it.registry.execute('own_process', {}, 'x')), 'x');
    await gate.open();
    t.is(await running, 'released');
  });
}

onLinux(
  'replacements that cannot start: the worn lanes serve on, until it works again',
  async (t) => {
    const options: RegistryOptions = { isolation: 'process', preflight: false, crashLoopAfter: 1 };
    const { registry, cacheDir } = await openRegistry(t, { ...options, recycleAfterMs: 50 });
    await registry.load('own_process');
    const files = await readdir(cacheDir, { recursive: true });
    const copy = join(cacheDir, files.find((name) => name.endsWith('.so')) ?? '');
    await rename(copy, `${copy}.away`);
    const failed: unknown[] = [];
    const loops: unknown[] = [];
    registry.on('laneExited', ({ error }) => failed.push(error));
    registry.on('crashLoop', (loop) => loops.push(loop));
    // What is answered in between makes no difference.
    while (failed.length < 3) t.is(await outcome(registry.execute('own_process', {}, 'x')), 'x');
    t.is(activeStats(registry, 'own_process').refusing, null);
    t.deepEqual(loops, []);
    const recycled: unknown[] = [];
    registry.once('laneRecycled', ({ reason }) => recycled.push(reason));
    await rename(`${copy}.away`, copy);
    // Not by the event alone: nothing keeps this process alive until it comes.
    await eventually(
      () => recycled,
      (reasons) => reasons.length > 0,
    );
    t.deepEqual(recycled, ['age']);
    t.is(await outcome(registry.execute('own_process', {}, 'x')), 'x');
  },
);

onLinux('a process that has grown too large is replaced between two requests', async (t) => {
  const it = await scene(t, { isolation: 'process', maxRssBytes: 160 * MIB });
  const { registry, reasons } = it;
  const pid = await pidOf(registry, 'own_process');
  t.is(await outcome(registry.execute('own_process', {}, 'leak 10')), 'leaked');
  t.is(Number(await outcome(registry.execute('own_process', {}, 'pid'))), pid);
  t.is(await outcome(registry.execute('own_process', {}, 'leak 200')), 'leaked');
  await untilDead([pid]);
  t.deepEqual(reasons, ['memory']);
  // It has begun anew: statics are those of a new library.
  t.is(await outcome(registry.execute('own_process', {}, 'count')), '1');
  t.true(await isAlive(await pidOf(registry, 'own_process')));
});
