/** Where the dynamic loader finds what a library needs: what `ldd` does, without running anything of the library. */

import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import { childEnv } from '../child-env.js';
import { readElfFacts } from './elf-facts.js';

const LIST_TIMEOUT_MS = 10_000;

export interface Dependency {
  name: string;
  /** The file; null if there is none, undefined if that could not be told. */
  path?: string | null;
}

/** The libraries of `needed` in that order, each with the file that Node's own loader finds. */
export async function resolveDependencies(
  library: string,
  needed: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Dependency[]> {
  const listing = await listWithLoader(library, env);
  if (listing === null) return needed.map((name) => ({ name }));
  const found = parseListing(listing);
  return needed.map((name) => {
    const path = found.get(name);
    return path === undefined ? { name } : { name, path };
  });
}

/** "name => path (0x...)", "name => not found", and "path (0x...)" for the loader itself. */
export function parseListing(listing: string): Map<string, string | null> {
  const found = new Map<string, string | null>();
  for (const line of listing.split('\n')) {
    const [, name, target] = /^\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$/.exec(line) ?? [];
    if (name !== undefined && target !== undefined) {
      found.set(name, target === 'not found' ? null : target);
      continue;
    }
    const [, path] = /^\s*(\/\S+) \(0x[0-9a-f]+\)$/.exec(line) ?? [];
    if (path !== undefined) found.set(path.slice(path.lastIndexOf('/') + 1), path);
  }
  return found;
}

async function listWithLoader(
  library: string,
  env: Readonly<Record<string, string>>,
): Promise<string | null> {
  const node = await open(process.execPath, 'r');
  const { interpreter } = await readElfFacts(node).finally(() => node.close());
  if (interpreter === null) return null;
  return new Promise((resolve) => {
    // What ldd does. glibc's `--list` would give up at the first that is missing, musl knows nothing else.
    const isMusl = interpreter.includes('ld-musl');
    const args = isMusl ? ['--list', library] : [library];
    const trace: Record<string, string> = isMusl ? {} : { LD_TRACE_LOADED_OBJECTS: '1' };
    const limits = { timeout: LIST_TIMEOUT_MS, killSignal: 'SIGKILL' } as const;
    const options = { ...limits, env: { ...childEnv(env), ...trace } };
    // Its exit code is not 0 if something was not found, which is what is asked.
    execFile(interpreter, args, options, (_error, stdout) => {
      resolve(stdout === '' ? null : stdout);
    });
  });
}
