/** Builds the handlers of the suite: two builds of each, which say which one they are. */

import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { compileLibrary, runCompiler } from '../../fixtures/compile.js';
import { packageRoot } from '../../fixtures/paths.js';
import type { Library, Source } from './library.js';
import { run } from './tools.js';

const sourcesDir = join(packageRoot, 'test', 'real', 'native');
const includeDir = join(packageRoot, 'include');
/** What handlers in Rust include. */
const rustInterface = join(packageRoot, 'fixtures', 'handler.rs');
const outputDir = join(packageRoot, 'dist', 'real');

export type Build = 1 | 2;

/** What `handler_info` of a build says its version is. Fortran says nothing. */
export const versionOf = (source: Source, build: Build): string | null =>
  source.language === 'fortran' ? null : String(build);

/** Both builds, made anew if a source is newer. */
export async function buildBoth(library: Library): Promise<{ 1: string; 2: string }> {
  return { 1: await buildOne(library, 1), 2: await buildOne(library, 2) };
}

async function buildOne({ name, source }: Library, build: Build): Promise<string> {
  // The name of a library that an endpoint could be loaded by, in a folder per build.
  const path = join(outputDir, String(build), `libhandler_${name}.so`);
  if (await isFresh(path)) return path;
  await mkdir(join(outputDir, String(build)), { recursive: true });
  await rm(path, { force: true });
  const unfinished = `${path}.${process.pid}.tmp`;
  try {
    await compile(source, build, unfinished);
    await rename(unfinished, path);
  } finally {
    await rm(unfinished, { force: true });
  }
  return path;
}

async function compile(source: Source, build: Build, path: string): Promise<void> {
  switch (source.language) {
    case 'c':
    case 'c++': {
      const flags = [`-DBUILD=${build}`, ...(source.flags ?? [])];
      await compileLibrary({ source: join(sourcesDir, source.file), output: path, flags });
      return;
    }
    case 'fortran': {
      // The module's description goes where nobody looks for it.
      const flags = ['-O2', '-fPIC', '-shared', '-Wall', '-J', outputDir];
      await run(['gfortran', ...flags, '-o', path, join(sourcesDir, source.file)]);
      return;
    }
    case 'rust': {
      const flags = ['--edition', '2021', '--crate-type', 'cdylib', '--crate-name', 'words', '-O'];
      const env = { ...process.env, BUILD: String(build) };
      const command = [process.env['RUSTC'] ?? 'rustc', ...flags, ...(source.flags ?? [])];
      await run([...command, '-o', path, join(sourcesDir, source.file)], null, { env });
      return;
    }
    case 'go': {
      const cwd = join(sourcesDir, source.directory);
      const cgo = { CGO_ENABLED: '1', CGO_CFLAGS: `-O2 -I${includeDir} -DBUILD=${build}` };
      // Nothing is downloaded: the handler needs the standard library alone.
      const env = { ...process.env, ...cgo, GOFLAGS: '-mod=mod', GOPROXY: 'off' };
      await run(['go', 'build', '-buildmode=c-shared', '-o', path, '.'], null, { cwd, env });
      // The header that comes with it.
      await rm(path.replace(/\.tmp$/, '.h'), { force: true });
    }
  }
}

let program: Promise<string> | undefined;

/** The program that runs a handler without Node. */
export function programPath(): Promise<string> {
  program ??= buildProgram();
  return program;
}

async function buildProgram(): Promise<string> {
  const path = join(outputDir, 'program');
  if (await isFresh(path)) return path;
  await mkdir(outputDir, { recursive: true });
  const unfinished = `${path}.${process.pid}.tmp`;
  const flags = ['-std=c99', '-O2', '-Wall', '-Wextra', '-Werror', `-I${includeDir}`];
  await runCompiler('c', [...flags, '-o', unfinished, join(sourcesDir, 'program.c'), '-ldl']);
  await rename(unfinished, path);
  return path;
}

/** Whether it is newer than all sources, of which none takes long. */
async function isFresh(path: string): Promise<boolean> {
  const made = await modifiedMs(path);
  if (made === null) return false;
  const names = await readdir(sourcesDir, { recursive: true });
  const inputs = [
    ...names.map((name) => join(sourcesDir, name)),
    join(includeDir, 'handler.h'),
    rustInterface,
  ];
  const times = await Promise.all(inputs.map(modifiedMs));
  return times.every((time) => time !== null && time < made);
}

async function modifiedMs(path: string): Promise<number | null> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
