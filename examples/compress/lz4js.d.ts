/** The part of lz4js that the demo uses: it has no types of its own. */
declare module 'lz4js' {
  /**
   * Decodes the LZ4 block at `source[sourceIndex]` into `target`, and returns where it stopped
   * writing. Does not check the block: bytes beyond the end of `target` are dropped.
   */
  export function decompressBlock(
    source: Uint8Array,
    target: Uint8Array,
    sourceIndex: number,
    sourceLength: number,
    targetIndex: number,
  ): number;
}
