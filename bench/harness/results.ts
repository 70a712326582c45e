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
export async function saveResult(name: string, result: ResultFile): Promise<string> {
  const stamp = result.startedAt.replaceAll(':', '-').replace(/\..*/, '');
  return write(resultsDir, `${name}-node${major(result.machine.node)}-${stamp}`, result);
}

/** Makes a result the published one of its question and Node version, instead of the one before. */
export async function publishResult(
  name: string,
  result: ResultFile,
  dir = publishedDir,
): Promise<string> {
  return write(dir, `${name}-node${major(result.machine.node)}`, result);
}

async function write(dir: string, name: string, result: ResultFile): Promise<string> {
  await mkdir(dir, { recursive: true });
  const path = join(dir, `${name}.json`);
  await writeFile(path, `${JSON.stringify(result)}\n`);
  return path;
}

/** By question, then by Node's major version. */
export type ResultsByQuestion = Map<string, Map<number, ResultFile>>;

/** All full results in a directory, the newest of each; none if there is no such directory. */
export async function loadResults(dir: string): Promise<ResultsByQuestion> {
  const newest: ResultsByQuestion = new Map();
  for (const name of (await entriesOf(dir)).filter((entry) => entry.endsWith('.json')).sort()) {
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

async function entriesOf(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

export function major(version: string): number {
  return Number.parseInt(version.slice(1), 10);
}
