/** The environment of a child process. */

/**
 * What the dynamic loader took from this process's environment when it started. Without them a child would not find the
 * libraries that this process finds, and its verdict would be about something else. Windows needs its root to start at all.
 */
const LOADER_VARIABLES = [
  'LD_LIBRARY_PATH',
  'LD_PRELOAD',
  'GLIBC_TUNABLES',
  'DYLD_LIBRARY_PATH',
  'DYLD_FALLBACK_LIBRARY_PATH',
  'DYLD_INSERT_LIBRARIES',
  ...(process.platform === 'win32' ? ['SystemRoot', 'PATH'] : []),
];

/** `given`, and how the dynamic loader is set up here. Nothing else of this process's environment. */
export function childEnv(given: Readonly<Record<string, string>>): Record<string, string> {
  const env: Record<string, string> = {};
  for (const name of LOADER_VARIABLES) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  return { ...env, ...given };
}
