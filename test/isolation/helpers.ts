/** What the tests of isolated lanes share: which processes live, and a gate that works across processes. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { HandlerRegistry, Isolation, RegistryOptions } from '../../src/index.js';
import { scratch } from '../support/files.js';
import { eventually } from '../support/polling.js';
import { activeStats, openRegistry } from '../support/registry.js';

/** Processes of lanes are there only on Linux. */
export const MODES: readonly Isolation[] =
  process.platform === 'linux' ? ['thread', 'process'] : ['thread'];

/** A registry whose lanes are processes. */
export async function openIsolated(
  t: ExecutionContext,
  options: RegistryOptions = {},
): Promise<HandlerRegistry> {
  const { registry } = await openRegistry(t, { isolation: 'process', ...options });
  return registry;
}

/** Whether a process runs; one that has ended and was not waited for does not. */
export async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The state comes after the program's name, which is in parentheses: proc_pid_stat(5).
  const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
  return state !== '' && state !== 'Z' && state !== 'X';
}

export async function untilDead(pids: readonly number[]): Promise<void> {
  await eventually(
    async () => (await Promise.all(pids.map(isAlive))).filter(Boolean).length,
    (alive) => alive === 0,
    'the processes have ended',
  );
}

/** The one process of an endpoint with one lane, once there is exactly one and it serves. */
export async function pidOf(registry: HandlerRegistry, id: string): Promise<number> {
  const { processIds } = await eventually(
    () => activeStats(registry, id),
    ({ processIds, lanes }) => processIds.length === 1 && lanes.serving === 1,
  );
  return processIds[0] as number;
}

/** A request to the fixture `own_process` whose call lasts until the test opens the gate. */
export interface FileGate {
  readonly request: string;
  started(): Promise<void>;
  open(): Promise<void>;
}

export async function fileGate(t: ExecutionContext): Promise<FileGate> {
  const path = join(await scratch(t), 'gate');
  const exists = (name: string) =>
    readFile(name).then(
      () => true,
      () => false,
    );
  return {
    request: `wait ${path}`,
    started: async () => {
      await eventually(() => exists(`${path}.started`), Boolean);
    },
    open: () => writeFile(`${path}.open`, ''),
  };
}
