/**
 * Time that passes at once. A call that is to time out while it runs must first have begun, which
 * takes a busy machine as long as it likes: a short timeout may find it queued, and a long one
 * would have to be waited for.
 */

import type { ExecutionContext } from 'ava';

const realNow = performance.now.bind(performance);

/**
 * Moves the clock of this thread forward until the test is over. Timers do not notice: what is due
 * is found when the next timer fires, for instance that of a request with a short timeout that was
 * sent just before. For serial tests only, since all tests of a file share the clock.
 */
export function passTime(t: ExecutionContext, ms: number): void {
  performance.now = () => realNow() + ms;
  t.teardown(() => {
    performance.now = realNow;
  });
}
