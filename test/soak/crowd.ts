/** Fifty endpoints that are loaded in one turn of the event loop, asked at once, and unloaded again. */

import { setTimeout as pause } from 'node:timers/promises';
import { Operator } from './changes.js';
import type { SoakEndpoint } from './endpoint.js';
import type { Library } from './handlers.js';
import type { Kind } from './kinds.js';
import { Caller } from './traffic.js';

const ENDPOINTS = 50;
const LIBRARIES: readonly [Library, ...Library[]] = ['version_a', 'version_b', 'echo'];

/** What each of them is like. */
export const crowdKinds: readonly Kind[] = Array.from({ length: ENDPOINTS }, (_, index) => ({
  id: `crowd-${index}`,
  trouble: 'many loads at once',
  libraries: LIBRARIES,
  // Mostly, it is about threads and the loader.
  options: { threads: 1, maxInFlight: 32, preflight: index % 5 === 0 },
  callers: 1,
  pauseMs: 0,
  changes: {},
}));

/** `endpoints` are of `crowdKinds`. */
export async function runCrowd(endpoints: readonly SoakEndpoint[], afterMs: number): Promise<void> {
  await pause(afterMs);
  const operators = endpoints.map((endpoint) => new Operator(endpoint));
  await Promise.all(operators.map((operator) => operator.begin()));
  const callers = endpoints.map((endpoint) => new Caller(endpoint, endpoint.random('caller')));
  await Promise.all(callers.map((caller) => caller.send()));
  await Promise.all(operators.map((operator) => operator.end()));
}
