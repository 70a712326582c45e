/**
 * What happens to a private copy before anything loads it: it is looked into, what comes with it is
 * copied too, and the copies are changed so that the version is a whole of its own.
 *
 * 1. *Survey* (in a worker thread): what does it need, what of that comes along, which statics
 *    would it share with other versions?
 * 2. *Copies* of what comes along, under names that no other version has. The loader knows a
 *    library by its name: asked for one that it has already, it looks no further, and the next
 *    version would get this one's.
 * 3. *Patches* (in the worker thread): the copies ask for each other by these names, and their
 *    unique symbols become ordinary.
 *
 * What keeps threads of its own (OpenMP and the like) is never unmapped. So that a swap does not
 * leave one more each time, versions which bring the same one share it.
 */

import { strict as assert } from 'node:assert';
import { createHash, randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import { childEnv } from '../../child-env.js';
import { BindingConflictError, CacheDirError, LoadError, LoadFailedError } from '../../errors.js';
import { initialEnvironment } from '../../initial-environment.js';
import type { BindingOption, Isolation } from '../../options.js';
import type { BindingConflict, BindingReport } from '../binding/decide.js';
import { SHIM_SONAME } from '../binding/shim.js';
import { cacheAdvice } from '../cache-dir.js';
import { ElfError } from '../elf/bytes.js';
import { type LoadPlan, plainPlan } from '../load-plan.js';
import { whyMapped } from '../pins.js';
import type { SafetyRules } from '../safety.js';
import type { LibraryStore, PrivateCopy } from '../store.js';
import { codeOf, messageOf, quote } from '../system-errors.js';
import { safeLabel } from '../target.js';
import { changesNothingElse, type Patched, type PatchTask, UNCHANGED } from './patch-task.js';
import { askPatch, askSurvey } from './prepare-thread.js';
import type { HandlerDependency, LibraryPatch, SharedStatics } from './report.js';
import type { Survey, SurveyedLibrary } from './survey.js';

export interface PrepareParts {
  store: LibraryStore;
  copy: PrivateCopy;
  isolation: Isolation;
  /** Whose symbols come first, as the option says. */
  binding: BindingOption;
  /** The environment of the handler's processes. */
  env: Readonly<Record<string, string>>;
  /** What libraries that come along must be, as the handler itself. */
  rules: SafetyRules;
  /** Aborted once nobody waits for the result any more. */
  signal?: AbortSignal;
}

/** A library of which this version has a copy of its own. */
export interface OwnLibrary {
  name: string;
  path: string;
}

/** A library that is ready to be loaded. */
export interface Prepared {
  plan: LoadPlan;
  /** How its symbols are bound, and why. */
  binding: BindingReport;
  dependencies: HandlerDependency[];
  patches: LibraryPatch[];
  sharedStatics: SharedStatics | null;
  /** Why the copy was left as it is; null if it was not. */
  obstacle: string | null;
  /** What comes along and is this version's alone. */
  ownLibraries: OwnLibrary[];
  /**
   * By the path of a copy: why it may still be mapped once everybody has closed it, if its file
   * tells.
   */
  whyMapped: ReadonlyMap<string, string>;
  /** What is mapped for good, with a name that says so to people. */
  lasting: OwnLibrary[];
  /** Removes the copies of what comes along; may be called again. */
  remove(): Promise<void>;
}

/**
 * Makes a copy ready. What fails leaves nothing behind but the copy itself.
 *
 * @throws {LoadError} if something that comes along may not be loaded, or copies cannot be written.
 */
export async function prepareLibrary(parts: PrepareParts): Promise<Prepared> {
  const { copy, isolation, env, binding } = parts;
  if (process.platform !== 'linux') {
    return untouched(copy, 'only ELF files are changed, and this platform has others');
  }
  const inOwnProcess = isolation === 'process';
  const environment = inOwnProcess ? childEnv(env) : initialEnvironment();
  let survey: Survey;
  try {
    const task = {
      copyPath: copy.path,
      sourcePath: copy.sourcePath,
      libraryPath: environment['LD_LIBRARY_PATH'] ?? '',
      binding,
      inOwnProcess,
    };
    survey = await askSurvey(task, parts.signal);
  } catch (error) {
    if (error instanceof ElfError) return untouched(copy, messageOf(error));
    throw notSurveyed(copy, error);
  }
  const { conflict } = survey.binding;
  if (conflict !== null) throw bindingConflict(copy.sourcePath, conflict);
  return new Preparation(parts, survey).run();
}

function untouched(copy: PrivateCopy, obstacle: string): Prepared {
  return {
    plan: plainPlan(copy.path),
    binding: { mode: 'default', reason: obstacle, symbols: [], symbolCount: 0 },
    dependencies: [],
    patches: [],
    sharedStatics: null,
    obstacle,
    ownLibraries: [],
    whyMapped: new Map(),
    lasting: [],
    remove: async () => undefined,
  };
}

function bindingConflict(path: string, conflict: BindingConflict): BindingConflictError {
  const { own, shared, obstacle } = conflict;
  const has =
    own.length === 0
      ? 'it is to be bound to its own symbols'
      : `node exports ${own.join(', ')}, which it has of its own`;
  const needs = shared.length === 0 ? '' : `, and it shares ${shared.join(', ')} with the process`;
  return new BindingConflictError(
    conflict,
    `${path} cannot be bound: ${has}${needs}; both cannot be had, since ${obstacle}. Link what it has of its own in statically with hidden symbols (-Wl,--exclude-libs,ALL), rename these symbols, or set the option binding to 'default' to have it use node's`,
    path,
  );
}

function notSurveyed(copy: PrivateCopy, cause: unknown): LoadError {
  const isCopy = (cause as NodeJS.ErrnoException).path === copy.path;
  return isCopy ? notPrepared(copy, cause) : notLookedInto(copy, cause);
}

function notPrepared(copy: PrivateCopy, cause: unknown): LoadError {
  if (cause instanceof LoadError) return cause;
  if (codeOf(cause) === undefined) return notLookedInto(copy, cause);
  const path = copy.sourcePath;
  const message = `the private copies for ${quote(path)} cannot be changed: ${cacheAdvice(cause)}`;
  return new CacheDirError(message, path, { cause });
}

function notLookedInto({ sourcePath }: PrivateCopy, cause: unknown): LoadFailedError {
  const message = `${sourcePath} could not be looked into: ${messageOf(cause)}`;
  return new LoadFailedError(message, sourcePath, { cause });
}

/** A copy of something that comes along. */
interface OwnCopy extends PrivateCopy {
  /** What it is called from now on: its file's name. */
  readonly name: string;
}

class Preparation {
  readonly #parts: PrepareParts;
  readonly #survey: Survey;
  /** By the library's place in the survey. */
  readonly #copies = new Map<number, OwnCopy>();
  /** Places of those that are this version's alone, and have to be removed with it. */
  readonly #alone = new Set<number>();

  constructor(parts: PrepareParts, survey: Survey) {
    this.#parts = parts;
    this.#survey = survey;
  }

  async run(): Promise<Prepared> {
    const { copy } = this.#parts;
    try {
      await this.#refuseDamaged();
      const lasting = this.#lastingSet();
      await this.#copyAlone(lasting);
      await this.#share(lasting);
      const places = [...this.#alone];
      const root = { ...this.#patchTask(0, copy.path, this.#rootName), first: this.#shim };
      // The library itself last: if another one cannot be changed, it is as it was deployed.
      const tasks = [...places.map((place) => this.#copyTask(place)), root];
      const patched = this.#leavesAll([...places, 0], tasks)
        ? tasks.map(() => UNCHANGED)
        : await askPatch(tasks, this.#parts.signal);
      return this.#describe([...places, 0], patched);
    } catch (error) {
      await this.#remove();
      if (error instanceof ElfError) return this.#unseparated(messageOf(error));
      throw notPrepared(copy, error);
    }
  }

  /** Whether there is nothing to change: most handlers are spared the way to the thread and back. */
  #leavesAll(places: readonly number[], tasks: readonly PatchTask[]): boolean {
    return tasks.every((task, at) => {
      const { hasUnique } = this.#library(places[at] as number);
      return !hasUnique && changesNothingElse(task);
    });
  }

  /** What the library itself asks for before all others. */
  get #shim(): string | null {
    return this.#survey.binding.withShim ? SHIM_SONAME : null;
  }

  /**
   * What the library itself is called from now on, if something that it brings needs it in turn: under its old name, that would
   * get another version's, or the file that was deployed. Null if nobody asks for it.
   */
  get #rootName(): string | null {
    const { libraries } = this.#survey;
    const isNeeded = libraries.some(({ needs }) => needs.some(({ index }) => index === 0));
    return isNeeded ? basename(this.#parts.copy.path) : null;
  }

  #library(place: number): SurveyedLibrary {
    return this.#survey.libraries[place] as SurveyedLibrary;
  }

  /** What comes along and keeps threads, and what comes along and is needed by that. */
  #lastingSet(): Set<number> {
    const { libraries } = this.#survey;
    const set = new Set<number>();
    for (const [place, { isOwn, keepsThreads }] of libraries.entries()) {
      if (isOwn && keepsThreads) set.add(place);
    }
    for (const place of set) {
      for (const { index } of this.#library(place).needs) {
        if (index > 0 && this.#library(index).isOwn) set.add(index);
      }
    }
    return set;
  }

  /** Whoever copies it says what is wrong with it. */
  async #refuseDamaged(): Promise<void> {
    for (const { name, path } of this.#survey.damaged) {
      const copy = await this.#copyOf(path, name);
      await copy.remove();
      throw new ElfError(`${quote(path)} cannot be read`);
    }
  }

  async #copyAlone(lasting: ReadonlySet<number>): Promise<void> {
    for (const [place, { isOwn }] of this.#survey.libraries.entries()) {
      if (place === 0 || !isOwn || lasting.has(place)) continue;
      this.#copies.set(place, await this.#copy(place));
      this.#alone.add(place);
    }
  }

  #copy(place: number): Promise<OwnCopy> {
    const { path, name } = this.#library(place);
    return this.#copyOf(path as string, name);
  }

  async #copyOf(path: string, name: string): Promise<OwnCopy> {
    const { store, rules, copy } = this.#parts;
    const prefix = randomBytes(PREFIX_BYTES).toString('hex');
    const fileName = `${prefix}-${safeLabel(basename(name))}`;
    try {
      const made = await store.copyAs(path, fileName, { ...rules, within: null });
      return { ...made, name: fileName };
    } catch (error) {
      // The error itself is about this library alone.
      if (error instanceof LoadError) {
        error.message = `${quote(copy.sourcePath)} needs ${quote(name)}: ${error.message}`;
      }
      throw error;
    }
  }

  /**
   * Copies what keeps threads, unless an earlier version has brought the same: it is mapped for
   * good, and one is enough.
   */
  async #share(lasting: ReadonlySet<number>): Promise<void> {
    if (lasting.size === 0) return;
    const places = [...lasting];
    const fresh: OwnCopy[] = [];
    try {
      for (const place of places) fresh.push(await this.#copy(place));
    } catch (error) {
      await Promise.all(fresh.map((each) => each.remove()));
      throw error;
    }
    // One is the same only if all are that it needs of the others.
    const contents = fresh.map(
      ({ sha256 }, at) => `${this.#library(places[at] as number).name} ${sha256}`,
    );
    const key = createHash('sha256').update(contents.sort().join('\n')).digest('hex');
    const kept = await this.#parts.store.keep(key, fresh, async () => {
      for (const [at, place] of places.entries()) this.#copies.set(place, fresh[at] as OwnCopy);
      // Without the signal: other loads may be waiting for these copies.
      await askPatch(places.map((place) => this.#copyTask(place)));
    });
    for (const place of places) {
      const label = safeLabel(basename(this.#library(place).name));
      const copy = kept.find(({ path }) => basename(path).slice(2 * PREFIX_BYTES + 1) === label);
      assert(copy !== undefined, 'what is kept has the same names');
      this.#copies.set(place, { ...copy, name: basename(copy.path) });
    }
  }

  #copyTask(place: number): PatchTask {
    const { path, name } = this.#copies.get(place) as OwnCopy;
    return this.#patchTask(place, path, name);
  }

  #patchTask(place: number, path: string, soname: string | null): PatchTask {
    const { needs, search } = this.#library(place);
    const names = needs.flatMap(({ name, index }): [string, string][] => {
      const to = index === 0 ? this.#rootName : this.#copies.get(index)?.name;
      return to === null || to === undefined ? [] : [[name, to]];
    });
    return {
      path,
      soname,
      names,
      first: null,
      runpath: search === null ? null : ['$ORIGIN', ...search].join(':'),
      keepUnique: this.#survey.sharedStatics.symbols,
    };
  }

  #describe(places: readonly number[], patched: readonly Patched[]): Prepared {
    const { copy } = this.#parts;
    const { libraries, sharedStatics, keepMapped, mayUnload, mayStartThreads } = this.#survey;
    const binding = this.#survey.binding.report as BindingReport;
    const alone = [...this.#alone].map((place) => this.#ownLibrary(place));
    // What is linked never to be unloaded is never unmapped under a thread, nor is what it needs.
    const own = [0, ...this.#alone]
      .filter((place) => this.#canUnload(place))
      .map((place) => (place === 0 ? copy : this.#ownLibrary(place)));
    const shared = libraries.flatMap(({ keepsThreads, isOwn }, place) =>
      keepsThreads && isOwn ? [this.#ownLibrary(place)] : [],
    );
    const lasting = libraries.flatMap(({ name, path, isOwn }) =>
      path !== null && !isOwn && keepMapped.includes(path) ? [{ name, path }] : [],
    );
    const plan: LoadPlan = {
      libraryPath: copy.path,
      binding: binding.mode,
      runtimeShim: this.#shim,
      keepMapped: [...keepMapped, ...shared.map(({ path }) => path)],
      loadFirst: this.#loadFirst(),
      mayUnload: this.#canUnload(0) ? [...own.map(({ path }) => path), ...mayUnload] : [],
      mayStartThreads,
    };
    return {
      plan,
      binding,
      dependencies: this.#dependencies(),
      patches: places.flatMap((place, at) => this.#patchOf(place, patched[at] as Patched)),
      sharedStatics: sharedStaticsOf(sharedStatics),
      obstacle: null,
      ownLibraries: alone,
      whyMapped: this.#whyMapped(),
      lasting: [...lasting, ...shared],
      remove: () => this.#remove(),
    };
  }

  #canUnload(place: number): boolean {
    return this.#library(place).pins?.neverUnloaded !== true;
  }

  #whyMapped(): Map<string, string> {
    const reasons = new Map<string, string>();
    for (const place of [0, ...this.#alone]) {
      const { pins } = this.#library(place);
      const path = place === 0 ? this.#parts.copy.path : this.#ownLibrary(place).path;
      const reason = pins === null ? null : whyMapped(pins);
      if (reason !== null) reasons.set(path, reason);
    }
    return reasons;
  }

  #ownLibrary(place: number): OwnLibrary {
    return { name: this.#library(place).name, path: (this.#copies.get(place) as OwnCopy).path };
  }

  #patchOf(place: number, patched: Patched): LibraryPatch[] {
    const { uniqueSymbols, names, searchPath } = patched;
    if (uniqueSymbols === 0 && names === 0 && !searchPath) return [];
    return [{ library: this.#library(place).name, ...patched }];
  }

  /** What a trial in another process has to load first, so that it tries what will run. */
  #loadFirst(): string[] {
    const { libraries, opened } = this.#survey;
    return [...libraries, ...opened].flatMap(({ shadowed }) =>
      shadowed === null || shadowed.isGone ? [] : [shadowed.by],
    );
  }

  #dependencies(): HandlerDependency[] {
    const { libraries, opened } = this.#survey;
    const needed = libraries.slice(1).map((library, at): HandlerDependency => {
      const { name, path, isOwn, keepsThreads } = library;
      const copy = this.#copies.get(at + 1);
      if (!isOwn || copy === undefined) return sharedDependency({ ...library, byName: false });
      return { name, path, kind: 'own', sha256: copy.sha256, keepsThreads, byName: false };
    });
    const byName = { keepsThreads: false, byName: true };
    return [...needed, ...opened.map((each) => sharedDependency({ ...each, ...byName }))];
  }

  /** The library as it was deployed, since something could not be changed. */
  #unseparated(obstacle: string): Prepared {
    const { copy } = this.#parts;
    this.#copies.clear();
    return {
      ...untouched(copy, obstacle),
      plan: { ...plainPlan(copy.path), keepMapped: this.#survey.keepMapped },
      dependencies: this.#dependencies(),
    };
  }

  async #remove(): Promise<void> {
    const copies = [...this.#alone].flatMap((place) => this.#copies.get(place) ?? []);
    await Promise.all(copies.map((copy) => copy.remove()));
  }
}

function sharedDependency({
  name,
  path,
  shadowed,
  keepsThreads,
  byName,
}: Pick<SurveyedLibrary, 'name' | 'path' | 'shadowed' | 'keepsThreads'> & {
  byName: boolean;
}): HandlerDependency {
  const rest = { keepsThreads, byName };
  if (shadowed === null) return { name, path, kind: 'system', ...rest };
  return { name, path: shadowed.by, kind: 'shadowed', instead: shadowed.wanted, ...rest };
}

/** Each version's copies are told apart by so much. */
const PREFIX_BYTES = 6;
const MOST_SYMBOLS = 20;

function sharedStaticsOf({ symbols, libraries }: Survey['sharedStatics']): SharedStatics | null {
  if (symbols.length === 0) return null;
  return { symbols: symbols.slice(0, MOST_SYMBOLS), count: symbols.length, libraries };
}
