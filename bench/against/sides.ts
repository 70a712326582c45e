/**
 * Lays out two builds of the engine to be measured: this checkout's, and that of another commit.
 *
 *     DIR/node_modules   a link to this checkout's
 *     DIR/new/           dist/src and dist/workers of this checkout
 *     DIR/old/           dist/src and dist/workers of the other commit, compiled with its compiler
 *
 * The bench itself is always this checkout's: its compiled files are copied into both, beside
 * dist/src, which they import as `../src/index.js`. Older commits have no such mode, and a bench
 * that changed in between would be compared instead of the engine. To have the bench import the
 * engine from a path that it is told was rejected: the two engines would then have different
 * neighbours (their own koffi beside the bench's), and each import of the engine in the bench would
 * have to know of it. What both sides need to agree on is the engine's public interface; where the
 * other commit lacks something that a question uses, that question's trials fail there and say so.
 *
 * Both are copies in the same place, so neither has the warmer files or the shorter paths, and this
 * checkout may be built anew meanwhile. Dependencies are looked up from directory to directory:
 * where the lock files are the same, both find those of this checkout in DIR; otherwise the other
 * commit has its own in DIR/old, and finds in DIR only what the bench needs and that commit did not
 * have.
 */

import { cp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { packageRoot } from '../../fixtures/paths.js';
import { UsageError } from '../harness/command-line.js';
import { buildNative } from '../native/library.js';
import { CommandError, runCommand } from './command.js';

export interface Sides {
  /** The directory of each, with package.json and dist/ in it. */
  roots: { new: string; old: string };
  /** The other commit, abbreviated. */
  oldCommit: string;
}

export interface Building {
  ref: string;
  /** Empty. */
  directory: string;
  signal: AbortSignal;
  /** Called with a line about each step that takes long. */
  say(line: string): void;
}

/**
 * Both sides, ready to be measured.
 *
 * @throws {UsageError} if there is no such commit
 * @throws {CommandError} if it cannot be built
 */
export async function buildSides({ ref, directory, signal, say }: Building): Promise<Sides> {
  const git = (...args: string[]) => runCommand('git', args, { cwd: packageRoot, signal });
  const oldCommit = await commitOf(ref, git);
  const roots = { new: join(directory, 'new'), old: join(directory, 'old') };
  await symlink(join(packageRoot, 'node_modules'), join(directory, 'node_modules'), 'junction');
  await buildNative();

  say(`building ${ref} (${oldCommit})`);
  await mkdir(roots.old);
  // An archive instead of a work tree: whatever ends this process, nothing is left in the
  // repository that would have to be pruned.
  const archive = join(directory, 'old.tar');
  await git('archive', '--format=tar', `--output=${archive}`, oldCommit);
  await runCommand('tar', ['-xf', archive, '-C', roots.old], { cwd: directory, signal });
  await buildOld(roots.old, signal, say);

  await mkdir(roots.new);
  await copyInto(roots.new, ['package.json', 'dist/src', 'dist/workers']);
  for (const root of [roots.new, roots.old]) await layBench(root);
  return { roots, oldCommit };
}

async function commitOf(ref: string, git: (...args: string[]) => Promise<string>) {
  try {
    const verify = ['rev-parse', '--verify', '--quiet', '--short=10', '--end-of-options'];
    return (await git(...verify, `${ref}^{commit}`)).trim();
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new UsageError(`--against must name a commit of this repository, got "${ref}"`);
  }
}

async function buildOld(root: string, signal: AbortSignal, say: (line: string) => void) {
  const lockOf = (directory: string) => readFile(join(directory, 'package-lock.json'), 'utf8');
  if ((await lockOf(root)) !== (await lockOf(packageRoot))) {
    say('its package-lock.json differs from the one here: installing its dependencies');
    await runCommand('npm', ['ci', '--no-audit', '--no-fund'], { cwd: root, signal });
  }
  // The engine alone, not `npm run build`: whether the other commit's tests and bench compile does
  // not matter here.
  await writeFile(
    join(root, 'tsconfig.engine.json'),
    JSON.stringify({ extends: './tsconfig.json', include: ['src', 'workers'] }),
  );
  const typescript = createRequire(join(root, 'package.json')).resolve('typescript/package.json');
  const compiler = join(dirname(typescript), 'bin/tsc');
  await runCommand(process.execPath, [compiler, '-p', 'tsconfig.engine.json'], {
    cwd: root,
    signal,
  });
  // Earlier commits have no bundles.
  await runCommand('npm', ['run', '--silent', '--if-present', 'bundle'], { cwd: root, signal });
}

/**
 * Gives a side the bench of this checkout, with the native code that it has compiled, instead of
 * its own.
 */
async function layBench(root: string): Promise<void> {
  const ofTheBench = ['bench', 'dist/bench', 'fixtures', 'dist/fixtures', 'include'];
  for (const path of ofTheBench) await rm(join(root, path), { recursive: true, force: true });
  // The sources first and with their own times: the compiled library has to be newer than they are,
  // or each side would compile it anew.
  await copyInto(root, ['bench/native', 'fixtures', 'include'], true);
  await copyInto(root, ['dist/bench', 'dist/fixtures']);
}

async function copyInto(root: string, paths: string[], preserveTimestamps = false) {
  for (const path of paths) {
    await cp(join(packageRoot, path), join(root, path), {
      recursive: true,
      preserveTimestamps,
      // The tests' libraries, which no trial loads.
      filter: (from) => !(basename(from) === 'lib' && from.endsWith(join('fixtures', 'lib'))),
    });
  }
}
