/** The endpoints of the soak: each is there for one kind of trouble, and all have their turns with all kinds of changes. */

import type { EndpointOptions } from '../../src/index.js';
import type { Library } from './handlers.js';
import { LARGEST_PAYLOAD_BYTES } from './payloads.js';

export type Change = 'swap' | 'swapGraceful' | 'shortDrain' | 'load' | 'broken' | 'reload';

export interface Kind {
  /** The endpoint's id. */
  readonly id: string;
  readonly trouble: string;
  readonly libraries: readonly [Library, ...Library[]];
  readonly options: EndpointOptions;
  /** Callers who ask again, after a pause, when they have been answered. */
  readonly callers: number;
  readonly pauseMs: number;
  /** Share of the requests that have a timeout, and how long. */
  readonly timeouts?: { readonly share: number; readonly mostMs: number };
  /** Share of the requests whose caller gives up, after at most so long. */
  readonly aborts?: { readonly share: number; readonly mostMs: number };
  /** Share of the turns in which a caller sends so many requests at once. */
  readonly bursts?: { readonly share: number; readonly requests: number };
  /** A call that goes on for so long although nobody waits for it any more. */
  readonly stuckCalls?: { readonly share: number; readonly mostMs: number };
  /** From one process of a lane that is killed from outside to the next, on average. */
  readonly killEveryMs?: number;
  /** Whether lanes that start are refused now and then, for a while. */
  readonly fickle?: boolean;
  /** Whether callers look at a response once more later, and give its memory back. */
  readonly keeps?: boolean;
  /** Whether there may be no room for requests, and whether every lane may be stuck. */
  readonly floods?: boolean;
  readonly sticks?: boolean;
  readonly changes: Readonly<Partial<Record<Change, number>>>;
}

const MIB = 1024 * 1024;

const GENTLE = { swapGraceful: 5, load: 1, broken: 2 };
const ALL = { swap: 2, swapGraceful: 3, shortDrain: 1, load: 1, broken: 2, reload: 2 };

const all: readonly Kind[] = [
  {
    id: 'deployments',
    trouble: 'graceful swaps, refused libraries and recycled lanes only: no request may fail',
    libraries: ['version_a', 'version_b', 'echo'],
    options: { threads: 2, recycleAfterRequests: 300 },
    callers: 6,
    pauseMs: 40,
    changes: GENTLE,
  },
  {
    id: 'payloads',
    trouble: 'large and shared payloads, responses in own memory, in place and too large',
    libraries: ['echo', 'in_place', 'large_response', 'cpp'],
    options: { threads: 2, maxStuckLanes: 1 },
    callers: 4,
    pauseMs: 40,
    timeouts: { share: 0.02, mostMs: 20 },
    aborts: { share: 0.05, mostMs: 5 },
    bursts: { share: 0.02, requests: 16 },
    changes: ALL,
  },
  {
    id: 'media',
    trouble: 'payloads of 64 KiB to 12 MiB, of which some have to wait for memory',
    libraries: ['echo', 'in_place', 'large_response', 'cpp'],
    options: { threads: 2, maxPayloadBytes: LARGEST_PAYLOAD_BYTES },
    callers: 3,
    pauseMs: 120,
    timeouts: { share: 0.05, mostMs: 100 },
    aborts: { share: 0.05, mostMs: 50 },
    bursts: { share: 0.05, requests: 6 },
    keeps: true,
    changes: ALL,
  },
  {
    id: 'media-isolated',
    trouble: 'the same in processes, which are killed at any time',
    libraries: ['echo', 'in_place', 'large_response'],
    options: {
      isolation: 'process',
      threads: 1,
      maxPayloadBytes: LARGEST_PAYLOAD_BYTES,
      cancelGraceMs: 500,
    },
    callers: 2,
    pauseMs: 150,
    aborts: { share: 0.05, mostMs: 50 },
    bursts: { share: 0.05, requests: 6 },
    killEveryMs: 2500,
    keeps: true,
    changes: ALL,
  },
  {
    id: 'state',
    trouble: 'libraries with statics, threads and an init of their own',
    libraries: ['counter', 'init_shutdown', 'own_thread', 'context'],
    options: { threads: 3 },
    callers: 4,
    pauseMs: 40,
    timeouts: { share: 0.02, mostMs: 5 },
    aborts: { share: 0.02, mostMs: 5 },
    changes: ALL,
  },
  {
    id: 'failures',
    trouble: 'errors of the handler and responses that cannot be read',
    libraries: ['fails', 'null_response', 'lying_length', 'deep_stack', 'own_symbols'],
    options: { threads: 1 },
    callers: 3,
    pauseMs: 40,
    changes: ALL,
  },
  {
    id: 'deadlines',
    trouble: 'timeouts and aborts, before, during and after the call',
    libraries: ['sleep', 'cooperative', 'burn'],
    options: { threads: 2, cancelGraceMs: 200, maxStuckLanes: 2 },
    callers: 6,
    pauseMs: 40,
    timeouts: { share: 0.4, mostMs: 40 },
    aborts: { share: 0.3, mostMs: 30 },
    changes: ALL,
  },
  {
    id: 'stuck',
    trouble:
      'calls that outlive their grace: lanes stuck, replaced and back, and none left at times',
    libraries: ['sleep'],
    options: { threads: 2, cancelGraceMs: 30, maxStuckLanes: 1 },
    callers: 4,
    pauseMs: 50,
    timeouts: { share: 0.3, mostMs: 40 },
    stuckCalls: { share: 0.03, mostMs: 2000 },
    sticks: true,
    changes: ALL,
  },
  {
    id: 'overload',
    trouble: 'bursts of more requests than there is room for',
    libraries: ['echo', 'burn', 'version_a'],
    options: { threads: 1, maxInFlight: 8, maxQueue: 16 },
    callers: 3,
    pauseMs: 50,
    timeouts: { share: 0.1, mostMs: 30 },
    aborts: { share: 0.1, mostMs: 10 },
    bursts: { share: 0.1, requests: 40 },
    floods: true,
    changes: ALL,
  },
  {
    id: 'crashes',
    trouble:
      'processes that crash, are killed at any time and for a stuck call, leave forked ones behind, and are replaced for their requests, age and memory',
    libraries: ['dies', 'own_process'],
    options: {
      isolation: 'process',
      threads: 2,
      cancelGraceMs: 50,
      maxStuckLanes: 1,
      recycleAfterRequests: 100,
      recycleAfterMs: 3000,
      // An empty one has about 50 MiB.
      maxRssBytes: 100 * MIB,
    },
    callers: 4,
    pauseMs: 50,
    timeouts: { share: 0.1, mostMs: 40 },
    aborts: { share: 0.1, mostMs: 20 },
    bursts: { share: 0.02, requests: 16 },
    stuckCalls: { share: 0.02, mostMs: Number.POSITIVE_INFINITY },
    killEveryMs: 1000,
    changes: ALL,
  },
  {
    id: 'replacements',
    trouble: 'processes that are killed or worn, and whose replacements are refused for a while',
    libraries: ['fickle'],
    options: { isolation: 'process', threads: 2, recycleAfterRequests: 40, crashLoopAfter: 3 },
    callers: 3,
    pauseMs: 60,
    aborts: { share: 0.05, mostMs: 20 },
    killEveryMs: 1000,
    fickle: true,
    changes: ALL,
  },
  {
    id: 'crash-loops',
    trouble: 'a library that crashes on nearly every request, until another is swapped in',
    libraries: ['fault', 'version_a'],
    options: { isolation: 'process', threads: 2, crashLoopAfter: 3 },
    callers: 3,
    pauseMs: 80,
    killEveryMs: 2500,
    changes: ALL,
  },
];

/** Lanes can be processes only on Linux. */
export const kinds = all.filter(
  ({ options }) => options.isolation !== 'process' || process.platform === 'linux',
);
