/**
 * When to watch memory for a moment instead of sleeping at once.
 *
 * Watching saves two threads a wake-up each, as long as the other side runs meanwhile. On a machine that has more to do than
 * it has cores, whoever watches may be interrupted by the scheduler for milliseconds, while who sleeps is put first
 * when woken. So after a watch that was in vain there is none for a while, and twice as long if few had succeeded
 * since the one before.
 */

const FIRST_PAUSE_MS = 0.25;
const LONGEST_PAUSE_MS = 256;
/** So many watches that succeed make up for one in vain. */
const WORTHWHILE = 32;

export class WatchPolicy {
  #succeeded = 0;
  #pauseMs = FIRST_PAUSE_MS;
  #resumesMs = Number.NEGATIVE_INFINITY;

  /** Whether watching may be tried. */
  allows(nowMs: number): boolean {
    return nowMs >= this.#resumesMs;
  }

  succeeded(): void {
    this.#succeeded += 1;
  }

  /** A watch has been in vain. */
  failed(nowMs: number): void {
    this.#pauseMs =
      this.#succeeded >= WORTHWHILE
        ? FIRST_PAUSE_MS
        : Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    this.#succeeded = 0;
    this.#resumesMs = nowMs + this.#pauseMs;
  }
}
