/**
 * Random sequences of everything that can be done to a registry, against a model of it, with the real thing: real
 * libraries, threads and swaps. After every step, what must always hold does (see docs/promises.md).
 *
 * `CHANGEOVER_RUNS` says how many sequences (default 15), `CHANGEOVER_SEED` which. A failure says its seed.
 */

import test from 'ava';
import fc from 'fast-check';
import { fixturesDir } from '../../fixtures/paths.js';
import { HandlerRegistry } from '../../src/index.js';
import { scratch } from '../support/files.js';
import { turns } from '../support/polling.js';
import { BROKEN, LANES, type Library, MAX_DRAINING, World } from './world.js';

type Model = Record<string, never>;

/** One thing that can be done; where it cannot be, it is left out. */
class Step implements fc.AsyncCommand<Model, World> {
  constructor(
    readonly name: string,
    readonly possible: (world: World) => boolean,
    readonly act: (world: World) => void | Promise<void>,
  ) {}

  check(): boolean {
    return true;
  }

  async run(_model: Model, world: World): Promise<void> {
    if (!this.possible(world)) return;
    await this.act(world);
    await world.check();
  }

  toString(): string {
    return this.name;
  }
}

const ids = fc.constantFrom('one', 'two');
const libraries = fc.constantFrom<Library>('version_a', 'version_b', 'gate', 'gate');
const always = () => true;

const replacing = fc
  .tuple(ids, libraries, fc.constantFrom('load', 'swap', 'swapGraceful'))
  .map(
    ([id, library, how]) =>
      new Step(`${how} ${id} ${library}`, always, (world) => world.replace(id, library, how)),
  );

const failing = fc
  .tuple(ids, fc.constantFrom(...(Object.keys(BROKEN) as (keyof typeof BROKEN)[])))
  .map(
    ([id, library]) =>
      new Step(`load ${id} ${library}`, always, (world) => world.failToLoad(id, library)),
  );

const unloading = fc.tuple(ids, fc.constantFrom(0, undefined)).map(
  ([id, drainTimeoutMs]) =>
    new Step(
      `unload ${id} ${drainTimeoutMs ?? ''}`,
      (world) => world.isLoaded(id),
      (world) => world.unload(id, drainTimeoutMs),
    ),
);

const executing = fc
  .tuple(ids, fc.constantFrom(undefined, undefined, 5), fc.integer({ min: 1, max: 40 }))
  .map(
    ([id, timeoutMs, count]) =>
      new Step(
        `execute ${id} ${count} times ${timeoutMs ?? ''}`,
        (world) => world.isLoaded(id),
        (world) => {
          for (let index = 0; index < count; index++) world.execute(id, timeoutMs);
        },
      ),
  );

const aborting = fc.nat().map(
  (which) =>
    new Step(
      `abort ${which}`,
      (world) => world.requests.length > 0,
      (world) => {
        const request = world.requests[which % world.requests.length];
        if (request !== undefined) world.abort(request);
      },
    ),
);

const opening = fc.integer({ min: 1, max: 20 }).map(
  (count) =>
    new Step(`open ${count} gates`, always, (world) => {
      for (const gate of world.closedGates().slice(0, count)) gate.open();
    }),
);

const guarding = ids.map(
  (id) =>
    new Step(
      `acquire ${id}`,
      (world) => world.isLoaded(id),
      (world) => world.acquire(id),
    ),
);

const releasing = fc.constant(
  new Step(
    'release',
    (world) => world.holdsGuards,
    (world) => world.release(),
  ),
);

const crashing = fc.nat().map(
  (which) =>
    new Step(
      `crash ${which}`,
      (world) => world.idle,
      (world) => world.crash(which),
    ),
);

const passing = fc
  .integer({ min: 1, max: 30 })
  .map((count) => new Step(`${count} turns`, always, () => turns(count)));

test('any sequence of operations', async (t) => {
  const numRuns = Number(process.env['CHANGEOVER_RUNS'] ?? 15);
  const seed = Number(process.env['CHANGEOVER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.timeout(120_000 + numRuns * 10_000);
  t.log(`CHANGEOVER_SEED=${seed} CHANGEOVER_RUNS=${numRuns}`);
  const commands = fc.commands(
    [
      replacing,
      replacing,
      executing,
      executing,
      executing,
      opening,
      aborting,
      unloading,
      failing,
      guarding,
      releasing,
      crashing,
      passing,
    ],
    { maxCommands: 30, size: 'max' },
  );
  const cacheDir = await scratch(t);
  let requests = 0;
  await fc.assert(
    fc.asyncProperty(commands, async (sequence) => {
      const registry = new HandlerRegistry({
        handlersDir: fixturesDir,
        cacheDir,
        threads: LANES,
        maxInFlight: 16,
        maxDrainingVersions: MAX_DRAINING,
        cancelGraceMs: 60_000,
        defaultTimeoutMs: Number.POSITIVE_INFINITY,
        drainTimeoutMs: 3_600_000,
        // A busy machine may take longer than users would wait.
        loadTimeoutMs: 60_000,
        closeTimeoutMs: 60_000,
      });
      const world = new World(registry, cacheDir);
      try {
        await fc.asyncModelRun(() => ({ model: {}, real: world }), sequence);
      } finally {
        await world.end();
      }
      requests += world.requests.length;
    }),
    { numRuns, seed, interruptAfterTimeLimit: 90_000 + numRuns * 10_000 },
  );
  t.log(`${requests} requests`);
  t.pass();
});
