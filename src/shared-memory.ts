/** Large memory that costs only what is touched. */

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
