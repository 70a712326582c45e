/** Large memory that costs only what is touched. */

let discard: ((memory: Uint8Array, length: number) => void) | null = null;

/** Binds what `discardPages` calls. */
export async function prepareDiscarding(): Promise<void> {
  const { bindDiscard } = await import('../workers/c-functions.js');
  discard ??= bindDiscard();
}

/**
 * Zeroed shared memory of `byteLength` bytes. Pages become resident when they are first touched, and go back to the
 * system when the buffer is collected.
 *
 * A plain buffer comes from `malloc`, which after a few of this size keeps them in its arenas: 100 reloads of a handler
 * then left 200 MB resident. A growable one is mapped by V8 itself. Views of it must be given their length: one
 * that follows the buffer's length is slower to access.
 */
export function reserveShared(byteLength: number): SharedArrayBuffer {
  return new SharedArrayBuffer(byteLength, { maxByteLength: byteLength });
}

/**
 * Gives the pages of such memory back to the system at once; what was in them is gone. Where that
 * cannot be had, they go when the buffer is collected.
 */
export function discardPages(memory: SharedArrayBuffer): void {
  discard?.(new Uint8Array(memory, 0, memory.byteLength), memory.byteLength);
}
