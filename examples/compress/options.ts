/** What the demo can be asked to do: its command line. */
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../fixtures/paths.js';

export interface DemoOptions {
  /** The directory whose files are compressed; absolute. */
  directory: string;
  json: boolean;
  /** Requests that wait for their answer at any time. */
  inFlight: number;
  /** Lanes of each version. */
  threads: number;
  /** Bytes of the largest block; larger files become several. */
  chunkBytes: number;
}

/** The command line cannot be followed. The message is one line and says what to do. */
export class UsageError extends Error {
  override name = 'UsageError';
}

const DEFAULT_IN_FLIGHT = 64;
const DEFAULT_CHUNK_BYTES = 1024 * 1024;

export const usage = `Usage: npm run demo [-- [DIR] [options]]

Compresses every file below DIR with a native LZ4 compressor, and replaces the
compressor by a better one half-way, while requests go on. Each result is
decoded by an independent decoder and compared with the original.

  DIR              directory to read (default: the project's node_modules)
  --in-flight N    requests waiting at any time, 1 to 1024 (default: ${DEFAULT_IN_FLIGHT})
  --threads N      lanes of each version, 1 to 64 (default: ${availableParallelism()}, one a core)
  --chunk BYTES    largest block, 1024 to 67108864 (default: ${DEFAULT_CHUNK_BYTES})
  --json           print the report as JSON
  --help           print this

Exit status: 0 if all went well, 1 if a request was lost or wrong or the old
library stayed loaded, 2 if the demo could not start.
`;

/**
 * The options in `args`, or 'help'.
 *
 * @throws UsageError if an option does not exist or is out of range, or if DIR is no directory
 */
export function parseOptions(args: readonly string[]): DemoOptions | 'help' {
  const { values, positionals } = parse(args);
  if (values.help) return 'help';
  if (positionals.length > 1) {
    throw new UsageError(`expected one DIR, got ${positionals.length}: ${positionals.join(' ')}`);
  }
  return {
    directory: existingDirectory(positionals[0] ?? join(packageRoot, 'node_modules')),
    json: values.json ?? false,
    inFlight: integer('--in-flight', values['in-flight'], 1, 1024) ?? DEFAULT_IN_FLIGHT,
    threads: integer('--threads', values.threads, 1, 64) ?? availableParallelism(),
    chunkBytes: integer('--chunk', values.chunk, 1024, 64 * 1024 * 1024) ?? DEFAULT_CHUNK_BYTES,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        'in-flight': { type: 'string' },
        threads: { type: 'string' },
        chunk: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    // Node's advice about options that look like values goes on for another line: one is enough.
    const [problem = ''] = (error as Error).message.split(/\. |\n/);
    throw new UsageError(`${problem}; run with --help to see the options`);
  }
}

function integer(name: string, text: string | undefined, least: number, most: number) {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new UsageError(`${name} must be a whole number from ${least} to ${most}, got "${text}"`);
  }
  return value;
}

function existingDirectory(path: string): string {
  const directory = resolve(path);
  const stats = statSync(directory, { throwIfNoEntry: false });
  if (stats?.isDirectory()) return directory;
  const problem = stats === undefined ? 'there is no' : 'not a directory:';
  throw new UsageError(`${problem} ${directory}; name a directory with files in it`);
}
