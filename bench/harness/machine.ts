/** What a result was measured on and with. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../fixtures/paths.js';

export interface Machine {
  node: string;
  cpu: string;
  cores: number;
  memoryGiB: number;
  system: string;
  /** Versions of what was measured. */
  versions: Record<string, string>;
  /** The commit, with `+` if files were changed since; null outside a repository. */
  commit: string | null;
}

export function describeMachine(): Machine {
  const names = ['piscina', 'tinypool', 'workerpool', 'poolifier', 'koffi'];
  return {
    node: process.version,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    // The version alone: what builders append says nothing to others.
    system: `${process.platform} ${process.arch} ${release().replace(/-.*/, '')}`,
    versions: Object.fromEntries(names.map((name) => [name, versionOf(name)])),
    commit: commit(),
  };
}

/** The installed version; a package need not export its package.json. */
function versionOf(name: string): string {
  const paths = createRequire(import.meta.url).resolve.paths(name) ?? [];
  for (const path of paths) {
    try {
      const text = readFileSync(join(path, name, 'package.json'), 'utf8');
      return (JSON.parse(text) as { version: string }).version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return 'not installed';
}

function commit(): string | null {
  const git = (...args: string[]) =>
    execFileSync('git', args, {
      cwd: packageRoot,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no') !== '';
    return git('rev-parse', '--short=10', 'HEAD') + (changed ? '+' : '');
  } catch {
    // No git, or no repository: an unpacked package can be measured as well.
    return null;
  }
}
