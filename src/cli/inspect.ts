/** `changeover inspect LIB`: what the host would say of a library, and what its author should know. */

import { readFile } from 'node:fs/promises';
import { InvalidOptionError } from '../errors.js';
import { inspect } from '../inspect/inspect.js';
import { formatInspection } from '../inspect/report.js';
import { messageOf } from '../library/system-errors.js';
import { type Command, parse, UsageError } from './command.js';

const EXIT_REFUSED = 1;

const help = `Usage: changeover inspect LIB [options]

Loads a handler library in a child process, as the host would before it loads it, and says whether it would be accepted, what it needs
and exports, whether it can be unloaded, and what should be done about it.

Options:
  --self-test FILE   also send a request: the bytes of FILE
  --env NAME=VALUE   a variable for the library's environment, which is empty otherwise; may be repeated
  --timeout MS       longest it may take (10000)
  --json             print JSON
  --help             print this

Exit code: 0 if it would be loaded, 1 if it would be refused, 2 if this command was called wrongly.
`;

async function run(args: string[]): Promise<number> {
  const { values, positionals } = parse({
    args,
    allowPositionals: true,
    options: {
      json: { type: 'boolean' },
      'self-test': { type: 'string' },
      env: { type: 'string', multiple: true },
      timeout: { type: 'string' },
    },
  });
  const [path] = positionals;
  if (path === undefined || positionals.length > 1) {
    throw new UsageError(`expected one library, got ${positionals.length}`);
  }
  const selfTest = values['self-test'];
  const inspection = await inspect(path, {
    env: environment(values.env ?? []),
    selfTest: selfTest === undefined ? undefined : { request: await requestIn(selfTest) },
    timeoutMs: values.timeout === undefined ? undefined : Number(values.timeout),
  }).catch((error: unknown) => {
    if (error instanceof InvalidOptionError) throw new UsageError(error.message, { cause: error });
    throw error;
  });
  const colours = process.stdout.isTTY === true && process.stdout.hasColors();
  const text =
    values.json === true
      ? `${JSON.stringify(inspection, null, 2)}\n`
      : formatInspection(inspection, colours);
  process.stdout.write(text);
  return inspection.refused === null ? 0 : EXIT_REFUSED;
}

function environment(pairs: string[]): Record<string, string> {
  const entries = pairs.map((pair): [string, string] => {
    const at = pair.indexOf('=');
    if (at < 1) throw new UsageError(`expected --env NAME=VALUE, got ${JSON.stringify(pair)}`);
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
  return Object.fromEntries(entries);
}

async function requestIn(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    const message = messageOf(cause);
    throw new UsageError(`the self-test cannot be read: ${message}`, { cause });
  }
}

export const inspectCommand: Command = {
  summary: 'says whether a library would be loaded, and what to improve',
  help,
  run,
};
