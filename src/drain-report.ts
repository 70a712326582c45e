/** How a version's end went. */

/** What became of a version that was swapped out, unloaded or closed. */
export interface DrainReport {
  endpoint: string;
  version: number;
  /** Milliseconds from the moment it took no more requests until this report. */
  tookMs: number;
  /** Requests that were answered by the handler meanwhile, with a response or an error. */
  finished: number;
  /**
   * Requests that were taken away from their callers: by an immediate swap, at the drain timeout, or from the queue because every lane
   * was stuck or crashed again and again.
   */
  dropped: number;
  /** Native calls that outlived their callers' wait: answered before they returned, and going on now. */
  abandoned: number;
  /**
   * `unloaded`: the library was seen gone from the process's mappings. `resident`: it is still there, see
   * `reason`. `unverified`: this platform does not tell.
   */
  library: 'unloaded' | 'resident' | 'unverified';
  /** Why the library is not known to be unloaded. */
  reason?: string;
  /**
   * The same of each library that was loaded for this version: the handler itself, what came along with it, and what is mapped for good
   * because its threads outlive their users.
   */
  libraries: LibraryFate[];
}

/** What became of one library. */
export interface LibraryFate {
  /** The handler's file name, or the name that a dependency is asked for by. */
  name: string;
  fate: 'unloaded' | 'resident' | 'unverified';
  /** Why it is not known to be unloaded. */
  reason?: string;
}
