/** Runs a program to its end, unless interrupted. */

import { spawn } from 'node:child_process';

/** Enough for what went wrong; a build that fails may print much more. */
const KEPT_CHARACTERS = 4000;

/** The program ended with another status than 0. The message has the end of what it printed. */
export class CommandError extends Error {
  override name = 'CommandError';
}

/**
 * What the program printed to stdout.
 *
 * @throws {CommandError} if it does not exist, or ends with another status than 0
 * @throws {DOMException} `AbortError` if interrupted, once the program and its children have been
 *   killed
 */
export async function runCommand(
  program: string,
  args: readonly string[],
  { cwd, signal }: { cwd: string; signal: AbortSignal },
): Promise<string> {
  signal.throwIfAborted();
  // In a process group of its own: npm's children would outlive npm, and go on writing to a
  // directory that is being removed.
  const child = spawn(program, args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    printed = (printed + text).slice(-KEPT_CHARACTERS);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    printed = (printed + text).slice(-KEPT_CHARACTERS);
  });
  const kill = () => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch (error) {
      // The whole group has just ended by itself.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  signal.addEventListener('abort', kill, { once: true });
  const ended = await new Promise<string>((resolve) => {
    child.once('error', ({ message }) => resolve(message));
    child.once('close', (code, name) => resolve(code === 0 ? '' : `ended with ${name ?? code}`));
  });
  signal.removeEventListener('abort', kill);
  signal.throwIfAborted();
  if (ended === '') return stdout;
  throw new CommandError(`${program} ${args.join(' ')}: ${ended}\n${printed}`.trim());
}
