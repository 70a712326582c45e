/** Everyone who is measured. */

import { buildNative } from '../native/library.js';
import type { Contender, ContenderKind, Setting } from './contender.js';
import { startEngine } from './engine.js';
import { startKoffiAsync, startKoffiOnMain } from './koffi.js';
import { startConfiguredPiscina, startPiscina } from './piscina.js';
import { startConfiguredPoolifier, startPoolifier } from './poolifier.js';
import { startConfiguredTinypool, startTinypool } from './tinypool.js';
import { startConfiguredWorkerpool, startWorkerpool } from './workerpool.js';

export const contenders = {
  changeover: {
    label: 'changeover',
    role: 'engine',
    setup: 'default',
    start: startEngine,
  },
  piscina: {
    label: 'Piscina',
    role: 'peer',
    setup: 'default',
    start: startPiscina,
  },
  piscinaConfigured: {
    label: 'Piscina, configured',
    role: 'peer',
    setup: 'concurrentTasksPerWorker, FixedQueue, recordTiming: false, transfer from 16 KiB',
    start: startConfiguredPiscina,
  },
  tinypool: {
    label: 'tinypool',
    role: 'peer',
    setup: 'default',
    start: startTinypool,
  },
  tinypoolConfigured: {
    label: 'tinypool, configured',
    role: 'peer',
    setup: 'concurrentTasksPerWorker, transfer from 16 KiB',
    start: startConfiguredTinypool,
  },
  workerpool: {
    label: 'workerpool',
    role: 'peer',
    setup: 'default',
    start: startWorkerpool,
  },
  workerpoolConfigured: {
    label: 'workerpool, configured',
    role: 'peer',
    setup: "workerType: 'thread', minWorkers, transfer from 16 KiB",
    start: startConfiguredWorkerpool,
  },
  poolifier: {
    label: 'poolifier',
    role: 'peer',
    setup: 'FixedThreadPool, default',
    start: startPoolifier,
  },
  poolifierConfigured: {
    label: 'poolifier, configured',
    role: 'peer',
    setup: 'FixedThreadPool, enableTasksQueue with concurrency, LEAST_USED, transfer from 16 KiB',
    start: startConfiguredPoolifier,
  },
  koffiAsync: {
    label: 'koffi .async',
    role: 'koffi',
    setup: "libuv's thread pool",
    start: startKoffiAsync,
  },
  koffiOnMain: {
    label: 'koffi on main',
    role: 'koffi',
    setup: 'called directly; blocks the main thread',
    start: startKoffiOnMain,
  },
} satisfies Record<string, ContenderKind>;

export type ContenderName = keyof typeof contenders;

export const contenderNames = Object.keys(contenders) as ContenderName[];
export const peerNames = contenderNames.filter((name) => contenders[name].role === 'peer');

/** Starts a contender and has it answer once, so that it has loaded everything. */
export async function startContender(name: ContenderName, setting: Setting): Promise<Contender> {
  await buildNative();
  const contender = await contenders[name].start(setting);
  await contender.call(new Uint8Array(64));
  return contender;
}
