/** Everything that is counted: requests and how they ended, changes, and what went wrong. */

/** With more, the report would be unreadable, and memory would not be back at its baseline. */
const MOST_PROBLEMS = 50;
/** So many steps before the first problem are kept. */
const MOST_STEPS = 60;

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
  /** Requests that were to end the process they run in, and processes that were killed from outside. */
  crashing = 0;
  /** Processes of lanes that were killed from outside. */
  killedFromOutside = 0;
  /** Threads of lanes that were ended while they slept; and those whose end has not been told yet. */
  threadsEnded = 0;
  threadsEnding = 0;
  /** Requests that were accepted and taken away. */
  dropped = 0;
  /** Worker threads of lanes that were started. */
  lanesStarted = 0;
  /** Times that what the engine says of itself was compared with the model, and figures that were. */
  audits = 0;
  compared = 0;
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
  readonly #steps: string[] = [];
  #stepsBefore: readonly string[] | null = null;

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

  /** Notes what is done, for the case that something goes wrong. */
  step(where: string, what: string): void {
    const seconds = (performance.now() / 1000).toFixed(3);
    this.#steps.push(`${seconds.padStart(9)} s  ${where}: ${what}`);
    if (this.#steps.length > MOST_STEPS) this.#steps.shift();
  }

  /** What was done before the first problem. */
  get stepsBefore(): readonly string[] {
    return this.#stepsBefore ?? [];
  }

  /** The same problem is kept once. */
  problem(where: string, what: string): void {
    this.#stepsBefore ??= [...this.#steps];
    const text = `${where}: ${what}`;
    const full = Object.keys(this.problems.toJSON()).length >= MOST_PROBLEMS;
    this.problems.add(full && this.problems.of(text) === 0 ? 'further problems' : text);
  }
}
