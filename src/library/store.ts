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
import { type BigIntStats, constants } from 'node:fs';
import {
  access,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rmdir,
  stat,
  unlink,
} from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import {
  CacheDirError,
  HandlerError,
  LibraryInvalidError,
  LibraryNotFoundError,
  LoadFailedError,
  RegistryClosedError,
} from '../errors.js';
import { checkLibraryFile } from './format.js';

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

/** A base name may have 255 bytes: this leaves room for the random part and the extension. */
const MAX_LABEL_CHARACTERS = 96;

/** Once in the directory that was there, once in the one made because it was gone. */
const CREATE_ATTEMPTS = 2;

export class LibraryStore {
  readonly #baseDir: string;
  readonly #isDefaultBase: boolean;
  /**
   * This store's directory: made at first use, shared by all callers, dropped if making it failed.
   */
  #directory: Promise<string> | undefined;
  #isClosed = false;

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
   * @throws {CacheDirError} if the copy cannot be written, or its directory is not private.
   * @throws {LoadFailedError} if the source cannot be read for another reason, such as an I/O
   *   error.
   * @throws {RegistryClosedError} after `close()`.
   */
  async copy(sourcePath: string, label: string): Promise<PrivateCopy> {
    const source = await openSource(sourcePath);
    try {
      const before = await onSourceSide(sourcePath, source.stat({ bigint: true }));
      if (!before.isFile()) throw notAFile(sourcePath, kindOf(before));
      const name = `${safeLabel(label)}-${randomBytes(8).toString('hex')}${libraryExtension()}`;
      const target = await this.#onCacheSide(sourcePath, this.#create(name));
      try {
        const { sha256, sizeBytes } = await this.#fill(target.file, source, before, sourcePath);
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
   * Takes no more copies and removes the store's directory once it is empty: now, or with the last
   * copy's `remove()`. Files still in it are left alone. Never rejects; may be called again.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    const directory = await this.#directory?.catch(() => undefined);
    if (directory !== undefined) await removeIfEmpty(directory);
  }

  /** Creates an empty file in the store's directory, which it makes again if a cleaner took it. */
  async #create(name: string): Promise<Target> {
    for (let attempt = 1; ; attempt++) {
      if (this.#isClosed) throw new RegistryClosedError('the store of library copies is closed');
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
      await this.#onCacheSide(sourcePath, writeWhole(target, bytes, sizeBytes));
      sizeBytes += bytesRead;
    }
    const after = await onSourceSide(sourcePath, source.stat({ bigint: true }));
    if (BigInt(sizeBytes) !== before.size || !isUnchanged(before, after)) {
      throw changedWhileCopied(sourcePath);
    }
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

// ---- The copy -----------------------------------------------------------------------------------

interface Target {
  path: string;
  file: FileHandle;
}

async function writeWhole(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const left = bytes.length - done;
    const { bytesWritten } = await file.write(bytes, done, left, position + done);
    done += bytesWritten;
  }
}

async function finish(target: Target): Promise<void> {
  await target.file.chmod(0o500);
  await target.file.close();
  // On a file system mounted `noexec` the loader's message would be "Operation not permitted";
  // access(2) tells before.
  await access(target.path, constants.X_OK);
}

function safeLabel(label: string): string {
  return label.replace(/[^A-Za-z0-9_.-]/g, '_').slice(0, MAX_LABEL_CHARACTERS);
}

function libraryExtension(): string {
  if (process.platform === 'win32') return '.dll';
  return process.platform === 'darwin' ? '.dylib' : '.so';
}

// ---- The source ---------------------------------------------------------------------------------

/** Non-blocking, since opening a fifo would otherwise wait for a writer. Windows has neither. */
const SOURCE_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

const MAX_SUGGESTIONS = 5;

/**
 * Whether a file is the same and holds what it held. A change within one tick of the file system's
 * clock (some milliseconds) that keeps the size cannot be seen.
 */
export function isUnchanged(before: FileState, after: FileState): boolean {
  return (
    before.ino === after.ino &&
    before.size === after.size &&
    before.mtimeNs === after.mtimeNs &&
    before.ctimeNs === after.ctimeNs
  );
}

export type FileState = Pick<BigIntStats, 'ino' | 'size' | 'mtimeNs' | 'ctimeNs'>;

async function openSource(path: string): Promise<FileHandle> {
  try {
    return await open(path, SOURCE_FLAGS);
  } catch (cause) {
    throw await openError(path, cause);
  }
}

async function openError(path: string, cause: unknown): Promise<Error> {
  const notFound = (why: string) =>
    new LibraryNotFoundError(`cannot read the library ${quote(path)}: ${why}`, path, { cause });
  switch (codeOf(cause)) {
    case 'ENOENT':
      return notFound(await missingAdvice(path));
    case 'ENOTDIR':
      return notFound('a part of its path is not a directory; correct the path');
    case 'EACCES':
    case 'EPERM':
      return notFound('this user may not read it, or not enter its directory; grant that');
    case 'ELOOP':
      return notFound('its symbolic links form a loop; correct the link');
    case 'ENAMETOOLONG':
      return notFound('its path is longer than the system allows; correct the path');
    case 'EISDIR':
      return notAFile(path, 'a directory');
    case 'ENXIO':
    case 'ENODEV':
    case 'EOPNOTSUPP':
      return notAFile(path, 'a socket or device');
    default:
      return sourceFailure(path, cause);
  }
}

async function missingAdvice(path: string): Promise<string> {
  const directory = dirname(resolve(path));
  const names = await readdir(directory).catch(() => undefined);
  if (names === undefined) {
    return `there is no directory ${quote(directory)} that can be listed; correct the path`;
  }
  const wanted = basename(path);
  const similar = names
    .filter((name) => /^(lib)?handler_[A-Za-z0-9_-]+\.(so|dylib|dll)$/.test(name))
    .sort((a, b) => sharedPrefix(b, wanted) - sharedPrefix(a, wanted) || (a < b ? -1 : 1))
    .slice(0, MAX_SUGGESTIONS);
  if (similar.length === 0) return 'its directory has no handler library; build it or correct it';
  return `no such file; its directory has ${similar.join(', ')}`;
}

function sharedPrefix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

async function onSourceSide<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    throw sourceFailure(path, cause);
  }
}

function sourceFailure(path: string, cause: unknown): LoadFailedError {
  const message = `reading the library ${quote(path)} failed: ${messageOf(cause)}`;
  return new LoadFailedError(message, path, { cause });
}

function notAFile(path: string, got: string): LibraryInvalidError {
  return new LibraryInvalidError(
    'not-a-file',
    `cannot load ${quote(path)}: expected a regular file, got ${got}. Name the library itself.`,
    path,
  );
}

function changedWhileCopied(path: string): LibraryInvalidError {
  return new LibraryInvalidError(
    'changed-while-copied',
    `cannot load ${quote(path)}: expected a finished file, got one that changed while it was ` +
      'copied. Write new versions under another name, rename them into place, then load.',
    path,
  );
}

function kindOf(stats: BigIntStats): string {
  if (stats.isDirectory()) return 'a directory';
  if (stats.isFIFO()) return 'a fifo';
  return 'a device';
}

// ---- The directories ----------------------------------------------------------------------------

function defaultBaseDir(): string {
  const uid = process.geteuid?.();
  // On Windows the directory for temporary files is the user's own.
  return join(tmpdir(), uid === undefined ? 'changeover' : `changeover-${uid}`);
}

async function makeStoreDirectory(baseDir: string, isDefaultBase: boolean): Promise<string> {
  await (isDefaultBase ? makePrivateBase(baseDir) : makeCallersBase(baseDir));
  // The list of mappings shows real paths, and a link in between must not be changed later.
  const base = await realpath(baseDir);
  const owner = await thisProcess();
  await sweep(base, owner);
  const directory = join(base, directoryName(owner));
  await mkdir(directory, { mode: 0o700 });
  return directory;
}

/** The default base is at a path that anyone can guess, in a directory where anyone may create. */
async function makePrivateBase(dir: string): Promise<void> {
  await mkdir(dir, { mode: 0o700 }).catch(unless('EEXIST'));
  const stats = await lstat(dir);
  const advice = 'remove it, or pass another directory as `cacheDir`';
  if (stats.isSymbolicLink()) throw new Error(`it is a symbolic link; ${advice}`);
  if (!stats.isDirectory()) throw new Error(`it is not a directory; ${advice}`);
  const uid = process.geteuid?.();
  // Windows has no mode bits to judge by.
  if (uid === undefined) return;
  if (stats.uid !== uid) throw new Error(`it belongs to user ${stats.uid}, not ${uid}; ${advice}`);
  if ((stats.mode & 0o077) !== 0) {
    const mode = (stats.mode & 0o777).toString(8);
    throw new Error(`others may use it (mode ${mode}); make that 700, ${advice}`);
  }
}

async function makeCallersBase(dir: string): Promise<void> {
  await makeDirectories(dir);
  const stats = await stat(dir);
  if (!stats.isDirectory()) throw new Error('it is not a directory; pass another `cacheDir`');
  const isUnix = process.geteuid !== undefined;
  // Without the sticky bit, whoever may write here may also replace the store's directory.
  if (isUnix && (stats.mode & 0o002) !== 0 && (stats.mode & 0o1000) === 0) {
    throw new Error(
      'every user may write there; take that away (chmod o-w), or pass another `cacheDir`',
    );
  }
}

/**
 * Tries each level once. `mkdir` with `recursive: true` never returns where a parent exists that
 * takes no entries, such as `/proc`: on ENOENT, Node makes the parent and tries again, for ever.
 */
async function makeDirectories(dir: string): Promise<void> {
  if (await exists(dir)) return;
  const parent = dirname(dir);
  if (parent !== dir) await makeDirectories(parent);
  await mkdir(dir, { mode: 0o700 }).catch(unless('EEXIST'));
}

async function exists(path: string): Promise<boolean> {
  const stats = await stat(path).catch(unless('ENOENT'));
  return stats !== undefined;
}

/** For a system error whose code has no advice of its own, the error's message. */
function cacheAdvice(cause: unknown): string {
  switch (codeOf(cause)) {
    case 'ENOSPC':
      return 'the file system is full; free space, or pass a `cacheDir` on another';
    case 'EDQUOT':
      return 'the disk quota is used up; free space, or pass a `cacheDir` elsewhere';
    case 'EROFS':
      return 'the file system is read-only; pass a `cacheDir` that can be written';
    case 'EACCES':
    case 'EPERM':
      return (
        'this user may not write there, or the file system is mounted noexec; ' +
        'pass a `cacheDir` that can be written and loaded from'
      );
    case 'EMFILE':
    case 'ENFILE':
      return 'too many files are open; raise the limit (ulimit -n)';
    case 'ENOENT':
      return 'a directory in its path is missing; make it, or pass another `cacheDir`';
    case 'EEXIST':
    case 'ENOTDIR':
      return 'it, or a part of its path, is not a directory; pass another `cacheDir`';
    default:
      return messageOf(cause);
  }
}

/** Best effort: a directory that cannot be removed is a leftover, not a reason to fail. */
async function removeIfEmpty(directory: string): Promise<void> {
  await rmdir(directory).catch(() => {});
}

// ---- Owners, and what dead ones left ------------------------------------------------------------

/** A process, told apart from every other that has, had or will have its pid. */
interface Owner {
  pid: number;
  /** In clock ticks after boot; empty where the system does not tell. */
  startTime: string;
  /** Where the pid means something: host and, on Linux, pid namespace. */
  namespace: string;
}

const DIRECTORY_NAME = /^changeover\.([1-9][0-9]*)\.([0-9]*)\.([0-9a-f-]+)\.[0-9a-f]+$/;

function directoryName({ pid, startTime, namespace }: Owner): string {
  return `changeover.${pid}.${startTime}.${namespace}.${randomBytes(6).toString('hex')}`;
}

function parseDirectoryName(name: string): Owner | undefined {
  const [, pid, startTime, namespace] = DIRECTORY_NAME.exec(name) ?? [];
  if (pid === undefined || startTime === undefined || namespace === undefined) return undefined;
  return { pid: Number(pid), startTime, namespace };
}

async function thisProcess(): Promise<Owner> {
  const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 12);
  // The number alone would not do where hosts share a cache: it is the same on every host.
  const link = await readlink('/proc/self/ns/pid').catch(() => '');
  const inode = /\d+/.exec(link)?.[0];
  return {
    pid: process.pid,
    startTime: await startTimeOf('self', process.pid),
    namespace: inode === undefined ? host : `${inode}-${host}`,
  };
}

/**
 * A process's start time in clock ticks after boot, from field 22 of `/proc/<pid>/stat`
 * (proc_pid_stat(5)); empty where there is none.
 *
 * The pid is compared because `/proc` may be that of another pid namespace.
 */
async function startTimeOf(entry: string, pid: number): Promise<string> {
  const text = await readFile(`/proc/${entry}/stat`, 'latin1').catch(() => '');
  if (!text.startsWith(`${pid} (`)) return '';
  // Field 2 is the program's name, which may contain spaces and parentheses; field 3 follows it.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields[22 - 3] ?? '';
}

async function isAlive(owner: Owner, self: Owner): Promise<boolean> {
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    return codeOf(error) !== 'ESRCH';
  }
  // Start times compare only if this process can see its own; in doubt the owner lives.
  if (owner.startTime === '' || self.startTime === '') return true;
  const startTime = await startTimeOf(String(owner.pid), owner.pid);
  return startTime === '' || startTime === owner.startTime;
}

/**
 * Removes the directories that dead processes left in `base`. Best effort, in any company: what
 * cannot be read or removed, or is being removed by another sweeper, stays or goes without an
 * error.
 */
async function sweep(base: string, self: Owner): Promise<void> {
  for (const name of await readdir(base).catch(() => [])) {
    const owner = parseDirectoryName(name);
    if (owner === undefined || owner.namespace !== self.namespace) continue;
    if (!(await isAlive(owner, self))) await removeLeftover(join(base, name)).catch(() => {});
  }
}

/**
 * Not recursive: a store's directory holds files only. And only the user's own, so that in a shared
 * `cacheDir` no other user can send a sweeper through links of his.
 */
async function removeLeftover(directory: string): Promise<void> {
  const stats = await lstat(directory);
  if (!stats.isDirectory() || stats.uid !== (process.geteuid?.() ?? stats.uid)) return;
  for (const name of await readdir(directory)) {
    await unlink(join(directory, name)).catch(unless('ENOENT'));
  }
  await rmdir(directory);
}

// ---- System errors ------------------------------------------------------------------------------

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** For `catch`: takes the error with this code for success. */
function unless(code: string): (error: unknown) => void {
  return (error) => {
    if (codeOf(error) !== code) throw error;
  };
}

/** As JSON: a path may contain anything, and messages go to logs. */
function quote(path: string): string {
  return JSON.stringify(path);
}
