/**
 * A version is a whole of its own: its statics and what it brings along are not those of another
 * version, and all of it can be unloaded.
 */

import {
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  realpath,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { languageFlags, runCompiler } from '../fixtures/compile.js';
import { fixture } from '../fixtures/paths.js';
import type { DrainReport, HandlerRegistry, RegistryOptions, SwapResult } from '../src/index.js';
import { readLoaderCache } from '../src/library/dependencies/loader-cache.js';
import { scratch } from './support/files.js';
import { compileIn, HANDLER } from './support/libraries.js';
import { failure, outcome } from './support/outcomes.js';
import { mappedIn, onLinux } from './support/process.js';
import { activeOf, openRegistry } from './support/registry.js';

const ISOLATIONS = ['thread', 'process'] as const;

const ORIGIN = '-Wl,-rpath,$ORIGIN';

/** A library called `name` with a function `<symbol>()` that returns `value`. */
const numbered = (name: string, symbol: string, value: number) => ({
  name,
  code: `int ${symbol}(void); int ${symbol}(void) { return ${value}; }`,
  flags: [`-Wl,-soname,${basename(name)}`],
});

const reported = ({ libraries }: DrainReport) =>
  Object.fromEntries(libraries.map(({ name, fate }) => [name, fate]));

async function drained({ drained: report }: SwapResult): Promise<DrainReport> {
  if (report === undefined) throw new Error('nothing was replaced');
  return report;
}

const named = <D extends { name: string }>(all: readonly D[], name: string): D | undefined =>
  all.find((each) => each.name === name);

const ask = (registry: HandlerRegistry, id = 'x') => outcome(registry.execute(id, {}, ''));

const open = (t: ExecutionContext, options: RegistryOptions) =>
  openRegistry(t, { threads: 2, preflight: true, ...options });

// ---- Statics ---------------------------------------------------------------------------------------

/** A static of a template and one of an inline function: GCC makes their symbols unique. */
const STATICS = `${HANDLER}
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>
extern const int BUILD;
template <class T> struct Config { static int value; };
template <class T> int Config<T>::value = BUILD;
inline int &calls() { static int count = 0; return count; }
int32_t handler_entry(const handler_context *, const handler_request *, handler_response *res) {
  auto shared = std::make_shared<int>(Config<int>::value);
  std::ostringstream text;
  try {
    if (std::regex_match("build 1", std::regex("build [0-9]+"))) throw std::runtime_error("build");
  } catch (const std::exception &error) {
    text << error.what() << ' ' << BUILD << " static " << *shared << " calls";
  }
  return say(res, text.str().c_str(), ++calls());
}
`;

/**
 * Two builds of a handler with such statics, below `directory`. The headers take the compiler
 * seconds, so both are linked from one object, which is compiled without optimisation: that changes
 * nothing in which symbols are unique.
 */
async function staticsPair(directory: string): Promise<[string, string]> {
  const source = join(directory, 'statics.cc');
  const object = join(directory, 'statics.o');
  await writeFile(source, STATICS);
  await runCompiler('c++', [...languageFlags('c++'), '-O0', '-fPIC', '-c', '-o', object, source]);
  const build = (number: number) =>
    compileIn(directory, {
      name: `v${number}/libhandler_x.so`,
      code: `extern const int BUILD; const int BUILD = ${number};`,
      language: 'c++',
      flags: [object],
    });
  return [await build(1), await build(2)];
}

let staticsDirectory: string | undefined;
let staticsBuilds: Promise<[string, string]> | undefined;

/** The same pair for every test that asks: versions run on copies, so none of them changes it. */
function sharedStaticsPair(): Promise<[string, string]> {
  staticsBuilds ??= (async () => {
    staticsDirectory = await mkdtemp(join(tmpdir(), 'changeover-statics-'));
    return staticsPair(staticsDirectory);
  })();
  return staticsBuilds;
}

test.after.always(async () => {
  if (staticsDirectory !== undefined) await rm(staticsDirectory, { recursive: true });
});

for (const isolation of ISOLATIONS) {
  onLinux(`each version has C++ statics of its own, and is unloaded: ${isolation}`, async (t) => {
    const [one, two] = await sharedStaticsPair();
    const { registry, cacheDir } = await open(t, { isolation, threads: 1 });
    const first = await registry.loadFrom('x', one);
    t.is(await ask(registry), 'build 1 static 1 calls 1');
    t.is(await ask(registry), 'build 1 static 1 calls 2');
    t.like(first.patches, [{ library: 'libhandler_x.so' }]);
    t.true((first.patches[0]?.uniqueSymbols ?? 0) >= 2);
    t.is(first.sharedStatics, null);
    t.is(first.preflight?.unloads, true);
    const swap = await registry.swapGraceful('x', two);
    t.is(await ask(registry), 'build 2 static 2 calls 1');
    t.deepEqual(reported(await drained(swap)), { 'libhandler_x.so': 'unloaded' });
    const again = await registry.swapGraceful('x', two);
    t.is(await ask(registry), 'build 2 static 2 calls 1');
    t.is((await drained(again)).library, 'unloaded');
    t.is((await registry.unload('x')).library, 'unloaded');
    t.deepEqual(await mappedIn(cacheDir), []);
  });
}

onLinux('the hash is that of what was deployed, and what was changed is told', async (t) => {
  const { registry } = await openRegistry(t);
  const plain = await registry.load('echo');
  t.deepEqual(plain.patches, []);
  t.is(plain.patchObstacle, null);
  const unique = await registry.load('cpp_unique');
  const { inspect } = await import('../src/inspect/inspect.js');
  const { sha256, patches } = await inspect(fixture('cpp_unique'), { env: {} });
  t.is(unique.sha256, sha256 ?? '');
  t.deepEqual(unique.patches, patches);
  t.like(unique.patches, [
    { library: basename(fixture('cpp_unique')), names: 0, searchPath: false },
  ]);
});

onLinux('a static that a shared library defines too stays one, and that is told', async (t) => {
  const directory = await scratch(t);
  const shared = 'inline int &count() { static int n = 0; return n; } ';
  // Found by the loader's own variable, as the system's libraries are by its cache.
  await compileIn(directory, {
    name: 'libshared.so.1',
    code: `${shared} int bump(); int bump() { return ++count(); }`,
    language: 'c++',
    flags: ['-Wl,-soname,libshared.so.1'],
  });
  const handler = await compileIn(directory, {
    name: 'deployed/libhandler_x.so',
    code: `${HANDLER} ${shared} int bump();
      int32_t handler_entry(const handler_context *, const handler_request *, handler_response *res) {
        bump();
        return say(res, "count", count());
      }`,
    language: 'c++',
    flags: [join(directory, 'libshared.so.1')],
  });
  const env = { LD_LIBRARY_PATH: directory };
  const { registry } = await open(t, { isolation: 'process', threads: 1, env });
  const loaded = await registry.loadFrom('x', handler);
  t.is(await ask(registry), 'count 1');
  t.like(loaded.sharedStatics, { libraries: ['libshared.so.1'] });
  t.true((loaded.sharedStatics?.count ?? 0) > 0);
});

// ---- What comes along ------------------------------------------------------------------------------

/** A handler that says its own number and that of `dep()`. */
const using = (build: number, flags: readonly string[]) => ({
  name: `v${build}/libhandler_x.so`,
  code: `${HANDLER} int dep(void);
    int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
      (void)ctx; (void)req;
      return say(res, "handler ${build} dep", dep());
    }`,
  flags,
});

/** Both builds of a handler with a dependency of the same name each; `how` says how it is found. */
async function pair(
  directory: string,
  how: (folder: string) => readonly string[],
): Promise<[string, string]> {
  const build = async (number: number): Promise<string> => {
    const folder = join(directory, `v${number}`);
    const dep = await compileIn(directory, numbered(`v${number}/libdep.so.1`, 'dep', number));
    return compileIn(directory, using(number, [dep, ...how(folder)]));
  };
  return [await build(1), await build(2)];
}

const WAYS: Record<string, (folder: string) => readonly string[]> = {
  'an absolute RUNPATH': (folder) => [`-Wl,-rpath,${folder}`],
  $ORIGIN: () => [ORIGIN],
  'RPATH, with $ORIGIN': () => [ORIGIN, '-Wl,--disable-new-dtags'],
  'nothing, but it is beside it': () => [],
};

for (const isolation of ISOLATIONS) {
  for (const [what, how] of Object.entries(WAYS)) {
    onLinux(
      `each version runs on its own dependency, found by ${what}: ${isolation}`,
      async (t) => {
        const directory = await scratch(t);
        const [one, two] = await pair(directory, how);
        const { registry, cacheDir } = await open(t, { isolation });
        const first = await registry.loadFrom('x', one);
        t.is(await ask(registry), 'handler 1 dep 1');
        const dependency = named(first.dependencies, 'libdep.so.1');
        t.like(dependency, { kind: 'own', path: join(directory, 'v1/libdep.so.1') });
        t.regex(dependency?.sha256 ?? '', /^[0-9a-f]{64}$/);
        // What is deployed is free to go: versions run on their copies.
        await rm(join(directory, 'v1'), { recursive: true });
        const swap = await registry.swapGraceful('x', two);
        t.is(await ask(registry), 'handler 2 dep 2');
        t.deepEqual(reported(await drained(swap)), {
          'libhandler_x.so': 'unloaded',
          'libdep.so.1': 'unloaded',
        });
        await registry.unload('x');
        t.deepEqual(await mappedIn(cacheDir), []);
        t.deepEqual(
          (
            await Promise.all(
              (await readdir(cacheDir)).map((store) => readdir(join(cacheDir, store))),
            )
          ).flat(),
          [],
        );
      },
    );
  }
}

onLinux('a handler that is a link finds its neighbours where it is', async (t) => {
  const directory = await scratch(t);
  const [one] = await pair(directory, () => [ORIGIN]);
  const link = join(directory, 'libhandler_x.so');
  await symlink(one, link);
  const { registry } = await open(t, {});
  await registry.loadFrom('x', link);
  t.is(await ask(registry), 'handler 1 dep 1');
});

onLinux('chains of links, of dependencies, and a circle of them', async (t) => {
  const directory = await scratch(t);
  const build = async (number: number): Promise<string> => {
    const folder = join(directory, `v${number}`);
    // libone needs libtwo, which needs libone.
    const one = (flags: string[]) => ({
      name: `v${number}/libone.so.1.2.3`,
      code: `int two(void); int dep(void); int base(void);
        int base(void) { return ${number}; } int dep(void) { return two() + base(); }`,
      flags: ['-Wl,-soname,libone.so.1', ORIGIN, ...flags],
    });
    const first = await compileIn(directory, one([]));
    await symlink('libone.so.1.2.3', join(folder, 'libone.so.1.2'));
    await symlink('libone.so.1.2', join(folder, 'libone.so.1'));
    await symlink('libone.so.1', join(folder, 'libone.so'));
    const two = await compileIn(directory, {
      name: `v${number}/libtwo.so`,
      code: `int base(void); int two(void); int two(void) { return 10 * base(); }`,
      flags: [ORIGIN, first],
    });
    await compileIn(directory, one(['-Wl,--no-as-needed', two]));
    return compileIn(
      directory,
      using(number, ['-Wl,--no-as-needed', ORIGIN, `-L${folder}`, '-lone', '-ltwo']),
    );
  };
  const [one, two] = [await build(1), await build(2)];
  const { registry } = await open(t, {});
  const first = await registry.loadFrom('x', one);
  t.is(await ask(registry), 'handler 1 dep 11');
  const own = first.dependencies.filter(({ kind }) => kind === 'own').map(({ name }) => name);
  t.deepEqual(own.toSorted(), ['libone.so.1', 'libtwo.so']);
  const swap = await registry.swapGraceful('x', two);
  t.is(await ask(registry), 'handler 2 dep 22');
  t.deepEqual(Object.values(reported(await drained(swap))), ['unloaded', 'unloaded', 'unloaded']);
});

for (const isolation of ISOLATIONS) {
  onLinux(
    `what comes along and needs the handler in turn gets its own: ${isolation}`,
    async (t) => {
      const directory = await scratch(t);
      const soname = '-Wl,-soname,libhandler_x.so';
      const build = async (number: number): Promise<string> => {
        // What the plug is linked with; the handler itself takes its place.
        const stub = await compileIn(directory, {
          ...numbered(`v${number}/libhandler_x.so`, 'host', 0),
          flags: [soname],
        });
        const plug = await compileIn(directory, {
          name: `v${number}/libplug.so`,
          code: 'int host(void); int dep(void); int dep(void) { return host(); }',
          flags: ['-Wl,-soname,libplug.so', '-Wl,--no-as-needed', ORIGIN, stub],
        });
        const { name, code } = using(number, []);
        const host = `__attribute__((visibility("default"))) int host(void); int host(void) { return ${number}; }`;
        return compileIn(directory, {
          name,
          code: `${code} ${host}`,
          flags: [soname, ORIGIN, plug],
        });
      };
      const [one, two] = [await build(1), await build(2)];
      const { registry } = await open(t, { isolation });
      await registry.loadFrom('x', one);
      t.is(await ask(registry), 'handler 1 dep 1');
      const swap = await registry.swapGraceful('x', two);
      t.is(await ask(registry), 'handler 2 dep 2');
      // Nothing of the first version is held by the second, and what was deployed was never loaded.
      t.deepEqual(reported(await drained(swap)), {
        'libhandler_x.so': 'unloaded',
        'libplug.so': 'unloaded',
      });
      t.deepEqual(await mappedIn(directory), []);
    },
  );
}

onLinux('versions of symbols are those of its own dependency', async (t) => {
  const directory = await scratch(t);
  const build = async (number: number): Promise<string> => {
    await mkdir(join(directory, `v${number}`), { recursive: true });
    const script = join(directory, `v${number}/versions`);
    await writeFile(script, 'DEP_1 { global: dep; local: *; };');
    const { name, code, flags } = numbered(`v${number}/libdep.so.1`, 'dep', number);
    const dep = await compileIn(directory, {
      name,
      code,
      flags: [...flags, `-Wl,--version-script,${script}`],
    });
    return compileIn(directory, using(number, [ORIGIN, dep]));
  };
  const [one, two] = [await build(1), await build(2)];
  const { registry } = await open(t, {});
  await registry.loadFrom('x', one);
  await registry.swapGraceful('x', two);
  t.is(await ask(registry), 'handler 2 dep 2');
});

onLinux('the shutdown of one version does not tear down what another one uses', async (t) => {
  const directory = await scratch(t);
  const dep = await compileIn(directory, {
    name: 'libgdep.so.1',
    code: `#include <stdlib.h>
      static int *state; void start(void); void stop(void); int dep(void);
      void start(void) { if (!state) { state = malloc(sizeof *state); *state = 7; } }
      void stop(void) { free(state); state = NULL; }
      int dep(void) { return *state; }`,
    flags: ['-Wl,-soname,libgdep.so.1'],
  });
  const build = (number: number) => {
    const { name, code } = using(number, []);
    const paired = `${code} void start(void); void stop(void);
      int32_t handler_init(const handler_context *ctx, handler_response *res) { (void)ctx; (void)res; start(); return 0; }
      void handler_shutdown(void) { stop(); }`;
    return compileIn(directory, { name, code: paired, flags: [dep, `-Wl,-rpath,${directory}`] });
  };
  const [one, two] = [await build(1), await build(2)];
  const { registry } = await open(t, {});
  await registry.loadFrom('x', one);
  t.is(await ask(registry), 'handler 1 dep 7');
  await drained(await registry.swapGraceful('x', two));
  t.is(await ask(registry), 'handler 2 dep 7');
});

onLinux('what comes along must be safe and whole, as the handler itself', async (t) => {
  const directory = await scratch(t);
  const [one, two] = await pair(directory, () => [ORIGIN]);
  const { chmod, truncate } = await import('node:fs/promises');
  const { registry } = await open(t, {});
  const dep = join(directory, 'v1/libdep.so.1');
  await chmod(dep, 0o666);
  t.like(await failure(registry.loadFrom('x', one), 'danger', 'culprit'), {
    code: 'ERR_HANDLER_LIBRARY_UNSAFE',
    danger: 'writable-by-others',
    culprit: dep,
  });
  await registry.loadFrom('x', one, { allowUnsafePermissions: true });
  await truncate(join(directory, 'v2/libdep.so.1'), 5000);
  t.like(await failure(registry.swapGraceful('x', two), 'defect'), {
    code: 'ERR_HANDLER_LIBRARY_INVALID',
    defect: 'truncated',
  });
  t.is(await ask(registry), 'handler 1 dep 1');
});

onLinux('a failed load leaves no copy of what came along', async (t) => {
  const directory = await scratch(t);
  const { name, code, flags } = using(1, [
    ORIGIN,
    await compileIn(directory, numbered('v1/libdep.so.1', 'dep', 1)),
  ]);
  const failing = await compileIn(directory, {
    name,
    code: `${code} int32_t handler_init(const handler_context *ctx, handler_response *res) { (void)ctx; (void)res; return 3; }`,
    flags: flags ?? [],
  });
  const { registry, cacheDir } = await open(t, {});
  t.like(await failure(registry.loadFrom('x', failing), 'handlerCode'), {
    code: 'ERR_HANDLER_INIT_FAILED',
    handlerCode: 3,
  });
  const stores = await readdir(cacheDir);
  const left = await Promise.all(stores.map((store) => readdir(join(cacheDir, store))));
  t.deepEqual(left.flat(), []);
});

onLinux('the same version on two endpoints has its dependency twice', async (t) => {
  const directory = await scratch(t);
  const [one] = await pair(directory, () => [ORIGIN]);
  await cp(join(directory, 'v1'), join(directory, 'v3'), { recursive: true });
  await rename(join(directory, 'v3'), join(directory, 'moved'));
  const { registry } = await open(t, {});
  await registry.loadFrom('x', one);
  await registry.loadFrom('y', join(directory, 'moved/libhandler_x.so'));
  t.is(await ask(registry, 'y'), 'handler 1 dep 1');
  t.is(activeOf(registry, 'y').dependencies[0]?.path, join(directory, 'moved/libdep.so.1'));
  t.deepEqual(reported(await registry.unload('x')), {
    'libhandler_x.so': 'unloaded',
    'libdep.so.1': 'unloaded',
  });
  t.is(await ask(registry, 'y'), 'handler 1 dep 1');
});

// ---- What cannot be separated ----------------------------------------------------------------------

/** Part of glibc itself, and needed by nobody any more. */
const RARE = 'libanl.so.1';

onLinux(
  'what another handler has loaded shadows what a handler would get: told, and tried',
  async (t) => {
    const directory = await scratch(t);
    const system = readLoaderCache().paths.get(RARE)?.[0];
    if (system === undefined) throw new Error(`there is no ${RARE}`);
    const other = join(directory, RARE);
    await copyFile(await realpath(system), other);
    // A name that is put together, which nobody can see beforehand.
    const opening = await compileIn(directory, {
      name: 'libhandler_opening.so',
      code: `${HANDLER}
      #include <dlfcn.h>
      int32_t handler_init(const handler_context *ctx, handler_response *res) {
        (void)ctx;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", "${directory}", "${RARE.replace('so', 's" "o')}");
        return dlopen(path, RTLD_NOW) == NULL ? handler_fail(res, 1, dlerror()) : 0;
      }
      int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
        (void)ctx; (void)req;
        return say(res, "opened", 1);
      }`,
      flags: ['-ldl'],
    });
    const needing = await compileIn(directory, {
      name: 'needing/libhandler_x.so',
      code: `${HANDLER}
      #include <string.h>
      int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
        (void)ctx; (void)req;
        char line[8192];
        int other = 0, system = 0;
        FILE *maps = fopen("/proc/self/maps", "r");
        if (maps == NULL) return handler_fail(res, 1, "no mappings");
        while (fgets(line, sizeof line, maps) != NULL) {
          char *file = strstr(line, "/libanl");
          if (file == NULL) continue;
          if (strstr(line, "${directory}/") != NULL) other = 1;
          else system = 1;
        }
        fclose(maps);
        return say(res, "other, system:", 10 * other + system);
      }`,
      flags: ['-Wl,--no-as-needed', `-l:${RARE}`],
    });
    const seen: string[] = [];
    const preflight = {
      selfTest: { request: '', check: (said: { text(): string }) => seen.push(said.text()) },
    };
    const { registry } = await open(t, { threads: 1 });
    const events: unknown[] = [];
    registry.on('dependencyShadowed', (event) => events.push(event));
    const before = await registry.loadFrom('x', needing, { preflight });
    t.like(named(before.dependencies, RARE), { kind: 'system', path: await realpath(system) });
    await registry.unload('x');
    await registry.loadFrom('opening', opening);
    const after = await registry.loadFrom('x', needing, { preflight });
    const shadowed = { name: RARE, path: other, instead: await realpath(system) };
    t.like(named(after.dependencies, RARE), { kind: 'shadowed', ...shadowed });
    t.is(await ask(registry), 'other, system: 10');
    t.deepEqual(seen, ['other, system: 1', 'other, system: 10']);
    t.deepEqual(events, [{ endpoint: 'x', version: after.version, ...shadowed }]);
    // A process of its own has nothing that another handler has loaded.
    const alone = await registry.loadFrom('x', needing, { isolation: 'process', preflight });
    t.like(named(alone.dependencies, RARE), { kind: 'system' });
    t.is(await ask(registry), 'other, system: 1');
  },
);

onLinux('what is opened by a name that stands in the handler is listed', async (t) => {
  const directory = await scratch(t);
  const plugin = await compileIn(directory, numbered('libplugin.so', 'plug', 5));
  const opening = await compileIn(directory, {
    name: 'libhandler_x.so',
    code: `${HANDLER}
      #include <dlfcn.h>
      int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
        (void)ctx; (void)req;
        void *plugin = dlopen("libplugin.so", RTLD_NOW);
        if (plugin == NULL) return handler_fail(res, 1, dlerror());
        int (*plug)(void);
        *(void **)&plug = dlsym(plugin, "plug");
        int number = plug();
        dlclose(plugin);
        return say(res, "plugin", number);
      }`,
    flags: [ORIGIN, '-ldl'],
  });
  const { registry } = await open(t, {});
  const { dependencies } = await registry.loadFrom('x', opening);
  t.like(named(dependencies, 'libplugin.so'), { kind: 'system', path: plugin, byName: true });
  t.is(await ask(registry), 'plugin 5');
});

// ---- Runtimes that keep threads ----------------------------------------------------------------------

/** Known by what it defines, as a copy of OpenMP's runtime under any name is. */
const runtime = (folder: string, more: string) => ({
  name: `${folder}/libmine.so.1`,
  code: `void GOMP_parallel(void); void GOMP_parallel(void) {} int dep(void);
    static int count; int dep(void) { return ++count + ${more}; }`,
  flags: ['-Wl,-soname,libmine.so.1'],
});

onLinux(
  'a runtime that comes along stays mapped, once for all versions that bring the same',
  async (t) => {
    const directory = await scratch(t);
    const build = async (number: number, more = '0'): Promise<string> => {
      const mine = await compileIn(directory, runtime(`v${number}`, more));
      return compileIn(directory, using(number, [mine, ORIGIN]));
    };
    const builds = [await build(1), await build(2)];
    const { registry, cacheDir } = await open(t, {});
    const first = await registry.loadFrom('x', builds[0] as string);
    t.like(named(first.dependencies, 'libmine.so.1'), { kind: 'own', keepsThreads: true });
    t.is(await ask(registry), 'handler 1 dep 1');
    const swap = await registry.swapGraceful('x', builds[1] as string);
    t.is(await ask(registry), 'handler 2 dep 2');
    const report = await drained(swap);
    t.is(report.library, 'unloaded');
    t.deepEqual(reported(report), { 'libhandler_x.so': 'unloaded', 'libmine.so.1': 'resident' });
    t.regex(report.libraries[1]?.reason ?? '', /runtime/);
    for (const library of [...builds, ...builds]) await registry.swapGraceful('x', library);
    await registry.unload('x');
    const mapped = (await mappedIn(cacheDir)).map((path) =>
      basename(path).replace(/^[0-9a-f]+-/, ''),
    );
    t.deepEqual(mapped, ['libmine.so.1']);
    await registry.loadFrom('x', await build(3, '100'));
    t.is(await ask(registry), 'handler 3 dep 101');
  },
);
