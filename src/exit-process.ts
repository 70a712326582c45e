/**
 * Ends a process that `process.exit()` cannot end: Node waits for its worker threads, and one that is stuck in a native
 * call never comes back.
 */

let exitNow: ((code: number) => void) | null = null;

/**
 * Binds the C library's `_exit`. Done before the first handler is loaded: a library whose constructor hangs holds the
 * dynamic loader's lock, and after that nothing can be bound any more.
 */
export async function prepareExit(): Promise<void> {
  if (exitNow !== null) return;
  const { bindExit } = await import('../workers/native-library.js');
  exitNow = bindExit();
}

/**
 * Ends the process, whatever native calls are doing. `exit` listeners run as with `process.exit(code)`; then the C
 * library's `_exit` is called. As with `process.exit()`, output that is still buffered may be lost: await your writes
 * before.
 *
 * @param code Exit code; default `process.exitCode`, or 0.
 */
export async function exitProcess(code?: number): Promise<never> {
  await prepareExit();
  process.on('exit', (finalCode) => exitNow?.(finalCode));
  process.exit(code);
}
