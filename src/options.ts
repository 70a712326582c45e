/**
 * Every option: its default, its unit, its range. Validated once, at the door; inside, they are trusted.
 */

import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { types } from 'node:util';
import type { ResourceLimits } from 'node:worker_threads';
import { InvalidOptionError } from './errors.js';
import { type Integrity, parseIntegrity } from './library/integrity.js';
import { checkPreflight, type PreflightOptions } from './preflight/options.js';
import { show } from './show.js';

/** Options of one endpoint's versions. Given to the registry they are the default for all endpoints. */
export interface EndpointOptions {
  /**
   * Where the handler's code runs. `thread`: in the lane's worker thread; fastest, but a crash ends this process. `process`: in a
   * child process a lane (Linux only); a crash fails only the request that was running, and a stuck call is killed. Default `thread`.
   */
  isolation?: Isolation;
  /** Lanes (worker threads, or child processes) a version. Default: the available cores but one, at least 1, at most 4. */
  threads?: number;
  /** Requests a version holds in shared memory, queued and running. Default 1024. */
  maxInFlight?: number;
  /** Requests that wait on the main thread when `maxInFlight` is reached. Default 4096. */
  maxQueue?: number;
  /**
   * Bytes that those waiting requests may hold. One may always wait. Bytes in shared memory do not count: they are the
   * caller's. Default 256 MiB.
   */
  maxQueueBytes?: number;
  /** Most bytes of one request, and of one response. Default 16 MiB. */
  maxPayloadBytes?: number;
  /** Longest a version may take to load, and its lanes to stop. Default 10,000 ms. */
  loadTimeoutMs?: number;
  /** Longest a graceful swap or unload waits before it drops what is left. Default 30,000 ms. */
  drainTimeoutMs?: number;
  /** Timeout of `execute`. Default 30,000 ms; `Infinity` for none. */
  defaultTimeoutMs?: number;
  /** How long after its caller was answered a native call may go on before its lane counts as stuck. Default 1,000 ms. */
  cancelGraceMs?: number;
  /** Stuck lanes that are replaced. Once every lane is stuck beyond that, requests are shed. Default 2. */
  maxStuckLanes?: number;
  /**
   * Versions of an endpoint that may drain at once, failed loads whose native code has not come back included; a load or swap
   * beyond that is refused. Default 8.
   */
  maxDrainingVersions?: number;
  /** Stack for native code, in bytes: 64 KiB to 16 MiB. Default 2 MiB. */
  stackBytes?: number;
  /** A lane is replaced, without a pause, once it has served this many requests. Default `Infinity`: never. */
  recycleAfterRequests?: number;
  /** A lane is replaced, without a pause, once it has served this long, in milliseconds. Default `Infinity`: never. */
  recycleAfterMs?: number;
  /**
   * A lane's process is replaced, between two requests, once this many bytes of it are resident (an empty one: about 50 MB).
   * Default `Infinity`. Process isolation only.
   */
  maxRssBytes?: number;
  /**
   * After how many lanes in a row have crashed, with no request answered in between, the endpoint refuses requests
   * (`CrashLoopError`) until a new lane has come up. Default 5.
   */
  crashLoopAfter?: number;
  /**
   * Whether the next version's lanes are started ahead and wait, so that a swap takes less time, and less from the requests that
   * run. Costs the memory of as many lanes again. Default `false`.
   */
  standby?: boolean;
  /**
   * Limits of each lane's JavaScript heap, as for `worker_threads`. A lane needs up to 8 MiB of the old generation to start: give it
   * 10 or more. Default: none.
   */
  resourceLimits?: ResourceLimits;
  /**
   * Whether a library is tried in a child process before it is loaded in this one, and with which self-test.
   * Default `true`: without a self-test.
   */
  preflight?: boolean | PreflightOptions;
  /**
   * The environment of lanes (`process.env` in a worker thread) and of child processes. Default: empty. Native code in a
   * thread calls `getenv` of the whole process and sees that process's environment all the same.
   */
  env?: Record<string, string>;
  /**
   * Whose definition of a symbol a library gets if the node executable has one too (Linux). `default`: Node's, as for any program's
   * libraries. `own`: that of the library or its dependencies. Default `auto`: decided for each library from its files, see
   * `LoadedHandler.binding`.
   */
  binding?: BindingOption;
  /**
   * Whether to load a library that others than this user and root own or may write, itself or its directory. Default
   * `false`. Not looked at on Windows.
   */
  allowUnsafePermissions?: boolean;
}

/** Options of one load or swap: those of the endpoint, and what concerns this one library. */
export interface LoadOptions extends EndpointOptions {
  /**
   * What the library must be: `sha256-`, `sha384-` or `sha512-` and base64, as in Subresource Integrity; several separated by
   * spaces. Not kept for later loads.
   */
  integrity?: string;
}

/** Options of a registry. */
export interface RegistryOptions extends EndpointOptions {
  /** Where `load(id)` looks for `libraryFileName(id)`. Default `./handlers`. */
  handlersDir?: string;
  /** Whether `load(id)` follows links that lead out of `handlersDir`. Default `false`. */
  allowOutsideLinks?: boolean;
  /** Where private copies are kept. Default: a directory of this user's own below the system's temporary one. */
  cacheDir?: string;
  /** How often drained versions are swept. Default 5,000 ms; 0 for never. */
  cleanupIntervalMs?: number;
  /** Longest `close` may take. Default 10,000 ms. */
  closeTimeoutMs?: number;
  /**
   * Loads and swaps that go on at a time; others wait in the order of their calls, and their `loadTimeoutMs` begins when it is
   * their turn. Default: the available cores.
   */
  maxConcurrentLoads?: number;
  /**
   * Memory for the bytes of requests that are longer than 4 KiB and are not in shared memory, in bytes, for all endpoints. A
   * request that finds it used up waits in its endpoint's queue, unless no other of its version has some. At least
   * `maxPayloadBytes`. Default 256 MiB.
   */
  maxRegionBytes?: number;
}

/** How a library's symbols are bound. */
export type BindingOption = 'auto' | 'default' | 'own';

/** Where a handler's code runs: in a worker thread, or in a child process. */
export type Isolation = 'thread' | 'process';

export type ResolvedEndpointOptions = Readonly<
  Required<Omit<EndpointOptions, 'resourceLimits' | 'preflight'>> &
    Pick<EndpointOptions, 'resourceLimits'> & { preflight: PreflightOptions | false }
>;

export interface ResolvedRegistryOptions {
  readonly handlersDir: string;
  readonly allowOutsideLinks: boolean;
  readonly cacheDir: string | undefined;
  readonly cleanupIntervalMs: number;
  readonly closeTimeoutMs: number;
  readonly maxConcurrentLoads: number;
  readonly maxRegionBytes: number;
  readonly endpoint: ResolvedEndpointOptions;
}

const KIB = 1024;
const MIB = 1024 * KIB;
/** What a Node timer can wait: longer ones would fire at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

interface NumberRule {
  default: number;
  min: number;
  max: number;
  unit: string;
  /** Whether the number must be whole. */
  whole: boolean;
  /** Whether `Infinity` is allowed although it is above `max`. */
  infinity?: true;
}

const count = (value: number, min: number, max: number, unit: string): NumberRule => ({
  default: value,
  min,
  max,
  unit,
  whole: true,
});
const duration = (value: number, min = 0): NumberRule => ({
  default: value,
  min,
  max: MAX_TIMER_MS,
  unit: 'milliseconds',
  whole: false,
});

const ENDPOINT_RULES = {
  threads: count(Math.min(4, Math.max(1, availableParallelism() - 1)), 1, 256, 'lanes'),
  maxInFlight: count(1024, 1, 65_536, 'requests'),
  maxQueue: count(4096, 0, 1_000_000, 'requests'),
  maxQueueBytes: count(256 * MIB, 0, Number.MAX_SAFE_INTEGER, 'bytes'),
  maxPayloadBytes: count(16 * MIB, 1, 1024 * MIB, 'bytes'),
  loadTimeoutMs: duration(10_000, 1),
  drainTimeoutMs: duration(30_000),
  defaultTimeoutMs: { ...duration(30_000, 0.001), infinity: true },
  cancelGraceMs: duration(1000),
  maxStuckLanes: count(2, 0, 256, 'lanes'),
  maxDrainingVersions: count(8, 1, 1000, 'versions'),
  stackBytes: count(2 * MIB, 64 * KIB, 16 * MIB, 'bytes'),
  recycleAfterRequests: {
    ...count(Infinity, 1, Number.MAX_SAFE_INTEGER, 'requests'),
    infinity: true,
  },
  recycleAfterMs: { ...duration(Infinity, 1), infinity: true },
  maxRssBytes: { ...count(Infinity, 1, Number.MAX_SAFE_INTEGER, 'bytes'), infinity: true },
  crashLoopAfter: count(5, 1, 1000, 'crashes'),
} as const satisfies Record<string, NumberRule>;

const REGISTRY_RULES = {
  cleanupIntervalMs: duration(5000),
  closeTimeoutMs: duration(10_000),
  maxConcurrentLoads: count(availableParallelism(), 1, 256, 'loads'),
  maxRegionBytes: count(256 * MIB, 64 * KIB, Number.MAX_SAFE_INTEGER, 'bytes'),
} as const satisfies Record<string, NumberRule>;

/** Endpoint options that are no numbers. */
const OTHER_OPTIONS = [
  'isolation',
  'standby',
  'resourceLimits',
  'preflight',
  'env',
  'binding',
  'allowUnsafePermissions',
];

const ENDPOINT_OPTIONS = [...Object.keys(ENDPOINT_RULES), ...OTHER_OPTIONS];
const REGISTRY_OPTIONS = [
  'handlersDir',
  'allowOutsideLinks',
  'cacheDir',
  ...Object.keys(REGISTRY_RULES),
];
const RESOURCE_LIMITS = [
  'maxOldGenerationSizeMb',
  'maxYoungGenerationSizeMb',
  'codeRangeSizeMb',
  'stackSizeMb',
];

/** Where an option belongs that was given in the wrong place. */
const ELSEWHERE: Record<string, string> = {
  integrity: 'it belongs to one library: give it to load, loadFrom, swap or swapGraceful',
  ...Object.fromEntries(
    REGISTRY_OPTIONS.map((name) => [name, 'give it to the constructor of the registry']),
  ),
};

const TIMEOUT_RULE: NumberRule = { ...duration(0, 0.001), infinity: true };

/**
 * Takes the options of one load apart.
 *
 * @throws {InvalidOptionError} if `integrity` is given and is no list of hashes.
 */
export function splitLoadOptions(options: LoadOptions | undefined): {
  endpoint: EndpointOptions | undefined;
  integrity: Integrity | undefined;
} {
  if (options === undefined) return { endpoint: undefined, integrity: undefined };
  const { integrity, ...endpoint } = asObject(options);
  checkNames(endpoint, ENDPOINT_OPTIONS, ['integrity']);
  return {
    endpoint,
    integrity: integrity === undefined ? undefined : parseIntegrity(integrity),
  };
}

/**
 * Checks a registry's options and fills in the defaults.
 *
 * @throws {InvalidOptionError} for an unknown name, a wrong type or a value out of range.
 */
export function resolveRegistryOptions(options: RegistryOptions = {}): ResolvedRegistryOptions {
  checkNames(options, REGISTRY_OPTIONS, ENDPOINT_OPTIONS);
  const {
    handlersDir,
    allowOutsideLinks,
    cacheDir,
    cleanupIntervalMs,
    closeTimeoutMs,
    maxConcurrentLoads,
    maxRegionBytes,
    ...rest
  } = options;
  const regionBytes = number('maxRegionBytes', maxRegionBytes, REGISTRY_RULES.maxRegionBytes);
  const endpoint = resolveEndpointOptions(rest);
  checkPayloadFits(endpoint, regionBytes);
  return {
    handlersDir: resolve(text('handlersDir', handlersDir) ?? './handlers'),
    allowOutsideLinks: flag('allowOutsideLinks', allowOutsideLinks, false),
    cacheDir: text('cacheDir', cacheDir),
    cleanupIntervalMs: number(
      'cleanupIntervalMs',
      cleanupIntervalMs,
      REGISTRY_RULES.cleanupIntervalMs,
    ),
    closeTimeoutMs: number('closeTimeoutMs', closeTimeoutMs, REGISTRY_RULES.closeTimeoutMs),
    maxConcurrentLoads: number(
      'maxConcurrentLoads',
      maxConcurrentLoads,
      REGISTRY_RULES.maxConcurrentLoads,
    ),
    maxRegionBytes: regionBytes,
    endpoint,
  };
}

/**
 * Checks that one request of the largest size has room.
 *
 * @throws {InvalidOptionError} if it has not.
 */
export function checkPayloadFits(
  { maxPayloadBytes }: Pick<ResolvedEndpointOptions, 'maxPayloadBytes'>,
  maxRegionBytes: number,
): void {
  if (maxPayloadBytes <= maxRegionBytes) return;
  throw new InvalidOptionError(
    'maxPayloadBytes',
    `maxPayloadBytes is ${maxPayloadBytes}, and all requests together have maxRegionBytes, which is ${maxRegionBytes}; lower the one, or raise the other in the registry's options`,
  );
}

/**
 * Checks an endpoint's options and fills in what is missing from `base`.
 *
 * @throws {InvalidOptionError} for an unknown name, a wrong type or a value out of range.
 */
export function resolveEndpointOptions(
  options: EndpointOptions = {},
  base?: ResolvedEndpointOptions,
): ResolvedEndpointOptions {
  checkNames(options, ENDPOINT_OPTIONS);
  const given = options as Record<string, unknown>;
  const resolved: Record<string, unknown> = {};
  for (const [name, rule] of Object.entries(ENDPOINT_RULES)) {
    const inherited = base?.[name as keyof typeof ENDPOINT_RULES] ?? rule.default;
    resolved[name] = number(name, given[name], { ...rule, default: inherited });
  }
  resolved['isolation'] = checkIsolation(given['isolation'] ?? base?.isolation ?? 'thread');
  const limits =
    given['resourceLimits'] === undefined ? base?.resourceLimits : given['resourceLimits'];
  if (limits !== undefined) {
    checkLimits(limits);
    resolved['resourceLimits'] = limits;
  }
  const { standby, preflight, env, allowUnsafePermissions } = given;
  resolved['standby'] = flag('standby', standby, base?.standby ?? false);
  resolved['allowUnsafePermissions'] = flag(
    'allowUnsafePermissions',
    allowUnsafePermissions,
    base?.allowUnsafePermissions ?? false,
  );
  resolved['preflight'] =
    preflight === undefined ? (base?.preflight ?? {}) : checkPreflight(preflight);
  resolved['binding'] =
    given['binding'] === undefined ? (base?.binding ?? 'auto') : checkBinding(given['binding']);
  resolved['env'] = env === undefined ? (base?.env ?? {}) : checkEnv(env);
  return resolved as unknown as ResolvedEndpointOptions;
}

function checkBinding(value: unknown): BindingOption {
  if (value === 'auto' || value === 'default' || value === 'own') return value;
  throw new InvalidOptionError(
    'binding',
    `binding must be 'auto', 'default' or 'own'; got ${show(value)}`,
  );
}

function checkIsolation(value: unknown): Isolation {
  if (value !== 'thread' && value !== 'process') {
    throw new InvalidOptionError(
      'isolation',
      `isolation must be 'thread' or 'process'; got ${show(value)}`,
    );
  }
  if (value === 'process' && process.platform !== 'linux') {
    throw new InvalidOptionError(
      'isolation',
      `isolation: 'process' needs Linux, and this is ${process.platform}; use 'thread'`,
    );
  }
  return value;
}

/** With less, V8 ends the whole process, not the thread, when a lane starts. */
const LEAST_OLD_GENERATION_MB = 4;

function checkLimits(limits: unknown): void {
  const { maxOldGenerationSizeMb, ...rest } = asObject(limits, 'resourceLimits') as ResourceLimits;
  for (const [name, value] of Object.entries(rest)) {
    const option = `resourceLimits.${name}`;
    if (!RESOURCE_LIMITS.includes(name)) {
      throw new InvalidOptionError(
        option,
        `there is no '${name}' in resourceLimits; there are: ${RESOURCE_LIMITS.join(', ')}`,
      );
    }
    number(option, value, {
      default: 0,
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      unit: 'MiB',
      whole: false,
    });
  }
  number('resourceLimits.maxOldGenerationSizeMb', maxOldGenerationSizeMb, {
    default: 0,
    min: LEAST_OLD_GENERATION_MB,
    max: Number.MAX_SAFE_INTEGER,
    unit: 'MiB',
    whole: false,
  });
}

/** A copy, since the caller may go on with its object, which may well be `process.env`. */
function checkEnv(value: unknown): Record<string, string> {
  const env = { ...(asObject(value, 'env') as Record<string, unknown>) };
  for (const [name, text] of Object.entries(env)) {
    const fits =
      typeof text === 'string' && name !== '' && !/[=\0]/.test(name) && !text.includes('\0');
    if (fits) continue;
    throw new InvalidOptionError(
      'env',
      `env must map names to strings, without NUL and names without '='; got ${show(text)} for ${show(name)}`,
    );
  }
  return env as Record<string, string>;
}

/**
 * Checks a duration that was given as an argument; undefined stays undefined.
 *
 * @throws {InvalidOptionError} if it is not a number of milliseconds in range.
 */
export function checkDuration(name: string, value: unknown): number | undefined {
  return value === undefined ? undefined : number(name, value, duration(0));
}

/**
 * Checks a request's timeout: above 0, `Infinity` for none.
 *
 * @throws {InvalidOptionError} if it is anything else.
 */
export function checkTimeout(value: unknown): number {
  return requireNumber('timeoutMs', value, TIMEOUT_RULE);
}

/**
 * Checks the options of a call that has one option, and returns that.
 *
 * @throws {InvalidOptionError} if they are no object, or have another option.
 */
export function onlyOption<O extends object, N extends keyof O & string>(
  options: O | undefined,
  name: N,
): O[N] | undefined {
  if (options === undefined) return undefined;
  if (isAbortSignal(options)) {
    throw new InvalidOptionError(
      'options',
      `options must be an object { ${name} }; got an AbortSignal: write { signal }`,
    );
  }
  checkNames(options, [name]);
  return options[name];
}

/**
 * Checks the `signal` of a request.
 *
 * @throws {InvalidOptionError} if it is given and is no AbortSignal.
 */
export function checkSignal(value: unknown): void {
  // Not instanceof: a signal may come from another realm.
  if (value === undefined || isAbortSignal(value)) return;
  throw new InvalidOptionError(
    'signal',
    `signal must be an AbortSignal (controller.signal, not the controller); got ${show(value)}`,
  );
}

function isAbortSignal(value: unknown): value is AbortSignal {
  const signal = value as Partial<AbortSignal> | null;
  return typeof signal?.aborted === 'boolean' && typeof signal.addEventListener === 'function';
}

/**
 * Checks a library's path and makes it absolute.
 *
 * @throws {InvalidOptionError} if it is not a non-empty string.
 */
export function checkPath(value: unknown): string {
  return resolve(text('path', value) ?? noPath('path', value));
}

/** @throws {InvalidOptionError} for anything that is no object, and for the first name that is in neither list. */
function checkNames(value: unknown, known: readonly string[], more: readonly string[] = []): void {
  for (const name of Object.keys(asObject(value) as object)) {
    if (known.includes(name) || more.includes(name)) continue;
    const advice = Object.hasOwn(ELSEWHERE, name)
      ? ELSEWHERE[name]
      : `there are: ${[...known, ...more].join(', ')}`;
    throw new InvalidOptionError(name, `there is no option '${name}' here; ${advice}`);
  }
}

function number(name: string, value: unknown, rule: NumberRule): number {
  return value === undefined ? rule.default : requireNumber(name, value, rule);
}

function requireNumber(name: string, value: unknown, rule: NumberRule): number {
  const fits =
    typeof value === 'number' &&
    ((value >= rule.min && value <= rule.max && (!rule.whole || Number.isInteger(value))) ||
      (rule.infinity === true && value === Number.POSITIVE_INFINITY));
  if (fits) return value;
  const kind = rule.whole ? 'a whole number' : 'a number';
  const extra = rule.infinity === true ? ', or Infinity' : '';
  throw new InvalidOptionError(
    name,
    `${name} must be ${kind} of ${rule.unit} from ${rule.min} to ${rule.max}${extra}; got ${show(value)}`,
  );
}

function flag(name: string, value: unknown, inherited: boolean): boolean {
  if (value === undefined) return inherited;
  if (typeof value === 'boolean') return value;
  throw new InvalidOptionError(name, `${name} must be true or false; got ${show(value)}`);
}

function text(name: string, value: unknown): string | undefined {
  if (value === undefined) return value;
  if (typeof value === 'string' && value !== '' && !value.startsWith('file:')) return value;
  return noPath(name, value);
}

function noPath(name: string, value: unknown): never {
  const isUrl = value instanceof URL || (typeof value === 'string' && value.startsWith('file:'));
  const advice = isUrl ? '; use fileURLToPath of node:url' : '';
  throw new InvalidOptionError(
    name,
    `${name} must be a path, a string that is not empty; got ${show(value)}${advice}`,
  );
}

function asObject<T>(value: T, name = 'options'): T {
  // What has no names, such as a Map, would be taken for an object without any.
  const fits =
    typeof value === 'object' && value !== null && !Array.isArray(value) && !types.isMap(value);
  if (fits) return value;
  throw new InvalidOptionError(name, `${name} must be an object; got ${show(value)}`);
}
