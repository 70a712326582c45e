/**
 * Private copies of libraries: what is hashed here is what is loaded, from a path that nobody else
 * may overwrite and that is never used twice.
 *
 * The loader treats one inode, and one path while it is loaded, as one library with shared statics;
 * overwriting a loaded file crashes the process. So every load gets a new file.
 *
 * ```
 * <base>/                                           0700, or the caller's `cacheDir`
 *   changeover.<pid>.<start>.<namespace>.<random>/  0700, one for each store
 *     <label>-<random>.so                           0500, one for each load
 * ```
 *
 * The directory's name says who owns it, so that a later process can remove what a killed one left.
 * Every failure on the side of `<base>` is a `CacheDirError`; on the side of the source it is about
 * the library.
 */

import { createHash, randomBytes } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { CacheDirError, HandlerError, RegistryClosedError } from '../errors.js';
import { cacheAdvice, defaultBaseDir, makeStoreDirectory, removeIfEmpty } from './cache-dir.js';
import { checkLibraryFile } from './format/check.js';
import { type Integrity, IntegrityCheck } from './integrity.js';
import { isSafe, type SafetyRules } from './safety.js';
import {
  changedWhileCopied,
  isUnchanged,
  kindOf,
  notAFile,
  onSourceSide,
  openSource,
} from './source.js';
import { codeOf, messageOf, quote, unless } from './system-errors.js';
import { finish, libraryExtension, safeLabel, type Target, writeWhole } from './target.js';

/** One library's private copy. */
export interface PrivateCopy {
  /** Where it is: absolute, without symbolic links, and never used for another copy. */
  readonly path: string;
  /** The SHA-256 of its bytes: 64 lower-case hexadecimal digits. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** The library as the caller named it. */
  readonly sourcePath: string;
  /**
   * Removes the file; may be called again. A library that is loaded from it stays loaded on Unix.
   *
   * @throws {CacheDirError} if the file is still there afterwards (on Windows: while it is loaded).
   */
  remove(): Promise<void>;
}

export interface LibraryStoreOptions {
  /**
   * Where the copies go. Made (0700) if missing. Must not be writable by all users unless it is
   * sticky. Default: a private `changeover-<uid>` in the system's directory for temporary files.
   */
  cacheDir?: string | undefined;
}

/**
 * Small enough that hashing a chunk, which happens on the calling thread, takes well under 1 ms.
 */
const CHUNK_BYTES = 256 * 1024;

/** Once in the directory that was there, once in the one made because it was gone. */
const CREATE_ATTEMPTS = 2;

/** A file that is replaced faster than it can be opened is not a finished one. */
const OPEN_ATTEMPTS = 3;

/** What a library must be, beyond being one. By default it must be where nobody else can have put it. */
export interface CopyRules extends SafetyRules {
  integrity?: Integrity | undefined;
}

export class LibraryStore {
  readonly #baseDir: string;
  readonly #isDefaultBase: boolean;
  /**
   * This store's directory: made at first use, shared by all callers, dropped if making it failed.
   */
  #directory: Promise<string> | undefined;
  #isClosed = false;
  /** What is kept for all, by what it is. */
  readonly #kept = new Map<string, Promise<readonly PrivateCopy[]>>();

  constructor(options: LibraryStoreOptions = {}) {
    this.#isDefaultBase = options.cacheDir === undefined;
    // Resolved now: the process may change its working directory.
    this.#baseDir = resolve(options.cacheDir ?? defaultBaseDir());
  }

  /**
   * A new private copy of the library at `sourcePath`: whole, for this platform, with mode 0500.
   * `label` becomes the readable part of its name. Copies may be made in parallel. What fails
   * leaves no file behind.
   *
   * @throws {LibraryNotFoundError} if there is no file or it may not be read.
   * @throws {LibraryInvalidError} if it is not a whole shared library for this process, or changed
   *   while it was read.
   * @throws {UnsafeLibraryError} if somebody else could have put it there.
   * @throws {IntegrityError} if it is not what `integrity` says.
   * @throws {CacheDirError} if the copy cannot be written, or its directory is not private.
   * @throws {LoadFailedError} if the source cannot be read for another reason, such as an I/O
   *   error.
   * @throws {RegistryClosedError} after `close()`.
   */
  async copy(sourcePath: string, label: string, rules: CopyRules = {}): Promise<PrivateCopy> {
    const name = `${safeLabel(label)}-${randomBytes(8).toString('hex')}${libraryExtension()}`;
    return this.copyAs(sourcePath, name, rules);
  }

  /** As `copy`, with a file name that no other copy has. */
  async copyAs(
    sourcePath: string,
    name: string,
    { integrity, ...rules }: CopyRules = {},
  ): Promise<PrivateCopy> {
    const { source, before } = await this.#openSafely(sourcePath, rules);
    try {
      const target = await this.#onCacheSide(sourcePath, this.#create(name));
      try {
        const { sha256, sizeBytes } = await this.#fill(
          target.file,
          source,
          before,
          sourcePath,
          integrity === undefined ? null : new IntegrityCheck(integrity),
        );
        await this.#onCacheSide(sourcePath, finish(target));
        const { path } = target;
        return {
          path,
          sha256,
          sizeBytes,
          sourcePath,
          remove: () => this.#remove(path, sourcePath),
        };
      } catch (error) {
        // The first error says why; one that follows from cleaning up would hide it.
        await target.file.close().catch(() => {});
        await this.#remove(target.path, sourcePath).catch(() => {});
        throw error;
      }
    } finally {
      await source.close().catch(() => {});
    }
  }

  /**
   * Copies that all who bring the same use, until this store is closed: `fresh` and `finish`ed if they are the first with this
   * `key`, else those that there are, and `fresh` is removed.
   *
   * @throws what `finish` throws, or {RegistryClosedError} after `close()`; `fresh` is removed then.
   */
  async keep(
    key: string,
    fresh: readonly PrivateCopy[],
    finish: () => Promise<void>,
  ): Promise<readonly PrivateCopy[]> {
    const remove = () => Promise.all(fresh.map((copy) => copy.remove()));
    if (this.#isClosed) {
      await remove();
      throw storeClosed();
    }
    const known = this.#kept.get(key);
    if (known !== undefined) {
      await remove();
      return known;
    }
    const kept = finish().then(() => fresh);
    this.#kept.set(key, kept);
    try {
      return await kept;
    } catch (error) {
      this.#kept.delete(key);
      await remove();
      throw error;
    }
  }

  /**
   * Takes no more copies and removes the store's directory once it is empty: now, or with the last
   * copy's `remove()`. Files still in it are left alone. Never rejects; may be called again.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    const kept = await Promise.allSettled(this.#kept.values());
    this.#kept.clear();
    for (const copy of kept.flatMap((each) => (each.status === 'fulfilled' ? each.value : []))) {
      // What cannot be removed is a leftover that the next process removes.
      await copy.remove().catch(() => undefined);
    }
    const directory = await this.#directory?.catch(() => undefined);
    if (directory !== undefined) await removeIfEmpty(directory);
  }

  /** The library, opened, and its state: the file that was checked is the one that is copied. */
  async #openSafely(
    path: string,
    rules: SafetyRules,
  ): Promise<{ source: FileHandle; before: BigIntStats }> {
    for (let attempt = 1; ; attempt++) {
      const source = await openSource(path);
      try {
        const before = await onSourceSide(path, source.stat({ bigint: true }));
        if (!before.isFile()) throw notAFile(path, kindOf(before));
        if (await isSafe(path, before, rules)) return { source, before };
        if (attempt === OPEN_ATTEMPTS) throw changedWhileCopied(path);
      } catch (error) {
        await source.close().catch(() => {});
        throw error;
      }
      // A new one was renamed into its place meanwhile.
      await source.close().catch(() => {});
    }
  }

  /** Creates an empty file in the store's directory, which it makes again if a cleaner took it. */
  async #create(name: string): Promise<Target> {
    for (let attempt = 1; ; attempt++) {
      if (this.#isClosed) throw storeClosed();
      const pending = this.#openDirectory();
      const path = join(await pending, name);
      try {
        return { path, file: await open(path, 'wx+', 0o600) };
      } catch (error) {
        if (codeOf(error) !== 'ENOENT' || attempt === CREATE_ATTEMPTS) throw error;
        this.#forgetDirectory(pending);
      }
    }
  }

  /**
   * Copies, hashes and checks. The handle that wrote the copy also reads it: nothing comes
   * between.
   */
  async #fill(
    target: FileHandle,
    source: FileHandle,
    before: BigIntStats,
    sourcePath: string,
    integrity: IntegrityCheck | null,
  ): Promise<{ sha256: string; sizeBytes: number }> {
    const hash = createHash('sha256');
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    let sizeBytes = 0;
    // A file that grows as fast as it is read must not fill the disk.
    while (sizeBytes <= before.size) {
      const reading = source.read(chunk, 0, chunk.length, sizeBytes);
      const { bytesRead } = await onSourceSide(sourcePath, reading);
      if (bytesRead === 0) break;
      const bytes = chunk.subarray(0, bytesRead);
      hash.update(bytes);
      integrity?.update(bytes);
      await this.#onCacheSide(sourcePath, writeWhole(target, bytes, sizeBytes));
      sizeBytes += bytesRead;
    }
    const after = await onSourceSide(sourcePath, source.stat({ bigint: true }));
    if (BigInt(sizeBytes) !== before.size || !isUnchanged(before, after)) {
      throw changedWhileCopied(sourcePath);
    }
    // Verify integrity before parsing the file.
    integrity?.finish(sourcePath);
    await checkLibraryFile(target, sizeBytes, sourcePath);
    return { sha256: hash.digest('hex'), sizeBytes };
  }

  async #remove(path: string, sourcePath: string): Promise<void> {
    try {
      await unlink(path).catch(unless('ENOENT'));
    } catch (cause) {
      const message = `the private copy ${quote(path)} cannot be removed: ${messageOf(cause)}`;
      throw new CacheDirError(message, sourcePath, { cause });
    }
    if (this.#isClosed) await removeIfEmpty(dirname(path));
  }

  #openDirectory(): Promise<string> {
    if (this.#directory === undefined) {
      const pending = makeStoreDirectory(this.#baseDir, this.#isDefaultBase);
      this.#directory = pending;
      pending.catch(() => this.#forgetDirectory(pending));
    }
    return this.#directory;
  }

  /** Compared by identity: another caller may have begun to make the next one already. */
  #forgetDirectory(pending: Promise<string>): void {
    if (this.#directory === pending) this.#directory = undefined;
  }

  /** Failures to make or write a copy, which several loads may share, as errors of one load. */
  async #onCacheSide<T>(sourcePath: string, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (cause) {
      if (cause instanceof HandlerError) throw cause;
      throw new CacheDirError(
        `no private copy of ${quote(sourcePath)} can be kept in ${quote(this.#baseDir)}: ` +
          cacheAdvice(cause),
        sourcePath,
        { cause },
      );
    }
  }
}

function storeClosed(): RegistryClosedError {
  return new RegistryClosedError('the store of library copies is closed');
}
