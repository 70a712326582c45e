/** What native code does: tried first, in a thread of the host, and (once there are any) in a process of its own. */

import type { Fields } from '../fault/backend.js';
import type { Cell, Expected, HostEnd, Need } from './cell.js';

const TABLE = 'native';
const TRIED = 'tried first (default)';
const THREAD = 'in a thread (`preflight: false`)';

/** Long enough for a busy machine to start a child process and come to the hang. */
const HANG_MS = 1500;

type Place = 'constructor' | 'init' | 'entry' | 'shutdown' | 'destructor';

const STEPS: Record<Place, string> = {
  constructor: 'open',
  init: 'init',
  entry: 'self-test',
  shutdown: 'shutdown',
  destructor: 'unload',
};

interface Bad {
  row: string;
  library?: string;
  request: string;
  needs?: Need[];
  /** What the load that tries it says. */
  tried: Fields;
  thread: Expected;
  note?: string;
}

const crashed = (signal: string): Fields => ({
  code: 'ERR_HANDLER_PREFLIGHT',
  reason: 'crashed',
  signal,
});
const dies = (...ends: (NodeJS.Signals | number)[]): Expected => ({ host: ends });
const ALL_OK = { behind: 'ok', elsewhere: 'ok' } as const;
const TIMEOUT = { code: 'ERR_HANDLER_TIMEOUT', phase: 'running' };
const STUCK: Expected = {
  host: 'lives',
  answers: { bad: TIMEOUT, ...ALL_OK },
  said: {
    laneStuck: { replaced: true },
    unload: { library: 'resident' },
    close: { leftBehind: 1 },
  },
};
const HARMLESS: Expected = {
  host: 'lives',
  answers: { bad: 'ok', ...ALL_OK },
  said: { unload: { library: 'unloaded' } },
};
const HANGS = { code: 'ERR_HANDLER_LOAD_TIMEOUT', step: 'self-test' };

const REQUESTS: readonly Bad[] = [
  {
    row: 'crash in `handler_entry`',
    request: 'do segv',
    tried: crashed('SIGSEGV'),
    thread: dies('SIGSEGV'),
  },
  {
    row: 'endless loop',
    request: 'do hang',
    tried: HANGS,
    thread: STUCK,
    note: 'a core is lost until the host ends',
  },
  { row: 'sleep past every deadline', request: 'do sleep', tried: HANGS, thread: STUCK },
  { row: '`abort()`', request: 'do abort', tried: crashed('SIGABRT'), thread: dies('SIGABRT') },
  {
    row: '`exit(0)`',
    request: 'do exit0',
    tried: { code: 'ERR_HANDLER_PREFLIGHT', reason: 'exited', exitCode: 0 },
    // Its exit handlers run beside threads that go on.
    thread: dies(0, 'SIGSEGV', 'SIGABRT'),
  },
  {
    row: '`pthread_exit`',
    request: 'do pthread_exit',
    needs: ['linux'],
    tried: { code: 'ERR_HANDLER_PREFLIGHT', reason: 'thread-ended' },
    thread: STUCK,
  },
  {
    row: 'C++ exception',
    library: 'throws',
    request: 'do throw',
    tried: crashed('SIGABRT'),
    thread: dies('SIGABRT'),
  },
  {
    row: 'Rust panic',
    library: 'panics',
    request: 'do panic',
    needs: ['rust'],
    tried: crashed('SIGABRT'),
    thread: dies('SIGABRT'),
  },
  {
    row: 'stack overflow',
    request: 'do overflow',
    tried: crashed('SIGSEGV'),
    thread: dies('SIGSEGV'),
  },
  {
    row: 'double free',
    request: 'do double_free',
    needs: ['linux'],
    tried: crashed('SIGABRT'),
    thread: dies('SIGABRT'),
  },
  {
    row: 'response from freed memory that is unmapped',
    request: 'dangle unmapped',
    tried: crashed('SIGSEGV'),
    thread: dies('SIGSEGV'),
  },
];

const tried = (
  row: string,
  library: string,
  fault: Fields,
  said: Fields,
  needs: Need[] = [],
): Cell => ({
  table: TABLE,
  row,
  column: TRIED,
  program: 'swap-in',
  args: { library, load: fault, options: {} },
  needs,
  expected: {
    host: 'lives',
    answers: { meanwhile: 'ok' },
    said: { load: said, close: { leftBehind: 0 } },
  },
});

const requestCells = REQUESTS.flatMap(
  ({ row, library = 'fault', request, needs = [], note, ...bad }): Cell[] => [
    tried(
      row,
      library,
      { preflight: { selfTest: { request } }, loadTimeoutMs: HANG_MS },
      bad.tried,
      needs,
    ),
    {
      table: TABLE,
      row,
      column: THREAD,
      program: 'request',
      args: { library, request, timeoutMs: 100, options: { preflight: false } },
      needs,
      expected: bad.thread,
      ...(note === undefined ? {} : { note }),
    },
  ],
);

/** Loading and leaving: in the child as in the host, the environment says what to do. */
function placeCells(
  fault: 'segv' | 'sleep',
  place: Place,
  thread: Expected,
  note?: string,
): Cell[] {
  const row = `${fault === 'segv' ? 'crash' : 'hang'} in ${place === 'init' || place === 'shutdown' ? `\`handler_${place}\`` : `a ${place}`}`;
  const env = { CHANGEOVER_TEST_FAULT: `${fault}@${place}` };
  const said =
    fault === 'segv'
      ? { ...crashed('SIGSEGV'), step: STEPS[place] }
      : { code: 'ERR_HANDLER_LOAD_TIMEOUT', step: STEPS[place] };
  const leaving = place === 'shutdown' || place === 'destructor';
  const load = { loadTimeoutMs: fault === 'sleep' ? 500 : HANG_MS };
  const options = { preflight: false };
  return [
    tried(row, 'fault', { env, loadTimeoutMs: HANG_MS }, said),
    {
      table: TABLE,
      row,
      column: THREAD,
      program: leaving ? 'swap-out' : 'swap-in',
      args: leaving
        ? { library: 'fault', request: 'ok', options }
        : { library: 'fault', load, after: fault === 'sleep', options },
      env,
      needs: [],
      expected: thread,
      ...(note === undefined ? {} : { note }),
    },
  ];
}

const loadTimeout = { code: 'ERR_HANDLER_LOAD_TIMEOUT' };
const lives = (said: Record<string, Fields>): Expected => ({
  host: 'lives',
  answers: { meanwhile: 'ok' },
  said,
});
const SEGV: Expected = { host: ['SIGSEGV'] satisfies HostEnd };

export const nativeCells: readonly Cell[] = [
  ...placeCells('segv', 'constructor', SEGV),
  ...placeCells('segv', 'init', SEGV),
  ...placeCells('segv', 'shutdown', SEGV),
  ...placeCells('segv', 'destructor', SEGV),
  ...placeCells(
    'sleep',
    'constructor',
    lives({ load: loadTimeout, 'later load': loadTimeout }),
    'nothing can be loaded any more: the loader is locked',
  ),
  ...placeCells('sleep', 'init', lives({ load: loadTimeout, 'later load': { id: 'other' } })),
  ...placeCells('sleep', 'shutdown', lives({ drained: { library: 'resident' } })),
  ...placeCells('sleep', 'destructor', lives({ drained: { library: 'resident' } })),
  ...requestCells,
  tried(
    'response from freed memory that is still mapped',
    'fault',
    { preflight: { selfTest: { request: 'dangle' } } },
    {},
  ),
  {
    table: TABLE,
    row: 'response from freed memory that is still mapped',
    column: THREAD,
    program: 'request',
    args: { library: 'fault', request: 'dangle', timeoutMs: 20_000, options: { preflight: false } },
    needs: [],
    expected: HARMLESS,
    note: 'bytes that mean nothing: only a self-test with a check would tell',
  },
  tried(
    'allocation of 2 GiB',
    'fault',
    { preflight: { selfTest: { request: 'do allocate' } } },
    {},
  ),
  {
    table: TABLE,
    row: 'allocation of 2 GiB',
    column: THREAD,
    program: 'request',
    args: {
      library: 'fault',
      request: 'do allocate',
      timeoutMs: 20_000,
      options: { preflight: false },
    },
    needs: [],
    expected: HARMLESS,
    note: 'what is touched counts as memory of the host',
  },
  tried(
    'own thread left behind',
    'fault',
    { preflight: { selfTest: { request: 'do thread' } } },
    { code: 'ERR_HANDLER_PREFLIGHT', reason: 'threads-left', step: 'shutdown' },
    ['linux'],
  ),
  {
    table: TABLE,
    row: 'own thread left behind',
    column: THREAD,
    program: 'swap-out',
    args: { library: 'fault', request: 'do ticker', options: { preflight: false } },
    needs: ['linux'],
    expected: SEGV,
    note: 'when the library is unmapped under it',
  },
];
