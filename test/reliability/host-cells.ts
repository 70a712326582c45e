/** What happens around the library: its file, the cache directory, limits; and how the host ends. */

import type { Fields } from '../fault/backend.js';
import { type Cell, type Expected, LEAVE_MS, type Need } from './cell.js';

const MODES: readonly [column: string, options: Fields][] = [
  ['in a thread', {}],
  ['in a thread, untried', { preflight: false }],
  ['in a process', { isolation: 'process' }],
];

const inEachMode = (cell: Omit<Cell, 'column' | 'table'>): Cell[] =>
  MODES.map(([column, options]) => ({
    ...cell,
    table: 'surroundings',
    column,
    needs: options['isolation'] === 'process' ? ['linux', ...cell.needs] : cell.needs,
    args: { ...cell.args, options: { ...(cell.args['options'] as Fields), ...options } },
  }));

const served = (swap: Fields, kinds: readonly string[]): Expected => ({
  host: 'lives',
  answers: Object.fromEntries(kinds.map((kind) => [kind, 'ok' as const])),
  said: { swap, close: { leftBehind: 0 } },
});

const file = (row: string, deed: string, swap: Fields): Cell[] =>
  inEachMode({
    row: `library ${row} while loaded`,
    program: 'file',
    args: { deed },
    needs: [],
    expected: served(swap, ['running', 'meanwhile']),
  });

const IN_NAMESPACE = ['unshare', '-rm', 'sh', '-c'];
const MOUNT = 'mount -t tmpfs -o size=256k,mode=700 none "$0" && exec "$@"';

const cache = (row: string, deed: string, swap: Fields, needs: Need[] = []): Cell[] =>
  inEachMode({
    row: `cache directory ${row}`,
    program: 'cache',
    args: { deed },
    ...(needs.length === 0 ? {} : { wrapper: [...IN_NAMESPACE, MOUNT, '{cacheDir}'] }),
    needs,
    expected: served(swap, ['meanwhile']),
  });

/** The limit of threads counts all that a user has, and does not bind root: each cell has a user whom nobody else is. */
function asNobodyElse(cell: Cell, index: number): Cell {
  const uid = 100_000 + process.pid * MODES.length + index;
  const user = ['--reuid', `${uid}`, '--regid', `${uid}`, '--clear-groups'];
  return { ...cell, uid, wrapper: ['setpriv', ...user, 'prlimit', '--nproc=48'] };
}

const limits = (limit: string, cell: Pick<Cell, 'row' | 'wrapper' | 'needs'>): Cell[] =>
  inEachMode({
    ...cell,
    program: 'limits',
    args: { limit },
    expected: {
      host: 'lives',
      answers: { meanwhile: 'ok', bad: { code: 'ERR_HANDLER_TIMEOUT' }, behind: 'ok' },
      said: { 'later swap': {} },
    },
  }).map((one) => {
    const untried = (one.args['options'] as Fields)['preflight'] === false;
    const swap =
      limit === 'descriptors' || untried
        ? { code: 'ERR_HANDLER_LOAD_FAILED' }
        : { code: 'ERR_HANDLER_PREFLIGHT', reason: 'not-started' };
    const inThread = (one.args['options'] as Fields)['isolation'] !== 'process';
    return {
      ...one,
      args: { ...one.args, ...(inThread ? { closeMs: LEAVE_MS, unloadFirst: true } : {}) },
      expected: { ...one.expected, said: { ...one.expected.said, swap } },
    };
  });

/** A lane without room for what it has to remember, and its successors, which are told the same. */
const heap: Cell[] = inEachMode({
  row: 'a lane’s JavaScript heap is full',
  program: 'heap',
  args: {},
  needs: [],
  note: 'a new version has a heap that is empty',
  expected: {
    host: 'lives',
    answers: {
      running: 'ok',
      bad: { code: 'ERR_HANDLER_LANE_EXITED', signal: null },
      behind: { code: 'ERR_HANDLER_CRASH_LOOP' },
      elsewhere: 'ok',
    },
    said: { laneExited: { cause: 'ERR_WORKER_OUT_OF_MEMORY' }, close: { leftBehind: 0 } },
  },
});

// ---- How the host ends ---------------------------------------------------------------------------------

const STATES = {
  loading: 'loading',
  idle: 'active, idle',
  running: 'active, a request is running',
  endless: 'active, a request never returns',
  draining: 'draining, a request is running',
  drained: 'drained',
} as const;

/** Three quarters are for calls that may end by themselves; the rest must do for killing a process, on a busy machine too. */
const KILL_MS = 12_000;

const dropped = { code: 'ERR_HANDLER_DROPPED', reason: 'close', phase: 'running' };

const CLOSED: Record<keyof typeof STATES, Pick<Expected, 'answers' | 'said'>> = {
  loading: { said: { load: { code: 'ERR_HANDLER_CLOSED' } } },
  idle: { said: { close: { dropped: 0, leftBehind: 0 } } },
  running: { answers: { running: 'ok' }, said: { close: { dropped: 0, leftBehind: 0 } } },
  endless: { answers: { running: dropped }, said: { close: { dropped: 1, leftBehind: 1 } } },
  draining: { answers: { running: 'ok' }, said: { close: { dropped: 0, leftBehind: 0 } } },
  drained: { said: { close: { leftBehind: 0 } } },
};

const endings = (table: string, options: Fields): Cell[] =>
  Object.entries(STATES).flatMap(([state, row]): Cell[] => {
    const inProcess = options['isolation'] === 'process';
    const stuck = state === 'endless' && !inProcess;
    const cell = (column: string, end: string, expected: Expected): Cell => ({
      table,
      row,
      column,
      program: 'ending',
      args: {
        state,
        end,
        // In the other states the trial is over, and left nothing.
        options: { preflight: state === 'loading', ...options },
        ...(state === 'endless' ? { closeMs: inProcess ? KILL_MS : LEAVE_MS } : {}),
      },
      needs: inProcess ? ['linux'] : [],
      expected,
    });
    const closed = CLOSED[state as keyof typeof STATES];
    const said = inProcess && closed.said?.['close'] ? { close: { leftBehind: 0 } } : closed.said;
    const exits = cell('`process.exit(5)`', 'exit', {
      host: stuck ? ['SIGKILL'] : [5],
      said: { exit: {} },
    });
    return [
      cell('`close()`, then `exitProcess(0)`', 'close', {
        host: 'lives',
        ...closed,
        ...(said === undefined ? {} : { said }),
      }),
      stuck ? { ...exits, killAfter: 'exit', note: 'it hangs: Node waits for its threads' } : exits,
      cell('SIGTERM', 'SIGTERM', { host: ['SIGTERM'] }),
      cell('SIGKILL', 'SIGKILL', { host: ['SIGKILL'] }),
    ];
  });

export const hostCells: readonly Cell[] = [
  ...file('deleted', 'delete', { code: 'ERR_HANDLER_LIBRARY_NOT_FOUND' }),
  ...file('renamed over', 'rename', { version: 2 }),
  ...file('overwritten in place', 'overwrite', {
    code: 'ERR_HANDLER_LIBRARY_INVALID',
    defect: 'not-a-library',
  }),
  ...file('truncated', 'truncate', { code: 'ERR_HANDLER_LIBRARY_INVALID', defect: 'truncated' }),
  ...cache('deleted', 'delete', { endpoint: 'x' }),
  ...cache('full', 'fill', { code: 'ERR_HANDLER_CACHE_DIR' }, ['linux', 'namespaces']),
  ...cache('read-only', 'read-only', { code: 'ERR_HANDLER_CACHE_DIR' }, ['linux', 'namespaces']),
  ...limits('descriptors', {
    row: 'no file descriptor left, and a lane is stuck',
    wrapper: ['sh', '-c', 'ulimit -n 100 && exec "$0" "$@"'],
    needs: ['linux'],
  }),
  ...limits('threads', {
    row: 'no thread left, and a lane is stuck',
    needs: ['linux', 'root'],
  }).map(asNobodyElse),
  ...heap,
  ...endings('endings', {}),
  ...endings('endings-process', { isolation: 'process' }),
];
