/** Somebody who kills processes of lanes, at any time and whatever they do, as a system short of memory does. */

import { setTimeout as pause } from 'node:timers/promises';
import { codeOf } from '../../src/library/system-errors.js';
import type { SoakEndpoint } from './endpoint.js';
import { childProcesses } from './resources.js';

export async function runKiller(endpoint: SoakEndpoint): Promise<void> {
  const { kind, stop } = endpoint;
  if (kind.killEveryMs === undefined) return;
  const random = endpoint.random('kills');
  for (;;) {
    try {
      await pause(random.pauseMs(kind.killEveryMs), undefined, { signal: stop });
    } catch {
      return;
    }
    kill(endpoint, random.pick(processesOf(endpoint)));
  }
}

interface Victim {
  readonly version: number;
  readonly pid: number;
}

function processesOf({ registry, kind }: SoakEndpoint): Victim[] {
  const versions = registry.endpoint(kind.id).stats()?.versions ?? [];
  return versions.flatMap(({ version, processIds }) => processIds.map((pid) => ({ version, pid })));
}

function kill({ kind, ledger, model }: SoakEndpoint, victim: Victim | undefined): void {
  // Only if it is still there: its number may be another's.
  if (victim === undefined || !childProcesses().includes(victim.pid)) return;
  const known = model.versions.get(victim.version)?.known;
  if (known === undefined) {
    ledger.problem(kind.id, 'a process of a version nobody made');
    return;
  }
  try {
    process.kill(victim.pid, 'SIGKILL');
  } catch (error) {
    // Its lane has waited for it in this very moment.
    if (codeOf(error) === 'ESRCH') return;
    throw error;
  }
  known.killed += 1;
  known.crashing += 1;
  ledger.crashing += 1;
  ledger.killedFromOutside += 1;
  ledger.step(kind.id, `process ${victim.pid} of version ${victim.version} is killed`);
}
