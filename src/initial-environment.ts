/** The environment that this process was started with. */

import { readFileSync } from 'node:fs';

let initial: Readonly<Record<string, string | undefined>> | null = null;

/**
 * The dynamic loader has read it once, and ignores what has been set since. A worker thread's
 * `process.env` may be another one altogether, which is what this returns where the system does not
 * tell.
 */
export function initialEnvironment(): Readonly<Record<string, string | undefined>> {
  initial ??= readInitial();
  return initial;
}

function readInitial(): Readonly<Record<string, string | undefined>> {
  if (process.platform !== 'linux') return process.env;
  let text: string;
  try {
    text = readFileSync('/proc/self/environ', 'utf8');
  } catch {
    // No /proc, or a process that has changed its user and may no longer read it.
    return process.env;
  }
  const variables = text.split('\0').map((line): [string, string] => {
    const end = line.indexOf('=');
    return [line.slice(0, end), line.slice(end + 1)];
  });
  return Object.fromEntries(variables);
}
