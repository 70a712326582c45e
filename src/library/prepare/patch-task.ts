/** What is to be changed in private copies, and what was. Plain data, for both sides of the thread. */

/** What is to be changed in one copy. */
export interface PatchTask {
  /** The copy. */
  path: string;
  /** What it is called from now on; null if nobody asks for it by name. */
  soname: string | null;
  /** Libraries that it needs: old names and new ones. */
  names: [from: string, to: string][];
  /** What it is to ask for before all others. */
  first: string | null;
  runpath: string | null;
  /** Unique symbols that stay what they are. */
  keepUnique: string[];
}

/** What was changed in it. */
export interface Patched {
  uniqueSymbols: number;
  names: number;
  searchPath: boolean;
}

export const UNCHANGED: Patched = { uniqueSymbols: 0, names: 0, searchPath: false };

/** Whether a task is about unique symbols alone, if the library has any. */
export function changesNothingElse({ soname, names, first, runpath }: PatchTask): boolean {
  return soname === null && names.length === 0 && first === null && runpath === null;
}
