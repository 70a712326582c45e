/**
 * What the conformance suite knows of one library, and what is right for a handler that uses it.
 */

/** Something that has to be on the machine, by the Debian package that brings it. */
export type Need =
  | { package: string; header: string }
  | { package: string; program: string }
  | { package: string; archive: string };

/** How a handler is made of its source in test/real/native/. */
export type Source =
  | { language: 'c' | 'c++'; file: string; flags?: readonly string[] }
  | { language: 'fortran'; file: string }
  | { language: 'rust'; file: string; flags?: readonly string[] }
  | { language: 'go'; directory: string };

/**
 * What becomes of a version of it in a thread. `swept`: thread-locals with destructors keep it
 * until another library is unloaded. `stays`: it asks never to be unloaded.
 */
export type Fate = 'unloaded' | 'swept' | 'stays';

export interface Library {
  /** Also the name of the built handler, and what `npm run real -- NAME` takes. */
  name: string;
  /** What it is for the page. */
  title: string;
  needs: readonly Need[];
  source: Source;
  /** Whose answer the handler's must be, in words. */
  judge: string;
  /** A request of usual size, and one of 16 MiB (or one whose response has that). */
  requests(): Promise<{ usual: Buffer; large: Buffer }>;
  /** Resolves to whether the library's own tool says the same. `handler` is the built library. */
  agrees(request: Buffer, response: Buffer, handler: string): Promise<boolean>;
  inThreads: Fate;
  /** What the reason of the drain report must say, unless it is unloaded. */
  reason?: RegExp;
  /** Libraries that `inspect` must list with a file. */
  dependencies: readonly string[];
  /** Whose symbols come first, where that does not depend on what this Node has of its own. */
  binding?: 'default' | 'own';
  /**
   * A request that panics inside; with unwinding it is this error of the handler's, otherwise
   * (null) it ends the process.
   */
  panic?: { request: string; error: { code: number; message: string } | null };
  /** Codes of the warnings that `inspect` must give, and no others. */
  warnings: readonly string[];
  /** Lines on standard error that have to come. */
  says?: RegExp;
}
