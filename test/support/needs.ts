/** Tests that this platform may be unable to run, which then say what they need. */

import test, { type ImplementationFn } from 'ava';

export type Declare = (title: string, run: ImplementationFn<[]>) => void;

/**
 * Declares tests with `declare` if `isHere`. Otherwise they are skipped, and their titles say what
 * is missing: a skipped test that does not say so fails the run.
 */
export function needs(what: string, isHere: boolean, declare: Declare = test): Declare {
  if (isHere) return declare;
  return (title, run) => test.skip(`${title} [needs ${what}]`, run);
}
