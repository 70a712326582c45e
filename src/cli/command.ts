/** What a command of the CLI is. */

import { type ParseArgsConfig, parseArgs } from 'node:util';
import { messageOf } from '../library/system-errors.js';

export interface Command {
  /** One line for the list of commands. */
  summary: string;
  /** The whole text of `--help`, with a newline at its end. */
  help: string;
  /**
   * Resolves with the exit code.
   *
   * @throws {UsageError} if it was called wrongly.
   */
  run(args: string[]): Promise<number>;
}

export class UsageError extends Error {}

/** As `parseArgs`, whose errors become usage errors. */
export function parse<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (cause) {
    const message = messageOf(cause);
    throw new UsageError(message, { cause });
  }
}
