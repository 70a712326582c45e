/** Runs one cell in a process of its own, and tells what the survivors say. */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { fixture } from '../../fixtures/paths.js';
import { LibraryStore } from '../../src/library/store.js';
import type { Fields, Line } from '../fault/backend.js';
import { eventually } from '../support/polling.js';
import type { Cell, Need } from './cell.js';

/** Below the limit on silence that tests have. */
const PATIENCE_MS = 100_000;

/** How a cell went. */
export interface Result {
  /** Whether the program came to its end. If not, its process did not live on. */
  lives: boolean;
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  /** By kind of request. */
  answers: Record<string, Fields[]>;
  said: Record<string, Fields>;
  /** Requests that were accepted and never settled. */
  lost: number;
  /** Milliseconds from the fault until a request was answered again; null if none was. */
  recoveredMs: number | null;
  /** Private copies that are still there after another process has begun to use the same cache directory. */
  copiesLeft: number;
  stderr: string;
}

/** Why a cell cannot be run here, or null. */
export async function obstacle(needs: readonly Need[]): Promise<string | null> {
  for (const need of needs) {
    if (!(await has[need]())) return WHY[need];
  }
  return null;
}

const WHY: Record<Need, string> = {
  linux: 'only on Linux',
  rust: 'there is no rustc',
  namespaces: 'this user may not mount a file system (unshare -rm)',
  root: 'only root can run a process as a user of its own',
};

const has: Record<Need, () => boolean | Promise<boolean>> = {
  linux: () => process.platform === 'linux',
  rust: () => succeeds(stat(fixture('panics'))),
  namespaces: () =>
    succeeds(promisify(execFile)('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', '/mnt'])),
  root: () => process.getuid?.() === 0,
};

function succeeds(attempt: Promise<unknown>): Promise<boolean> {
  return attempt.then(
    () => true,
    () => false,
  );
}

export async function runCell(cell: Cell): Promise<Result> {
  const scratch = await mkdtemp(join(await realpath(tmpdir()), 'changeover-fault-'));
  try {
    return await runIn(scratch, cell);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function runIn(scratch: string, cell: Cell): Promise<Result> {
  const cacheDir = join(scratch, 'cache');
  await mkdir(cacheDir, { mode: 0o700 });
  if (cell.uid !== undefined) {
    await chmod(scratch, 0o755);
    await chown(cacheDir, cell.uid, cell.uid);
  }
  const { options, ...rest } = cell.args;
  const args = {
    ...rest,
    path: join(scratch, 'libhandler_x.so'),
    options: { ...(options as Fields | undefined), cacheDir },
  };
  const program = fileURLToPath(new URL(`../fault/${cell.program}.js`, import.meta.url));
  const wrapper = (cell.wrapper ?? []).map((word) => word.replace('{cacheDir}', cacheDir));
  const [command = '', ...words] = [...wrapper, process.execPath, program, JSON.stringify(args)];
  const child = spawn(command, words, {
    env: { ...process.env, RUST_BACKTRACE: '0', ...cell.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
  const lines: Line[] = [];
  let unfinished = '';
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = (unfinished + text).split('\n');
    unfinished = parts.pop() ?? '';
    lines.push(...parts.map((part) => JSON.parse(part) as Line));
    const hangs = (line: Line) => line.type === 'said' && line.what === cell.killAfter;
    if (lines.some(hangs)) child.kill('SIGKILL');
  });
  const exited = once(child, 'exit').then(async (end) => {
    clearTimeout(timer);
    await noneLeft(cacheDir);
    return end as [number | null, NodeJS.Signals | null];
  });
  // At `close` all has been read that it has said, and nothing that it had started holds its pipes.
  const [[exitCode, signal]] = await Promise.all([exited, once(child, 'close')]);
  return {
    ...read(lines),
    exitCode,
    signal,
    stderr,
    copiesLeft: cell.uid === undefined ? await copiesAfter(cacheDir) : 0,
  };
}

/** What the program has said. */
function read(
  lines: readonly Line[],
): Omit<Result, 'exitCode' | 'signal' | 'stderr' | 'copiesLeft'> {
  const who = new Map<number, string>();
  const answers: Result['answers'] = {};
  const said: Result['said'] = {};
  let recoveredMs: number | null = null;
  let lives = false;
  for (const line of lines) {
    switch (line.type) {
      case 'accepted':
        who.set(line.request, line.who);
        break;
      case 'settled': {
        const kind = who.get(line.request) ?? 'never accepted, or settled twice';
        answers[kind] = [...(answers[kind] ?? []), line.fields];
        who.delete(line.request);
        break;
      }
      case 'said':
        said[line.what] = line.fields;
        break;
      case 'recovered':
        recoveredMs = line.ms;
        break;
      case 'done':
        lives = true;
    }
  }
  return { lives, answers, said, lost: who.size, recoveredMs };
}

/** Waits until no process has a private copy below `cacheDir` mapped: what the host had started ends with it. */
async function noneLeft(cacheDir: string): Promise<void> {
  if (process.platform !== 'linux') return;
  const holders = async () => {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const maps = await Promise.all(
      pids.map((pid) => readFile(`/proc/${pid}/maps`, 'latin1').catch(() => '')),
    );
    return maps.filter((text) => text.includes(cacheDir)).length;
  };
  await eventually(holders, (count) => count === 0, 'no process has a copy mapped');
}

/** Another registry's store uses the cache directory: its first copy sweeps what dead processes of the same user have left. */
async function copiesAfter(cacheDir: string): Promise<number> {
  const store = new LibraryStore({ cacheDir });
  const copy = await store.copy(fixture('echo'), 'next');
  await copy.remove();
  await store.close();
  return (await readdir(cacheDir)).length;
}
