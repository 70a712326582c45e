/** What is asked of each fixture, and what it must reply. */

import type { HandlerResponse, RequestContext, RequestPayload } from '../../src/index.js';
import type { Forks } from './forks.js';
import { type Payloads, pattern, payloadBytes } from './payloads.js';
import type { Random } from './random.js';
import type { KnownVersion } from './versions.js';

/** More than any version here has: so many calls can go on at once. */
const MOST_LANES = 8;
/** A process may have some of it, not several times as much: see `maxRssBytes`. */
const LEAK_MIB = 24;

export interface Call {
  readonly request: RequestPayload;
  readonly context?: RequestContext;
  /** Called when `execute` has returned. */
  readonly sent?: (() => void) | undefined;
  /** What is wrong with a response; null if it is right. Without, every response is wrong. */
  readonly check?: (response: HandlerResponse) => string | null;
  /** Fields of the error that it ends with, if not earlier by a timeout or the like. Without, it succeeds. */
  readonly error?: Readonly<Record<string, unknown>>;
  /** Whether it ends the process that it runs in. */
  readonly crashes?: boolean;
  /** Instead of the caller's own. */
  readonly signal?: AbortSignal;
}

/** What a handler's requests are made of. */
export interface Surroundings {
  readonly random: Random;
  readonly payloads: Payloads;
  readonly forks: Forks;
  readonly maxPayloadBytes: number;
  /** The version that the request will go to. */
  readonly version: KnownVersion;
}

type Handler = (surroundings: Surroundings) => Call;

const bytes = (expected: Buffer) => (response: HandlerResponse) =>
  expected.equals(response.bytes)
    ? null
    : `${response.bytes.length} bytes that are not the ${expected.length} expected`;

const text = (expected: string) => (response: HandlerResponse) =>
  response.text() === expected ? null : `'${response.text()}' instead of '${expected}'`;

const number = (least: number, most: number) => (response: HandlerResponse) => {
  const value = Number(response.text());
  if (/^\d+$/.test(response.text()) && value >= least && value <= most) return null;
  return `'${response.text()}' is not from ${least} to ${most}`;
};

const failed = (handlerCode: number, handlerMessage: string) => ({
  code: 'ERR_HANDLER_FAILED',
  handlerCode,
  handlerMessage,
});

/** Echoes with something before it. */
function echoing(prefix: string): Handler {
  return ({ random, payloads, maxPayloadBytes }) => {
    if (random.chance(0.005)) return tooLarge(maxPayloadBytes + 1);
    const { request, expected, sent } = payloads.make(random, maxPayloadBytes);
    const wanted = prefix === '' ? expected : Buffer.concat([Buffer.from(prefix), expected]);
    return { request, sent, check: bytes(wanted) };
  };
}

/** What `dies` and `fault` do when they are told to, and how the caller must hear of it. */
const CRASHES = {
  segv: { signal: 'SIGSEGV', exitCode: null },
  abort: { signal: 'SIGABRT', exitCode: null },
  overflow: { signal: 'SIGSEGV', exitCode: null },
  throw: { signal: 'SIGABRT', exitCode: null },
  exit: { signal: null, exitCode: 3 },
  // Its main thread has ended, and the process does so with a code of ours.
  pthread_exit: { signal: null, exitCode: 113 },
  // These two do not end by themselves: their lane finds that something is wrong, and kills them.
  'hang up': { signal: 'SIGKILL', exitCode: null },
  lie: { signal: 'SIGKILL', exitCode: null },
} as const;

type Crash = keyof typeof CRASHES;

const crash = (how: Crash, request: string = how): Call => ({
  request,
  error: { code: 'ERR_HANDLER_LANE_EXITED', ...CRASHES[how] },
  crashes: true,
});

const tooLarge = (actualBytes: number): Call => ({
  request: new Uint8Array(actualBytes),
  error: { code: 'ERR_HANDLER_PAYLOAD_TOO_LARGE', actualBytes },
});

/** Replies with as many bytes of the pattern as it is asked for, one time in fifty with more than it may. */
function patterned(): Handler {
  return ({ random, maxPayloadBytes }) => {
    if (random.chance(0.02)) {
      const actualBytes = maxPayloadBytes + random.int(1, 1000);
      return {
        request: `${actualBytes}`,
        error: { code: 'ERR_HANDLER_RESPONSE_TOO_LARGE', actualBytes },
      };
    }
    const length = payloadBytes(random, maxPayloadBytes);
    return { request: `${length}`, check: bytes(pattern.subarray(0, length)) };
  };
}

/** By the fixture's name. Whatever it replies follows from the request, the version and its earlier calls. */
export const handlers = {
  echo: echoing(''),
  version_a: echoing('A:'),
  version_b: echoing('B:'),
  cpp: ({ random, payloads, maxPayloadBytes }) => {
    if (random.chance(0.1))
      return { request: 'throw', error: failed(5, 'thrown inside the handler') };
    const { request, expected, sent } = payloads.make(random, maxPayloadBytes);
    return { request, sent, check: bytes(Buffer.from(expected).reverse()) };
  },
  in_place: patterned(),
  large_response: (surroundings) => {
    if (surroundings.random.chance(0.1)) {
      return { request: 'live', check: number(0, MOST_LANES) };
    }
    return patterned()(surroundings);
  },
  // Every call counts, also those whose callers have given up: no number comes twice, none is beyond what was sent.
  counter: ({ version }) => ({
    request: '',
    check: (response) =>
      number(1, version.requests)(response) ?? version.countOnce(Number(response.text())),
  }),
  // Initialized once for all lanes.
  init_shutdown: () => ({ request: '', check: text('1') }),
  own_thread: () => ({ request: '', check: number(0, Number.MAX_SAFE_INTEGER) }),
  own_symbols: () => ({ request: '', check: text('handler-own') }),
  deep_stack: () => ({ request: '', check: text('ok') }),
  context: ({ random }) => {
    const requestId = `request "${random.int(0, 1e9)}" ü`;
    const metadata = { n: random.int(0, 1e9), text: 'ä'.repeat(random.int(0, 1500)) };
    return {
      request: '',
      context: { requestId, metadata },
      check: (response) => {
        const told = response.json<Record<string, unknown>>();
        const same =
          told['requestId'] === requestId &&
          JSON.stringify(told['metadata']) === JSON.stringify(metadata) &&
          told['abiVersion'] === 1;
        return same ? null : `another context: ${response.text().slice(0, 200)}`;
      },
    };
  },
  fails: ({ random }) => {
    const message = random.chance(0.1) ? '' : `no ${random.int(0, 1e9)}`;
    return { request: message, error: failed(42, message || 'the handler says no') };
  },
  null_response: () => ({ request: '', error: { code: 'ERR_HANDLER_INVALID_RESPONSE' } }),
  lying_length: () => ({ request: '', error: { code: 'ERR_HANDLER_INVALID_RESPONSE' } }),
  burn: ({ random }) => ({ request: `${random.int(0, 1000)}`, check: bytes(Buffer.alloc(0)) }),
  sleep: ({ random }) => ({ request: `${random.int(0, 40)}`, check: text('slept') }),
  cooperative: ({ random }) => ({ request: `${random.int(0, 10)}`, check: text('finished') }),
  // The last ones are for processes of their own.
  dies: (surroundings) =>
    surroundings.random.chance(0.03)
      ? crash(surroundings.random.pick(Object.keys(CRASHES) as Crash[]))
      : echoing('')(surroundings),
  fickle: echoing(''),
  // Hardly a request is answered in between.
  fault: ({ random }) =>
    random.chance(0.9)
      ? crash('segv', 'do segv')
      : { request: 'answered', check: text('answered') },
  // Each process begins anew, and none is this one.
  own_process: ({ random, version, forks }) => {
    switch (random.weighted({ count: 45, pid: 45, env: 5, leak: 4, orphan: 1 })) {
      case 'count':
        // One that was about to begin when its process was killed is called after others that were sent later.
        return { request: 'count', check: (response) => number(1, version.requests)(response) };
      case 'pid':
        return {
          request: 'pid',
          check: (response) =>
            number(2, Number.MAX_SAFE_INTEGER)(response) ??
            (Number(response.text()) === process.pid ? 'it ran in the host' : null),
        };
      case 'env':
        return { request: 'env PATH', check: text('(not set)') };
      case 'leak':
        return { request: `leak ${LEAK_MIB}`, check: text('leaked') };
      // A process that it has forked lives on, and holds all that the lane had open.
      case 'orphan':
        return crash('abort', `orphan ${forks.path(random)}`);
    }
  },
} as const satisfies Record<string, Handler>;

/** Calls that go on although nobody waits for them any more. */
const longCalls: Partial<Record<Library, (surroundings: Surroundings, mostMs: number) => Call>> = {
  sleep: ({ random }, mostMs) => ({
    request: `${random.int(200, mostMs)}`,
    check: text('slept'),
  }),
  // For ever: that it is killed is its only end.
  dies: () => ({ request: 'loop' }),
  // Killed, too, unless what it has forked ends before.
  own_process: ({ random, forks }) => ({
    request: `fork ${forks.path(random)}`,
    check: text('released'),
  }),
};

/** A call of `library` that its caller gives up, if it has such. */
export function longCall(
  library: Library,
  surroundings: Surroundings,
  mostMs: number,
): Call | undefined {
  return longCalls[library]?.(surroundings, mostMs);
}

export type Library = keyof typeof handlers;
