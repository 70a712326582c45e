/**
 * When lanes are lost again and again: how long to wait before the next one, and when to stop taking requests.
 *
 *   closed ──N lost in a row──► open ──a lane has come up──► half-open ──a request is answered──► closed
 *                                ▲                               │
 *                                └────────────lost───────────────┘
 *
 * "In a row" means with no request answered in between: a handler that crashes on some requests and answers others is not in a
 * loop. The names are those of a circuit breaker: open means that nothing goes through.
 */

const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 5000;

export type CrashLoopState = 'closed' | 'open' | 'half-open';

export class CrashLoop {
  readonly #limit: number;
  #state: CrashLoopState = 'closed';
  #inRow = 0;

  /** `limit` is how many lanes must be lost in a row. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get state(): CrashLoopState {
    return this.#state;
  }

  /** Lanes lost in a row, so far. */
  get crashes(): number {
    return this.#inRow;
  }

  /** A lane is lost. Returns how long to wait before another is started, in milliseconds: nothing the first time. */
  lost(): number {
    this.#inRow += 1;
    if (this.#inRow >= this.#limit || this.#state === 'half-open') this.#state = 'open';
    if (this.#inRow === 1) return 0;
    return Math.min(FIRST_RETRY_MS * 2 ** (this.#inRow - 2), LONGEST_RETRY_MS);
  }

  /** A new lane has come up. */
  cameUp(): void {
    if (this.#state === 'open') this.#state = 'half-open';
  }

  /** A request has been answered. Returns whether that was the end of a loop. */
  answered(): boolean {
    const ended = this.#state !== 'closed';
    this.#state = 'closed';
    this.#inRow = 0;
    return ended;
  }
}
