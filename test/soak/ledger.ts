/** Everything that is counted: requests and how they ended, changes, and what went wrong. */

/** With more, the report would be unreadable, and memory would not be back at its baseline. */
const MOST_PROBLEMS = 50;

export class Counts {
  readonly #counts = new Map<string, number>();

  add(name: string, by = 1): void {
    this.#counts.set(name, this.of(name) + by);
  }

  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  /** All whose names begin so. */
  starting(prefix: string): number {
    const found = [...this.#counts].filter(([name]) => name.startsWith(prefix));
    return found.reduce((sum, [, count]) => sum + count, 0);
  }

  get total(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries([...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

export class Ledger {
  sent = 0;
  settled = 0;
  wrong = 0;
  /** Response bytes that were compared. */
  verifiedBytes = 0;
  /** Requests that were to end the process they run in. */
  crashing = 0;
  /** Errors of requests that were refused at the door, as events tell them; and how many of them callers got. */
  readonly shed = new WeakSet<object>();
  shedSeen = 0;
  /** Lanes whose process was killed because a call was stuck. */
  killed = 0;
  /** Versions that have lost so many lanes in a row that requests must have been refused. */
  loopsDue = 0;
  readonly outcomes = new Counts();
  readonly changes = new Counts();
  readonly drains = new Counts();
  /** Events that the registry has emitted. */
  readonly events = new Counts();
  /** How often each problem was found. */
  readonly problems = new Counts();
  #latestMs = 0;

  /** Sent and not settled. */
  get outstanding(): number {
    return this.sent - this.settled;
  }

  /** How much later than its deadline a caller got its timeout, at most. */
  get latestTimeoutMs(): number {
    return this.#latestMs;
  }

  timeoutAnswered(lateMs: number): void {
    this.#latestMs = Math.max(this.#latestMs, lateMs);
  }

  /** The same problem is kept once. */
  problem(where: string, what: string): void {
    const text = `${where}: ${what}`;
    const full = Object.keys(this.problems.toJSON()).length >= MOST_PROBLEMS;
    this.problems.add(full && this.problems.of(text) === 0 ? 'further problems' : text);
  }
}
