/** The package as a user gets it: packed, and installed into an empty project, with no link to this one. */
import { execFile } from 'node:child_process';
import { access, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, posix } from 'node:path';
import test from 'ava';
import { fixture, packageRoot } from '../fixtures/paths.js';

const INSTALL_TIMEOUT_MS = 120_000;
const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'));

/** The project that the package is installed in. */
let project: string;
/** Paths in the package that npm packed. */
let packed: string[];

/** What the program prints. Fails with all that it said if it does not end well. */
function run(program: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const env: NodeJS.ProcessEnv = {
      ...process.env,
      PATH: `${dirname(process.execPath)}${delimiter}${process.env['PATH']}`,
    };
    // Set for the scripts of the project that these tests belong to.
    delete env['npm_config_local_prefix'];
    const options = { cwd: project, env, timeout: INSTALL_TIMEOUT_MS };
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${program} ${args.join(' ')}\n${stdout}${stderr}`, { cause: error }));
    });
  });
}

async function runScript(name: string, source: string): Promise<unknown> {
  await writeFile(join(project, name), source);
  return JSON.parse(await run(process.execPath, name, fixture('echo')));
}

test.before('pack and install', async (t) => {
  t.timeout(2 * INSTALL_TIMEOUT_MS);
  project = await realpath(await mkdtemp(join(tmpdir(), 'changeover-package-')));
  // Scripts would build into the directory that all tests run from.
  const pack = ['pack', packageRoot, '--ignore-scripts', '--json', '--pack-destination', project];
  const [tarball] = JSON.parse(await run('npm', ...pack)) as [
    { filename: string; files: { path: string }[] },
  ];
  packed = tarball.files.map(({ path }) => path);
  await writeFile(join(project, 'package.json'), '{ "name": "project", "private": true }\n');
  const flags = ['--prefer-offline', '--no-audit', '--no-fund'];
  await run('npm', 'install', ...flags, join(project, tarball.filename));
});

test.after.always(() => rm(project, { recursive: true, force: true }));

const BODY = `
  const registry = new HandlerRegistry({ loadTimeoutMs: 60_000, closeTimeoutMs: 60_000 });
  await registry.loadFrom('echo', process.argv[2]);
  const response = await registry.executeWithTimeout('echo', {}, 'hello', 60_000);
  await registry.close();
  console.log(JSON.stringify({ text: response.text(), version: response.version }));
`;

test('loads and executes a handler from an ES module', async (t) => {
  const source = `import { HandlerRegistry } from 'changeover';\n${BODY}`;
  t.deepEqual(await runScript('esm.mjs', source), { text: 'hello', version: 1 });
});

test('loads and executes a handler from CommonJS', async (t) => {
  const source = `(async () => {\nconst { HandlerRegistry } = await import('changeover');\n${BODY}})();`;
  t.deepEqual(await runScript('commonjs.cjs', source), { text: 'hello', version: 1 });
});

test('its command runs', async (t) => {
  const command = join(project, 'node_modules/.bin/changeover');
  const inspection = JSON.parse(
    await run(command, 'inspect', '--json', '--timeout', '60000', fixture('echo')),
  );
  t.like(inspection, { path: fixture('echo'), refused: null });
});

test('is installed here, not linked', async (t) => {
  const source = `import { fileURLToPath } from 'node:url';
    console.log(JSON.stringify(fileURLToPath(import.meta.resolve('changeover'))));`;
  const entry = (await runScript('resolve.mjs', source)) as string;
  t.is(await realpath(entry), join(project, 'node_modules/changeover/dist/src/index.js'));
});

test('handler.h is found by name and by path', async (t) => {
  const source = `console.log(JSON.stringify(require.resolve('changeover/handler.h')));`;
  const header = (await runScript('header.cjs', source)) as string;
  t.is(header, join(project, 'node_modules/changeover/include/handler.h'));
  t.is(
    await readFile(header, 'utf8'),
    await readFile(join(packageRoot, 'include/handler.h'), 'utf8'),
  );
});

test('its types compile in a strict project', async (t) => {
  await writeFile(
    join(project, 'consumer.mts'),
    `import { HandlerRegistry, type HandlerResponse, TimeoutError } from 'changeover';

export async function thumbnail(image: Uint8Array, signal: AbortSignal): Promise<HandlerResponse> {
  const registry = new HandlerRegistry({ handlersDir: './handlers', threads: 2 });
  registry.on('retired', (event) => console.log(event.endpoint));
  await registry.load('thumbnail', { maxQueue: 10 });
  try {
    return await registry.executeWithTimeout('thumbnail', { requestId: 'r' }, image, 250, { signal });
  } catch (error) {
    if (error instanceof TimeoutError) {
      const phase: 'queued' | 'running' = error.phase;
      console.log(phase, error.code satisfies 'ERR_HANDLER_TIMEOUT');
    }
    throw error;
  } finally {
    // @ts-expect-error: the options have types
    await registry.close({ timeoutMs: 'soon' });
  }
}
`,
  );
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    skipLibCheck: false,
    target: 'es2022',
    module: 'nodenext',
    types: ['node'],
    typeRoots: [join(packageRoot, 'node_modules/@types')],
  };
  const tsconfig = { compilerOptions, files: ['consumer.mts'] };
  await writeFile(join(project, 'tsconfig.json'), JSON.stringify(tsconfig));
  await t.notThrowsAsync(run(process.execPath, join(typescript, 'bin/tsc'), '-p', 'tsconfig.json'));
});

test('has what it needs and nothing else', async (t) => {
  const folders = new Set(packed.map((path) => path.split('/').slice(0, -1)[0] ?? ''));
  t.deepEqual([...folders].sort(), ['', 'dist', 'docs', 'include', 'src', 'workers']);
  t.deepEqual(
    packed.filter((path) => /^dist\/(?!src\/|workers\/)|\.test\./.test(path)),
    [],
  );
  for (const path of ['LICENSE', 'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md'])
    t.true(packed.includes(path), path);
});

test('links in its documents lead to files that are there, and to headings in them', async (t) => {
  const root = join(project, 'node_modules/changeover');
  const documents = packed.filter((path) => path.endsWith('.md'));
  const headings = new Map<string, Set<string>>();
  for (const path of documents) {
    const text = await readFile(join(root, path), 'utf8');
    headings.set(
      path,
      new Set([...text.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) => anchor(title))),
    );
  }
  let links = 0;
  for (const path of documents) {
    const text = await readFile(join(root, path), 'utf8');
    for (const [, link, image] of text.matchAll(/\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"/g)) {
      const [file = '', heading] = (link ?? image ?? '').split('#');
      if (/^https?:/.test(file)) continue;
      links++;
      const target = file === '' ? path : posix.join(posix.dirname(path), file);
      t.true(packed.includes(target), `${path}: ${target}`);
      if (heading !== undefined) t.true(headings.get(target)?.has(heading), `${target}#${heading}`);
    }
  }
  t.true(links > 0);
});

/** As GitHub names a heading. */
function anchor(title: string): string {
  const words = title.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
  return words.replace(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-');
}

test('its source maps point at files that are there', async (t) => {
  const maps = packed.filter((path) => path.endsWith('.map'));
  t.true(maps.length > 0);
  for (const path of maps) {
    const map = join(project, 'node_modules/changeover', path);
    const { sources } = JSON.parse(await readFile(map, 'utf8')) as { sources: string[] };
    for (const source of sources) await t.notThrowsAsync(access(join(dirname(map), source)), path);
  }
});
