/** What command lines have in common: one line that says what is wrong, and numbers in a range. */

/** The command line cannot be followed. The message is one line and says what to do. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** What `parseArgs` did not like. `help` is how to see the options. */
export function usageError(error: unknown, help: string): UsageError {
  // Node's advice about options that look like values goes on for another line: one is enough.
  const [problem = ''] = (error as Error).message.split(/\. |\n/);
  return new UsageError(`${problem}; run with ${help} to see the options`);
}

/**
 * The number in `text`; undefined if there is no text.
 *
 * @throws {UsageError} if it is none, or out of range.
 */
export function number(
  option: string,
  text: string | undefined,
  least: number,
  most: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== '' && value >= least && value <= most) return value;
  throw new UsageError(`${option} must be a number from ${least} to ${most}, got "${text}"`);
}
