/**
 * Everyone who runs the native function in a process of its own, and the engine's threads beside them.
 *
 * Processes send each other JSON by default, in which bytes arrive as something else; so all peers are told to serialize as
 * structured clones. Each worker gets one request at a time, because what it has been given is lost with it.
 *
 * poolifier is not here: a worker of its FixedClusterPool that is an ES module never becomes ready, because the pool's first
 * message comes while the module is being loaded.
 */

import { fileURLToPath } from 'node:url';
import { Tinypool } from 'tinypool';
import workerpool from 'workerpool';
import { buildNative } from '../native/library.js';
import { type Contender, type ContenderKind, type Setting, signalOf } from './contender.js';
import { startEngine } from './engine.js';

interface IsolatedKind extends ContenderKind {
  /** Whether a lane is a process. */
  readonly inProcesses: boolean;
}

export const isolated = {
  engineThreads: {
    label: 'changeover, threads',
    role: 'engine',
    setup: "isolation: 'thread' (default)",
    inProcesses: false,
    start: (setting) => startEngine(setting, { isolation: 'thread' }),
  },
  engineProcesses: {
    label: 'changeover, processes',
    role: 'engine',
    setup: "isolation: 'process'",
    inProcesses: true,
    start: (setting) => startEngine(setting, { isolation: 'process' }),
  },
  workerpoolProcesses: {
    label: 'workerpool, processes',
    role: 'peer',
    setup: "workerType: 'process', minWorkers, serialization: 'advanced'",
    inProcesses: true,
    start: startWorkerpoolProcesses,
  },
  tinypoolProcesses: {
    label: 'tinypool, processes',
    role: 'peer',
    setup: "runtime: 'child_process', serialization: 'advanced'",
    inProcesses: true,
    start: startTinypoolProcesses,
  },
} satisfies Record<string, IsolatedKind>;

export type IsolatedName = keyof typeof isolated;

export const isolatedNames = Object.keys(isolated) as IsolatedName[];
export const isolatedPeerNames = isolatedNames.filter((name) => isolated[name].role === 'peer');

/** Starts one and has it answer once. */
export async function startIsolated(name: IsolatedName, setting: Setting): Promise<Contender> {
  await buildNative();
  const contender = await isolated[name].start(setting);
  await contender.call(new Uint8Array(64));
  return contender;
}

async function startWorkerpoolProcesses({ threads }: Setting): Promise<Contender> {
  const script = fileURLToPath(new URL('./workerpool-worker.js', import.meta.url));
  const pool = workerpool.pool(script, {
    minWorkers: threads,
    maxWorkers: threads,
    workerType: 'process',
    forkOpts: { serialization: 'advanced' },
  });
  return {
    call: async (request, { timeoutMs } = {}) => {
      const task = pool.exec('work', [request]);
      return timeoutMs === undefined ? task : task.timeout(timeoutMs);
    },
    close: async () => pool.terminate(),
  };
}

async function startTinypoolProcesses({ threads }: Setting): Promise<Contender> {
  const pool = new Tinypool({
    runtime: 'child_process',
    serialization: 'advanced',
    filename: new URL('./tinypool-worker.js', import.meta.url).href,
    minThreads: threads,
    maxThreads: threads,
  });
  return {
    call: (request, options) => pool.run(request, signalOf(options)),
    close: () => pool.destroy(),
  };
}
