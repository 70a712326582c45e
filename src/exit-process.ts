/**
 * Ends a process that `process.exit()` cannot end: Node waits for its worker threads, and one that is stuck in a native
 * call never comes back.
 */

/**
 * Ends the process with `code`, whatever native calls are doing. `exit` listeners run as with `process.exit()`; then
 * the C library's `_exit` is called. As with `process.exit()`, output that is still buffered may be lost: await your
 * writes before.
 */
export async function exitProcess(code = 0): Promise<never> {
  const { exitWithoutWaiting } = await import('../workers/native-library.js');
  process.on('exit', (finalCode) => exitWithoutWaiting(finalCode));
  process.exit(code);
}
