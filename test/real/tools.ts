/** Runs programs that the machine has: the libraries' own tools, and compilers. */

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where a tool's arguments name its input. */
export const FILE = '{file}';

/** A response may have so many bytes, and be told by a tool in as many more. */
const MAX_OUTPUT_BYTES = 256 * 1024 * 1024;

/**
 * What a program prints when it is given `input` as a file, or on standard input if no argument
 * names the file.
 */
export async function output(command: readonly string[], input: Buffer): Promise<Buffer> {
  const directory = await mkdtemp(join(tmpdir(), 'changeover-real-'));
  try {
    const file = join(directory, 'input');
    await writeFile(file, input);
    const words = command.map((word) => word.replace(FILE, file));
    return await run(words, command.includes(FILE) ? null : input);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
}

/** @throws {Error} with all that the program said, if it does not end well. */
export function run(
  [program = '', ...args]: readonly string[],
  input: Buffer | null = null,
  options: RunOptions = {},
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const limits = { encoding: 'buffer', maxBuffer: MAX_OUTPUT_BYTES, ...options } as const;
    const child = execFile(program, args, limits, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else {
        const command = [program, ...args].join(' ');
        reject(new Error(`${command}\n${stderr.toString()}`, { cause: error }));
      }
    });
    // A program that does not read all of it says so by its exit code.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input ?? undefined);
  });
}
