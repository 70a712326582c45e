/** Things that happen, counted by when. */

export interface Buckets {
  readonly counts: number[];
  /** Counts one at this time; what comes after the end is not counted. */
  add(atMs: number): void;
}

export function bucketed(bucketMs: number, durationMs: number): Buckets {
  const counts = new Array<number>(Math.max(1, Math.floor(durationMs / bucketMs))).fill(0);
  return {
    counts,
    add: (atMs) => {
      const index = Math.floor(atMs / bucketMs);
      const count = counts[index];
      if (count !== undefined) counts[index] = count + 1;
    },
  };
}
