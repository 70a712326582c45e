/**
 * What people are told of how a library was made ready: what it needs, and what was changed in the
 * private copies.
 */

/** A library that a handler needs, directly or not. */
export interface HandlerDependency {
  /** As it is asked for. */
  name: string;
  /** The file: of an own one, that which was copied. Null if none was found. */
  path: string | null;
  /**
   * `own`: it comes with the handler, and each version has a copy of it. `system`: the process has
   * it once, for all who need it. `shadowed`: the same, but it is not the one that the handler
   * would get in a process of its own, since another was loaded under that name before.
   */
  kind: 'own' | 'system' | 'shadowed';
  /** Of a shadowed one: the file that the handler would have got. */
  instead?: string;
  /** Of an own one: SHA-256 of what was copied. */
  sha256?: string;
  /**
   * Whether it keeps threads that outlive their users, as OpenMP does: it is mapped for good. If it
   * is the handler's own, versions that bring the same one share it.
   */
  keepsThreads: boolean;
  /**
   * Whether it is not loaded with the handler: its name stands in the handler as a text, to be
   * opened with dlopen(3).
   */
  byName: boolean;
}

/** What was changed in a private copy, after its hash was taken and before it was loaded. */
export interface LibraryPatch {
  /** The library's name; of the handler, its file's. */
  library: string;
  /**
   * How many unique symbols were made ordinary, so that its statics are this version's own and it
   * can be unloaded.
   */
  uniqueSymbols: number;
  /** How many names of libraries were replaced by those of this version's copies, or added. */
  names: number;
  /**
   * Whether it looks for its dependencies elsewhere than before: `$ORIGIN` stands for where it was
   * deployed.
   */
  searchPath: boolean;
}

/**
 * Unique symbols that could not be made ordinary, because a library that all versions share defines
 * them too.
 */
export interface SharedStatics {
  /** At most 20 of their names. */
  symbols: string[];
  count: number;
  /** The libraries that define them. */
  libraries: string[];
}
