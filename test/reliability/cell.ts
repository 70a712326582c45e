/** One cell of the fault matrix: what is done, where, and what is expected of it. */

import type { Fields } from '../fault/backend.js';

/** What a cell needs that not every machine has. */
export type Need = 'linux' | 'rust' | 'namespaces' | 'root';

/** How long closing takes where a call never returns in a thread: in no time would it come to anything else. */
export const LEAVE_MS = 400;

/** Whether the host lives on; if not, how it ends: by a signal, or with an exit code. Several if it is a matter of chance. */
export type HostEnd = 'lives' | readonly (NodeJS.Signals | number)[];

export interface Expected {
  host: HostEnd;
  /** What kinds of requests are answered with: `ok`, or fields of the error. All requests of a kind. */
  answers?: Readonly<Record<string, 'ok' | Fields>>;
  /** What operations come to: fields of their results or errors; no fields: to no error. */
  said?: Readonly<Record<string, Fields>>;
}

export interface Cell {
  table: string;
  row: string;
  column: string;
  /** A program in test/fault/. */
  program: string;
  /** What it is given, but for its directories. */
  args: Fields;
  env?: Readonly<Record<string, string>>;
  /** A command that runs it; `{cacheDir}` is filled in. */
  wrapper?: readonly string[];
  needs: readonly Need[];
  /** The user who owns the cache directory, if it is another. */
  uid?: number;
  /** The process is expected to hang: it is killed once it has said this. */
  killAfter?: string;
  expected: Expected;
  /** What the page says, if more than the result says by itself. */
  note?: string;
}
