/**
 * How a library is opened. Plain data: threads, lane processes and the pre-flight child all go by
 * the same plan.
 */

/** Which library a symbol is looked for in first: see src/library/binding/. */
export type Binding = 'default' | 'own';

export interface LoadPlan {
  /** The private copy. */
  libraryPath: string;
  /**
   * `default`: symbols of the node executable come first, as for any library. `own`: those of the
   * library and of its dependencies do (`RTLD_DEEPBIND` in dlopen(3)).
   */
  binding: Binding;
  /**
   * The name of the runtime shim, which the copy then needs first of all, or null. Each process
   * makes a file of its own of it (addresses differ) and loads it before the library.
   */
  runtimeShim: string | null;
  /**
   * Paths of libraries whose threads outlive their users (OpenMP, TBB, ...). They are mapped for
   * good before the library is opened.
   */
  keepMapped: string[];
  /**
   * Pre-flight only: what the host has mapped already and this library needs by the same name.
   * Opened first.
   */
  loadFirst: string[];
  /**
   * Files that may leave memory together with the library: itself and those dependencies that
   * nothing else is known to hold. One that a thread is still in is kept mapped.
   */
  mayUnload: string[];
  /** Whether any of its dependencies, or the library itself, can start a thread. */
  mayStartThreads: boolean;
}

/** The plan for a library of which nothing is known. */
export function plainPlan(libraryPath: string): LoadPlan {
  return {
    libraryPath,
    binding: 'default',
    runtimeShim: null,
    keepMapped: [],
    loadFirst: [],
    mayUnload: [libraryPath],
    mayStartThreads: true,
  };
}
