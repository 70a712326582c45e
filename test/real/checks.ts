/** What is checked of each library, and how its outcome is told. */

/** In this order. */
export const CHECKS = [
  'inspect',
  'result',
  'load',
  'deadlines',
  'large',
  'swaps',
  'unload',
  'exit',
] as const;

export type Check = (typeof CHECKS)[number];

/** How much is done of what can be done in any amount. */
export interface Size {
  /** Swaps that are watched for what they leave behind. */
  swaps: number;
  /** Requests that have a millisecond each. */
  deadlines: number;
}

/** What a published row has done. */
export const FULL: Size = { swaps: 50, deadlines: 200 };

/** As little as shows that each step works; what swaps leave behind takes more of them. */
export const BRIEF: Size = { swaps: 5, deadlines: 20 };

/** What the program that loads the library is told. */
export interface Task {
  libraries: readonly [string, string];
  /** What `handler_info` of each must say. */
  versions: readonly [string | null, string | null];
  isolation: 'thread' | 'process';
  /** See `Library`. */
  panic: { request: string; error: { code: number; message: string } | null } | null;
  usualPath: string;
  largePath: string;
  /** Where it writes the responses to both. */
  usualResponsePath: string;
  largeResponsePath: string;
  cacheDir: string;
  size: Size;
}

/** What a retired version said, beside what the process's mappings said at that moment. */
export interface Retirement {
  library: string;
  reason: string | null;
  mapped: boolean;
}

/** What the program saw, one line of JSON each. */
export type Seen =
  | { type: 'began'; check: Check }
  | { type: 'panic'; wrong: string[] }
  | { type: 'load'; swaps: number; answered: number; failures: string[] }
  | { type: 'deadlines'; answered: number; timedOut: number; wrong: string[] }
  | { type: 'swaps'; samples: Sample[]; wrong: string[] }
  | { type: 'unload'; retirements: Retirement[]; mappedAtEnd: number; leftBehind: string[] }
  | { type: 'done' };

/** After so many swaps. */
export interface Sample {
  swaps: number;
  /** Outside of V8's heap (see memory.ts). */
  mappings: number;
  privateKiB: number;
  /** Private copies that this process maps. */
  copies: number;
}

/** How a check came out: `wrong` says what is not as it must be. */
export interface Verdict {
  check: Check;
  wrong: string[];
  /** What the page says of it, if more than that it is right. */
  note?: string;
}

/** One library in one isolation. */
export interface Row {
  library: string;
  isolation: 'thread' | 'process';
  verdicts: Verdict[];
}

export const isRight = (row: Row): boolean =>
  row.verdicts.length === CHECKS.length && row.verdicts.every(({ wrong }) => wrong.length === 0);
