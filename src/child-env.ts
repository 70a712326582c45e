/** The environment of a child process. */

import { initialEnvironment } from './initial-environment.js';

/**
 * What the dynamic loader takes from a process's environment when it starts (ld.so(8)). Without them a child would not find the
 * libraries that this process finds. They are named one by one: `LD_SDK_KEY`, say, is another program's, and a secret.
 * Windows needs its root to start at all.
 */
const LOADER_VARIABLES = [
  'LD_ASSUME_KERNEL',
  'LD_AUDIT',
  'LD_BIND_NOT',
  'LD_BIND_NOW',
  'LD_DYNAMIC_WEAK',
  'LD_HWCAP_MASK',
  'LD_LIBRARY_PATH',
  'LD_ORIGIN_PATH',
  'LD_POINTER_GUARD',
  'LD_PREFER_MAP_32BIT_EXEC',
  'LD_PRELOAD',
  'LD_USE_LOAD_BIAS',
  'GLIBC_TUNABLES',
  'DYLD_LIBRARY_PATH',
  'DYLD_FALLBACK_LIBRARY_PATH',
  'DYLD_INSERT_LIBRARIES',
  ...(process.platform === 'win32' ? ['SystemRoot', 'PATH'] : []),
];

let loaderVariables: Readonly<Record<string, string>> | null = null;

/** `given`, and how the dynamic loader is set up here. Nothing else of this process's environment. */
export function childEnv(given: Readonly<Record<string, string>>): Record<string, string> {
  loaderVariables ??= readLoaderVariables();
  return { ...loaderVariables, ...given };
}

function readLoaderVariables(): Record<string, string> {
  const all = initialEnvironment();
  const env: Record<string, string> = {};
  for (const name of LOADER_VARIABLES) {
    const value = all[name];
    if (value !== undefined) env[name] = value;
  }
  return env;
}
