/** How a request ended, or that it did not, and when. */

export interface Outcome {
  /** Undefined: it had not ended when nobody waited any more. */
  answered: boolean | undefined;
  atMs: number;
}

/** Resolves at the latest after `limitMs`. */
export function outcomeOf(answer: Promise<unknown> | unknown, limitMs: number): Promise<Outcome> {
  return new Promise((resolve) => {
    const ended = (answered: boolean | undefined) => {
      clearTimeout(limit);
      resolve({ answered, atMs: performance.now() });
    };
    const limit = setTimeout(() => ended(undefined), limitMs);
    Promise.resolve(answer).then(
      () => ended(true),
      () => ended(false),
    );
  });
}
