/**
 * Modules that run in a process of their own: what is tested here crashes where it fails, and what
 * is preloaded is there from the start.
 */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { fixturesDir } from '../../fixtures/paths.js';
import { scratch } from '../support/files.js';
import { atMost } from '../support/turns.js';

const index = new URL('../../src/index.js', import.meta.url).href;
const PATIENCE_MS = 120_000;
const MOST_PROCESSES = 2;
const inTurn = atMost(MOST_PROCESSES);

export interface End {
  exitCode: number | null;
  signal: string | null;
  /** What it printed, line by line. */
  lines: string[];
  stderr: string;
}

/**
 * Runs `body` with `registry`, one on the fixtures that is closed afterwards, and `ask`, which
 * gives the text of a response or the code of an error.
 */
export async function runChild(
  t: ExecutionContext,
  body: string,
  {
    env = {},
    options = {},
  }: { env?: Record<string, string>; options?: Record<string, unknown> } = {},
): Promise<End> {
  const cacheDir = await scratch(t);
  const all = { handlersDir: fixturesDir, cacheDir, threads: 1, loadTimeoutMs: 60_000, ...options };
  const source = `
    import { HandlerRegistry } from ${JSON.stringify(index)};
    const registry = new HandlerRegistry(${JSON.stringify(all)});
    const ask = (id, text) => registry.execute(id, {}, text).then((r) => r.text(), (e) => String(e.code ?? e));
    ${body}
    await registry.close();
  `;
  return inTurn(
    () =>
      new Promise<End>((resolve) => {
        const args = ['--input-type=module', '-e', source];
        const limits = { timeout: PATIENCE_MS, killSignal: 'SIGKILL' } as const;
        const inherited = { PATH: process.env['PATH'] ?? '', ...env };
        const child = execFile(
          process.execPath,
          args,
          { ...limits, env: inherited },
          (_e, out, stderr) => {
            const lines = out.split('\n').filter((line) => line !== '');
            resolve({ exitCode: child.exitCode, signal: child.signalCode, lines, stderr });
          },
        );
      }),
  );
}

/** The lines that a process printed which has ended well. */
export async function linesOf(
  t: ExecutionContext,
  ...rest: [body: string, options?: Parameters<typeof runChild>[2]]
): Promise<string[]> {
  const { exitCode, signal, lines, stderr } = await runChild(t, ...rest);
  t.deepEqual({ exitCode, signal }, { exitCode: 0, signal: null }, stderr);
  return lines;
}

/** Where Debian keeps its libraries. */
const DIRECTORIES = [
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib64',
  '/usr/lib',
];

/** The path of a library of the system, or null if it is not installed. */
export function systemLibrary(name: string): string | null {
  return DIRECTORIES.map((directory) => `${directory}/${name}`).find(existsSync) ?? null;
}
