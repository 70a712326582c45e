/**
 * Two hundred graceful swaps while requests keep coming. Not one of them fails, each is answered by one
 * version entirely, and in the end the process holds no more than in the beginning.
 */

import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { DrainReport, HandlerRegistry } from '../src/index.js';
import { copiesIn, copyOf, scratch } from './support/files.js';
import { needs } from './support/needs.js';
import { eventually } from './support/polling.js';
import { descriptorCount, mappedIn, threadCount } from './support/process.js';
import { openRegistry } from './support/registry.js';

const SWAPS = 200;
const OUTSTANDING = 32;
const WARM_UP_SWAPS = 3;

/** They count what the whole process holds, so each runs while the other does not. */
const aloneOnLinux = needs('Linux', process.platform === 'linux', test.serial);

/** Odd versions are built from A, even ones from B. */
function tagOf(version: number): 'A' | 'B' {
  return version % 2 === 1 ? 'A' : 'B';
}

/** Requests that are sent one after the other, as many at once as are outstanding. */
class Load {
  answered = 0;
  readonly versions = new Set<number>();
  readonly wrong: unknown[] = [];
  readonly #callers: Promise<void>[];
  #stopping = false;

  constructor(registry: HandlerRegistry) {
    this.#callers = Array.from({ length: OUTSTANDING }, (_, caller) =>
      this.#call(registry, caller),
    );
  }

  async #call(registry: HandlerRegistry, caller: number): Promise<void> {
    for (let count = 0; !this.#stopping; count++) {
      // From empty to several times a slot's room, so that every way there is gets used.
      const text = `${caller}.${count} `.repeat((caller * 97 + count) % 700);
      try {
        const response = await registry.execute('x', { requestId: `${caller}` }, text);
        this.answered += 1;
        this.versions.add(response.version);
        if (response.text() !== `${tagOf(response.version)}:${text}`) {
          this.wrong.push({ version: response.version, got: response.text().slice(0, 40) });
        }
      } catch (error) {
        this.wrong.push(error);
        // Without a version every call fails at once, and a caller that went on would leave nobody else a turn.
        return;
      }
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#callers);
  }
}

/** Puts the library of `version` in place: at the same path in two ways, and at a new one. */
async function deploy(directory: string, version: number): Promise<string> {
  const id = tagOf(version) === 'A' ? 'version_a' : 'version_b';
  const samePath = join(directory, 'libhandler_x.so');
  switch (version % 3) {
    case 0:
      return copyOf(id, samePath);
    case 1:
      await rename(await copyOf(id, `${samePath}.next`), samePath);
      return samePath;
    default:
      return copyOf(id, join(directory, `libhandler_x-${version}.so`));
  }
}

aloneOnLinux(`${SWAPS} graceful swaps under load`, async (t) => {
  t.timeout(180_000);
  const directory = await scratch(t);
  const { registry, cacheDir } = await openRegistry(t, { threads: 1, preflight: false });
  const reports: DrainReport[] = [];
  const failedDrains: unknown[] = [];
  registry.on('retired', ({ report }) => reports.push(report));
  await registry.loadFrom('x', await deploy(directory, 1));
  const load = new Load(registry);
  let version = 1;
  // Each version is replaced only once it has answered: a busy machine would else replace some that no request ever reached.
  const versionAnswers = () =>
    eventually(
      () => load.versions.has(version) || load.wrong.length > 0,
      Boolean,
      `version ${version} answers`,
    );
  const swapNext = async () => {
    await versionAnswers();
    version += 1;
    const path = await deploy(directory, version);
    const { swapped, drained } = await registry.swapGraceful('x', path);
    t.true(swapped);
    drained?.catch((error) => failedDrains.push(error));
    // A swap is faster than the retirement of what it replaced; there is a limit to how many may drain.
    await eventually(
      () => registry.drainingCount,
      (count) => count < 4,
    );
  };
  const allRetired = () =>
    eventually(
      () => registry.drainingCount,
      (count) => count === 0,
    );

  for (let count = 0; count < WARM_UP_SWAPS; count++) await swapNext();
  await allRetired();
  const threads = await threadCount();
  const descriptors = await descriptorCount();

  for (let count = 0; count < SWAPS; count++) await swapNext();
  await versionAnswers();
  await allRetired();
  await load.stop();

  t.deepEqual(load.wrong, [], 'no request failed, and none was answered by two versions');
  t.is(load.versions.size, SWAPS + WARM_UP_SWAPS + 1, 'every version answered');
  t.log(`${load.answered} requests answered`);
  t.deepEqual(failedDrains, []);
  t.is(reports.length, SWAPS + WARM_UP_SWAPS);
  for (const report of reports) {
    t.like(report, { dropped: 0, abandoned: 0, library: 'unloaded' });
  }

  const stats = registry.stats();
  t.like(stats, { drainingCount: 0, drainingRequests: 0, activeRequests: 0 });
  t.is(stats.endpoints[0]?.versions.length, 1);
  t.is((await copiesIn(cacheDir)).length, 1, "only the active version's copy is there");
  t.is((await mappedIn(cacheDir)).length, 1, 'and only it is mapped');
  t.deepEqual(await mappedIn(directory), [], 'no source ever was');
  await eventually(threadCount, (count) => count <= threads);
  await eventually(descriptorCount, (count) => count <= descriptors);
});

aloneOnLinux(
  'the same with immediate swaps: dropped or answered, and nothing is left',
  async (t) => {
    t.timeout(120_000);
    const { registry, cacheDir } = await openRegistry(t, { preflight: true });
    const endings = { answered: 0, dropped: 0, other: [] as unknown[] };
    let stopping = false;
    await registry.loadFrom('x', fixture('version_a'));
    const call = async () => {
      while (!stopping) {
        try {
          const response = await registry.execute('x', {}, 'text');
          const right = response.text() === `${tagOf(response.version)}:text`;
          if (right) endings.answered += 1;
          else endings.other.push(response.text());
        } catch (error) {
          const { code, reason } = error as { code: string; reason: string };
          if (code === 'ERR_HANDLER_DROPPED' && reason === 'swap') endings.dropped += 1;
          else endings.other.push(error);
        }
      }
    };
    const callers = Array.from({ length: OUTSTANDING }, call);
    for (let version = 2; version <= 20; version++) {
      const path = fixture(tagOf(version) === 'A' ? 'version_a' : 'version_b');
      const { answered } = endings;
      await eventually(
        () => endings.answered > answered || endings.other.length > 0,
        Boolean,
        'a request is answered',
      );
      const { drained } = await registry.swap('x', path);
      await drained;
    }
    stopping = true;
    await Promise.all(callers);
    t.deepEqual(endings.other, []);
    await eventually(
      () => registry.drainingCount,
      (count) => count === 0,
    );
    t.is(registry.stats().activeRequests, 0);
    t.is((await mappedIn(cacheDir)).length, 1);
    t.is((await copiesIn(cacheDir)).length, 1);
  },
);
