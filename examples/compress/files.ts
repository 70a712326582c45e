/** What there is to compress: the files of a directory, cut into blocks. */
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface FoundFile {
  path: string;
  bytes: number;
}

export interface Tree {
  files: FoundFile[];
  /** Directories and files that could not be looked at. */
  unreadable: number;
}

/** One request: a part of a file, or all of it. */
export interface Block {
  path: string;
  offset: number;
  length: number;
}

/** All files below `directory`. Symbolic links and whatever is no plain file are left out. */
export async function findFiles(directory: string): Promise<Tree> {
  const tree: Tree = { files: [], unreadable: 0 };
  const directories = [directory];
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    const parent = next;
    const entries = await readdir(parent, { withFileTypes: true }).catch(() => undefined);
    if (entries === undefined) {
      tree.unreadable++;
      continue;
    }
    for (const entry of entries) {
      if (entry.isDirectory()) directories.push(join(parent, entry.name));
    }
    const paths = entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(parent, entry.name));
    const sizes = await Promise.all(paths.map(sizeOf));
    sizes.forEach((bytes, index) => {
      const path = paths[index];
      if (bytes === undefined || path === undefined) tree.unreadable++;
      else tree.files.push({ path, bytes });
    });
  }
  return tree;
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    (stats) => stats.size,
    () => undefined,
  );
}

/** The files as blocks of at most `chunkBytes`; an empty file is one empty block. */
export function cutIntoBlocks(files: readonly FoundFile[], chunkBytes: number): Block[] {
  return files.flatMap(({ path, bytes }) => {
    const count = Math.max(1, Math.ceil(bytes / chunkBytes));
    return Array.from({ length: count }, (_, index) => {
      const offset = index * chunkBytes;
      return { path, offset, length: Math.min(chunkBytes, bytes - offset) };
    });
  });
}

/**
 * The same items, neighbours far apart, in the same order every time. In directory order one
 * version would get all of a large file, and the ratios of the two could not be compared.
 */
export function spread<T>(items: readonly T[]): T[] {
  let stride = Math.max(1, Math.round(items.length * 0.618));
  while (greatestCommonDivisor(stride, items.length) > 1) stride++;
  return items.map((_, index) => items[(index * stride) % items.length] as T);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** Consecutive items with at most `limit` bytes together, but at least one item each. */
export function* batches<T>(items: Iterable<T>, limit: number, bytesOf: (item: T) => number) {
  let batch: T[] = [];
  let bytes = 0;
  for (const item of items) {
    if (batch.length > 0 && bytes + bytesOf(item) > limit) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(item);
    bytes += bytesOf(item);
  }
  if (batch.length > 0) yield batch;
}

/** The block's bytes; fewer if the file has become shorter; `undefined` if it cannot be read. */
export async function readBlock(block: Block): Promise<Uint8Array | undefined> {
  const bytes = new Uint8Array(block.length);
  try {
    await using file = await open(block.path);
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await file.read(bytes, {
        offset: filled,
        position: block.offset + filled,
      });
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  } catch {
    return undefined;
  }
}

export function sum<T>(items: readonly T[], numberOf: (item: T) => number): number {
  return items.reduce((total, item) => total + numberOf(item), 0);
}
