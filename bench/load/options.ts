/** What the load test can be asked to do: its command line. */

import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { number, UsageError, usageError } from '../harness/command-line.js';
import { makeRequest } from '../harness/requests.js';

export interface LoadOptions {
  /** Absolute. */
  library: string;
  /** Swapped to half-way. */
  swapTo: string | undefined;
  payload: Uint8Array;
  metadata: unknown;
  load: { kind: 'rate'; perSecond: number } | { kind: 'concurrency'; callers: number };
  /** Measured time; the warm-up comes before. */
  durationMs: number;
  warmUpMs: number;
  /** Of each request. Undefined: the engine's default. */
  timeoutMs: number | undefined;
  threads: number | undefined;
  maxPayloadBytes: number;
  pacing: 'poll' | 'timer';
  json: boolean;
}

const MIB = 2 ** 20;
const DEFAULT_CALLERS = 64;
const DEFAULT_PAYLOAD_BYTES = 128;
const DEFAULT_MAX_PAYLOAD_BYTES = 16 * MIB;

export const usage = `npm run bench -- --load --library PATH [options]

Loads a handler of yours and sends it requests, at a rate or from so many callers, and says how long they took.

  --library PATH       the handler's shared library
  --payload FILE       sent as each request (default: ${DEFAULT_PAYLOAD_BYTES} bytes)
  --payload-bytes N    a request of so many bytes instead
  --metadata JSON      the context's metadata
  --rate R             requests a second on a schedule; times count from when a request was due (open loop)
  --concurrency N      callers who ask again when they have their answer (closed loop; default: ${DEFAULT_CALLERS})
  --duration D         such as 500ms, 10s or 2m (default: 10s)
  --warm-up D          time before, with the same load, that is not measured (default: 1s)
  --timeout D          of each request (default: the engine's)
  --threads N          lanes (default: the engine's)
  --max-payload N      largest request and response in bytes (default: ${DEFAULT_MAX_PAYLOAD_BYTES}, or the payload)
  --swap-to PATH       a library to swap to, gracefully, half-way
  --exact              send to the microsecond instead of the millisecond; keeps the main thread busy (with --rate)
  --json               print the report as JSON
  --help               print this

Exit status: 0 if every request was answered, 1 if one failed or the swap did, 2 if the test could not start.
`;

/**
 * The options in `args`, or 'help'.
 *
 * @throws {UsageError} if an option does not exist, is missing or is out of range, or names no file
 */
export function parseLoadOptions(args: readonly string[]): LoadOptions | 'help' {
  const values = parse(args);
  if (values.help) return 'help';
  const { library } = values;
  if (library === undefined) {
    throw new UsageError('--library PATH is missing: name the shared library of your handler');
  }
  exclusive(values, 'payload', 'payload-bytes');
  exclusive(values, 'rate', 'concurrency');
  if (values.exact && values.rate === undefined) {
    throw new UsageError('--exact is about the schedule of --rate; give --rate as well');
  }
  const payload = payloadOf(values.payload, values['payload-bytes']);
  const perSecond = number('--rate', values.rate, 0.01, 10_000_000);
  const callers = integer('--concurrency', values.concurrency, 1, 100_000) ?? DEFAULT_CALLERS;
  return {
    library: existingFile('--library', library),
    swapTo:
      values['swap-to'] === undefined ? undefined : existingFile('--swap-to', values['swap-to']),
    payload,
    metadata: metadataOf(values.metadata),
    load: perSecond === undefined ? { kind: 'concurrency', callers } : { kind: 'rate', perSecond },
    durationMs: duration('--duration', values.duration) ?? 10_000,
    warmUpMs: duration('--warm-up', values['warm-up']) ?? 1000,
    timeoutMs: duration('--timeout', values.timeout),
    threads: integer('--threads', values.threads, 1, 256),
    maxPayloadBytes:
      integer('--max-payload', values['max-payload'], payload.length, 1024 * MIB) ??
      Math.max(DEFAULT_MAX_PAYLOAD_BYTES, payload.length),
    pacing: values.exact ? 'poll' : 'timer',
    json: values.json ?? false,
  };
}

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  try {
    return parseArgs({
      args: [...args],
      options: {
        library: text,
        payload: text,
        'payload-bytes': text,
        metadata: text,
        rate: text,
        concurrency: text,
        duration: text,
        'warm-up': text,
        timeout: text,
        threads: text,
        'max-payload': text,
        'swap-to': text,
        exact: flag,
        json: flag,
        help: { ...flag, short: 'h' },
      },
    }).values;
  } catch (error) {
    throw usageError(error, '--load --help');
  }
}

function exclusive(values: Record<string, unknown>, one: string, other: string): void {
  if (values[one] === undefined || values[other] === undefined) return;
  throw new UsageError(`--${one} and --${other} exclude each other; give one of them`);
}

function payloadOf(file: string | undefined, bytes: string | undefined): Uint8Array {
  if (file !== undefined) return readFileSync(existingFile('--payload', file));
  const length = integer('--payload-bytes', bytes, 0, 1024 * MIB) ?? DEFAULT_PAYLOAD_BYTES;
  return length < Uint32Array.BYTES_PER_ELEMENT ? new Uint8Array(length) : makeRequest(length);
}

function metadataOf(text: string | undefined): unknown {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--metadata must be JSON, such as '{"size":200}': ${String(error)}`);
  }
}

function existingFile(option: string, path: string): string {
  const file = resolve(path);
  if (statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
  throw new UsageError(`${option}: there is no file ${file}`);
}

const UNITS_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000 };
const MOST_MS = 24 * 60 * 60_000;

function duration(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text) ?? [];
  const ms = Number(amount) * (UNITS_MS[unit] ?? Number.NaN);
  if (ms >= (option === '--warm-up' ? 0 : 1) && ms <= MOST_MS) return ms;
  throw new UsageError(`${option} must be a time such as 500ms, 10s or 2m, got "${text}"`);
}

function integer(option: string, text: string | undefined, least: number, most: number) {
  if (text !== undefined && !/^\d+$/.test(text)) {
    throw new UsageError(
      `${option} must be a whole number from ${least} to ${most}, got "${text}"`,
    );
  }
  return number(option, text, least, most);
}
