/** What native code does: tried first, in a thread of the host, and in a process of its own. */

import type { Fields } from '../fault/backend.js';
import { type Cell, type Expected, LEAVE_MS, type Need } from './cell.js';

const TABLE = 'native';
const TRIED = 'tried first';
const THREAD = 'in a thread, untried';
const PROCESS = 'in a process, untried';

const IN_THREAD = { preflight: false };
const IN_PROCESS = { preflight: false, isolation: 'process' };

/** What cannot succeed need not be waited for as long. */
const BLOCKED_MS = 1000;

/** A lane is stuck for good, and all the rest can go. */
const LEAVES_ONE = { closeMs: LEAVE_MS, unloadFirst: true };

/** What a fault comes to in each column. */
interface Outcomes {
  row: string;
  needs?: Need[];
  /** What the load that tries it says; no fields: it is not noticed. */
  tried: Fields;
  thread: Expected;
  process: Expected;
  /** What the page adds in the second column. */
  note?: string;
}

const preflight = (reason: string, fields: Fields = {}): Fields => ({
  code: 'ERR_HANDLER_PREFLIGHT',
  reason,
  ...fields,
});
const crashed = (signal: string, fields: Fields = {}) =>
  preflight('crashed', { signal, ...fields });

const dies = (...host: (NodeJS.Signals | number)[]): Expected => ({ host });

const lives = (answers: Expected['answers'] = {}, said: Expected['said'] = {}): Expected => ({
  host: 'lives',
  answers,
  said,
});

function cells(
  { row, tried, thread, process, note, needs = [] }: Outcomes,
  how: Record<'tried' | 'thread' | 'process', Pick<Cell, 'program' | 'args' | 'env'>>,
): Cell[] {
  const refused = lives({ meanwhile: 'ok' }, { load: tried, close: { leftBehind: 0 } });
  const base = { table: TABLE, row, needs };
  return [
    { ...base, column: TRIED, ...how.tried, expected: refused },
    {
      ...base,
      column: THREAD,
      ...how.thread,
      expected: thread,
      ...(note === undefined ? {} : { note }),
    },
    { ...base, column: PROCESS, ...how.process, needs: ['linux', ...needs], expected: process },
  ];
}

// ---- While a request is served -----------------------------------------------------------------------

interface BadRequest extends Outcomes {
  library?: string;
  request: string;
}

const OTHERS = { behind: 'ok', elsewhere: 'ok' } as const;
const GONE = { unload: { library: 'unloaded' }, close: { leftBehind: 0 } };
const EXITED = 'ERR_HANDLER_LANE_EXITED';

const lost = (fields: Fields) => lives({ bad: { code: EXITED, ...fields }, ...OTHERS }, GONE);
const bySignal = (signal: NodeJS.Signals) => ({
  tried: crashed(signal, { step: 'self-test' }),
  thread: dies(signal),
  process: lost({ signal }),
});

const late = (cpuReclaimed: boolean) => ({
  code: 'ERR_HANDLER_TIMEOUT',
  phase: 'running',
  cpuReclaimed,
});
const NOT_LOADED = { code: 'ERR_HANDLER_LOAD_TIMEOUT' };
const STUCK = lives(
  { bad: late(false), ...OTHERS },
  {
    laneStuck: { replaced: true, killed: false },
    unload: { library: 'resident' },
    close: { leftBehind: 1 },
  },
);
const HANGS = {
  tried: { code: 'ERR_HANDLER_LOAD_TIMEOUT', step: 'self-test' },
  thread: STUCK,
  process: lives(
    { bad: late(true), ...OTHERS },
    { laneStuck: { replaced: true, killed: true }, ...GONE },
  ),
};
const UNNOTICED = {
  tried: {},
  thread: lives({ bad: 'ok', ...OTHERS }, GONE),
  process: lives({ bad: 'ok', ...OTHERS }, GONE),
};
const NO_MEMORY_THERE = { code: 'ERR_HANDLER_INVALID_RESPONSE' };

const REQUESTS: readonly BadRequest[] = [
  { row: 'crash in `handler_entry`', request: 'do segv', ...bySignal('SIGSEGV') },
  { row: 'endless loop', request: 'do hang', ...HANGS, note: 'a core is lost until the host ends' },
  { row: 'sleep past every deadline', request: 'do sleep', ...HANGS },
  { row: '`abort()`', request: 'do abort', ...bySignal('SIGABRT') },
  {
    row: '`exit(0)`',
    request: 'do exit0',
    tried: preflight('exited', { exitCode: 0, step: 'self-test' }),
    // Its exit handlers run beside threads that go on.
    thread: dies(0, 'SIGSEGV', 'SIGABRT'),
    process: lost({ exitCode: 0 }),
  },
  {
    row: '`pthread_exit`',
    request: 'do pthread_exit',
    needs: ['linux'],
    tried: preflight('thread-ended'),
    thread: STUCK,
    process: lost({ exitCode: 113 }),
  },
  { row: 'C++ exception', library: 'dies', request: 'throw', ...bySignal('SIGABRT') },
  {
    row: 'Rust panic',
    library: 'panics',
    request: 'do panic',
    needs: ['rust'],
    ...bySignal('SIGABRT'),
  },
  { row: 'stack overflow', request: 'do overflow', ...bySignal('SIGSEGV') },
  {
    row: 'double free',
    request: 'do double_free',
    needs: ['linux'],
    ...bySignal('SIGABRT'),
  },
  {
    row: 'response from freed memory that is unmapped',
    request: 'dangle unmapped',
    needs: ['linux'],
    tried: preflight('self-test-failed'),
    thread: lives({ bad: NO_MEMORY_THERE, ...OTHERS }, GONE),
    process: lives({ bad: NO_MEMORY_THERE, ...OTHERS }, GONE),
  },
  {
    row: 'response from freed memory that is still mapped',
    request: 'dangle',
    ...UNNOTICED,
    note: 'bytes that mean nothing: only the `check` of a self-test would tell',
  },
  {
    row: 'allocation of 2 GiB',
    request: 'do allocate',
    ...UNNOTICED,
    note: 'what is touched counts as memory of the host',
  },
];

const requestCells = REQUESTS.flatMap((bad) => {
  const { library = 'fault', request } = bad;
  const inLane = (options: Fields, expected: Expected) => ({
    program: 'request',
    args: {
      library,
      request,
      endless: expected === STUCK || expected === HANGS.process,
      ...(expected === STUCK ? LEAVES_ONE : {}),
      options,
    },
  });
  const load = { preflight: { selfTest: { request } } };
  return cells(bad, {
    tried: {
      program: 'swap-in',
      args: { library, load, hangs: bad.tried['code'] === NOT_LOADED.code },
    },
    thread: inLane(IN_THREAD, bad.thread),
    process: inLane(IN_PROCESS, bad.process),
  });
});

// ---- While a library comes or goes: the environment says what to do ------------------------------------

interface BadPlace extends Outcomes {
  fault: string;
  /** When it happens. */
  when: 'coming' | 'leaving';
  /** Whether it holds the dynamic loader's lock for good, if it happens in a thread. */
  locks?: boolean;
}

const OTHER_LOADED = { 'later load': { id: 'other' } };
const meanwhile = (said: Expected['said']) => lives({ meanwhile: 'ok' }, said);
const LEAVES = meanwhile({ drained: { library: 'unloaded' }, close: { leftBehind: 0 } });

const crash = (row: string, place: string, step: string, when: BadPlace['when']): BadPlace => ({
  row: `crash in ${row}`,
  fault: `segv@${place}`,
  when,
  tried: crashed('SIGSEGV', { step }),
  thread: dies('SIGSEGV'),
  process:
    when === 'coming'
      ? meanwhile({ load: { code: 'ERR_HANDLER_LOAD_FAILED' }, close: { leftBehind: 0 } })
      : LEAVES,
});

const hang = (row: string, place: string, step: string, thread: Expected): BadPlace => ({
  row: `hang in ${row}`,
  fault: `sleep@${place}`,
  when: thread.said?.['load'] === undefined ? 'leaving' : 'coming',
  tried: { code: 'ERR_HANDLER_LOAD_TIMEOUT', step },
  thread,
  process:
    thread.said?.['load'] === undefined
      ? LEAVES
      : meanwhile({ load: NOT_LOADED, ...OTHER_LOADED, close: { leftBehind: 0 } }),
});

const RESIDENT = meanwhile({ drained: { library: 'resident' } });

const PLACES: readonly BadPlace[] = [
  crash('a constructor', 'constructor', 'open', 'coming'),
  crash('`handler_init`', 'init', 'init', 'coming'),
  crash('`handler_shutdown`', 'shutdown', 'shutdown', 'leaving'),
  crash('a destructor', 'destructor', 'unload', 'leaving'),
  {
    ...hang(
      'a constructor',
      'constructor',
      'open',
      meanwhile({ load: NOT_LOADED, 'later load': NOT_LOADED }),
    ),
    locks: true,
    note: 'nothing can be loaded any more: the dynamic loader is locked',
  },
  hang('`handler_init`', 'init', 'init', meanwhile({ load: NOT_LOADED, ...OTHER_LOADED })),
  hang('`handler_shutdown`', 'shutdown', 'shutdown', RESIDENT),
  { ...hang('a destructor', 'destructor', 'unload', RESIDENT), locks: true },
];

const placeCells = PLACES.flatMap((bad) => {
  const env = { CHANGEOVER_TEST_FAULT: bad.fault };
  const hangs = bad.fault.startsWith('sleep');
  const load = { env };
  const inLane = (options: Fields, expected: Expected, closing: Fields = {}) => {
    const later = expected.said?.['later load'];
    const laterMs = later === NOT_LOADED ? BLOCKED_MS : 60_000;
    const args = { library: 'fault', load, hangs, options, ...closing };
    return bad.when === 'coming'
      ? { program: 'swap-in', args: { ...args, laterMs: later && laterMs } }
      : { program: 'swap-out', args: { ...args, request: 'ok' } };
  };
  return cells(bad, {
    tried: {
      program: 'swap-in',
      args: { library: 'fault', load, hangs },
    },
    // Native code in a thread sees the environment of the host.
    thread: {
      ...inLane(
        IN_THREAD,
        bad.thread,
        hangs ? { ...LEAVES_ONE, unloadFirst: bad.locks !== true } : {},
      ),
      env,
    },
    process: inLane(IN_PROCESS, bad.process),
  });
});

const thread = (request: string, options: Fields) => ({
  program: 'swap-out',
  args: { library: 'fault', load: {}, request, options },
});

export const nativeCells: readonly Cell[] = [
  ...placeCells,
  ...requestCells,
  ...cells(
    {
      row: 'own thread left behind',
      needs: ['linux'],
      tried: preflight('threads-left', { step: 'shutdown' }),
      thread: meanwhile({ drained: { library: 'resident' }, close: { leftBehind: 0 } }),
      process: LEAVES,
      note: 'in a thread, the library stays mapped under it',
    },
    {
      tried: {
        program: 'swap-in',
        args: { library: 'fault', load: { preflight: { selfTest: { request: 'do thread' } } } },
      },
      thread: thread('do ticker', IN_THREAD),
      process: thread('do ticker', IN_PROCESS),
    },
  ),
];
