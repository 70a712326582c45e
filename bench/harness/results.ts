/** Results on disk: one file a question and run, below bench/results/. */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../../fixtures/paths.js';
import type { Machine } from './machine.js';
import type { Mode, Sample } from './question.js';

export interface ResultFile {
  question: string;
  predicted: string;
  startedAt: string;
  tookMs: number;
  mode: Mode;
  rounds: number;
  machine: Machine;
  samples: Sample[];
}

export const resultsDir = join(packageRoot, 'bench/results');
/** The results that docs/benchmarks.md is made from. */
export const publishedDir = join(resultsDir, 'published');

/** Keeps a result, and returns the path of its file. */
export async function saveResult(
  name: string,
  result: ResultFile,
  dir = resultsDir,
): Promise<string> {
  await mkdir(dir, { recursive: true });
  const stamp = result.startedAt.replaceAll(':', '-').replace(/\..*/, '');
  const path = join(dir, `${name}-node${major(result.machine.node)}-${stamp}.json`);
  await writeFile(path, `${JSON.stringify(result)}\n`);
  return path;
}

/** All full results in a directory, by question and Node's major version; the newest of each. */
export async function loadResults(dir: string): Promise<Map<string, Map<number, ResultFile>>> {
  const newest = new Map<string, Map<number, ResultFile>>();
  for (const name of (await readdir(dir)).filter((entry) => entry.endsWith('.json')).sort()) {
    const result = JSON.parse(await readFile(join(dir, name), 'utf8')) as ResultFile;
    if (result.mode !== 'full') continue;
    const question = name.slice(0, name.indexOf('-'));
    const byNode = newest.get(question) ?? new Map<number, ResultFile>();
    const known = byNode.get(major(result.machine.node));
    if (known === undefined || known.startedAt < result.startedAt) {
      byNode.set(major(result.machine.node), result);
    }
    newest.set(question, byNode);
  }
  return newest;
}

function major(version: string): number {
  return Number.parseInt(version.slice(1), 10);
}
