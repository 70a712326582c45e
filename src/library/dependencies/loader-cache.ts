/**
 * `/etc/ld.so.cache`: where glibc's loader finds what is on no path that it is told. Format: glibc,
 * sysdeps/generic/dl-cache.h.
 */

import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { codeOf } from '../system-errors.js';

const CACHE_PATH = '/etc/ld.so.cache';
const MAGIC = 'glibc-ld.so.cache1.1';
/** What an older format begins with, which this one may follow. */
const OLD_MAGIC = 'ld.so-1.7.0\0';
const HEADER_BYTES = 48;
const ENTRY_BYTES = 24;
/** Larger than any real one by far. */
const MOST_ENTRIES = 1_000_000;

export interface LoaderCache {
  /** By name, in the order in which the loader looks at them. */
  readonly paths: ReadonlyMap<string, readonly string[]>;
  /** The directories of all these paths. */
  readonly directories: ReadonlySet<string>;
}

/** What was read last, and what identifies that state of the file. */
let last: { state: string; cache: LoaderCache } | null = null;

/** Empty where there is no such cache. Parsed again only when the file has changed. */
export function readLoaderCache(path = CACHE_PATH): LoaderCache {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    // musl has none, and a small image need not have one.
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'EACCES') return withDirectories(new Map());
    throw error;
  }
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = fstatSync(descriptor, { bigint: true });
    const state = [dev, ino, size, mtimeNs, ctimeNs].join(' ');
    if (last?.state !== state) {
      last = { state, cache: withDirectories(parseLoaderCache(readFileSync(descriptor))) };
    }
    return last.cache;
  } finally {
    closeSync(descriptor);
  }
}

function withDirectories(paths: LoaderCache['paths']): LoaderCache {
  const directories = new Set<string>();
  for (const each of paths.values()) for (const path of each) directories.add(dirname(path));
  return { paths, directories };
}

/** Of a cache that is not understood, nothing. */
export function parseLoaderCache(bytes: Buffer): LoaderCache['paths'] {
  /** Of each name, what is for all processors, and variants for some of them. */
  const found = new Map<string, { common: string[]; variants: string[] }>();
  const isAt = (at: number, magic: string) =>
    bytes.toString('latin1', at, at + magic.length) === magic;
  const start = isAt(0, OLD_MAGIC) ? bytes.indexOf(MAGIC) : 0;
  if (start < 0 || !isAt(start, MAGIC)) return new Map();
  const table = bytes.subarray(start);
  if (table.length < HEADER_BYTES) return new Map();
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  // As the machine has it.
  const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  const count = Math.min(view.getUint32(MAGIC.length, little), MOST_ENTRIES);
  const text = (at: number): string => {
    const end = table.indexOf(0, at);
    return end === -1 ? '' : table.toString('utf8', at, end);
  };
  for (let index = 0; index < count; index++) {
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    if (at + ENTRY_BYTES > table.length) break;
    const name = text(view.getUint32(at + 4, little));
    const path = text(view.getUint32(at + 8, little));
    // Which processors a variant is for is not told apart here, so these are looked for last.
    const isVariant = view.getBigUint64(at + 16, little) !== 0n;
    const paths = found.get(name) ?? { common: [], variants: [] };
    (isVariant ? paths.variants : paths.common).push(path);
    found.set(name, paths);
  }
  return new Map(
    [...found].map(([name, { common, variants }]) => [name, [...common, ...variants]]),
  );
}
