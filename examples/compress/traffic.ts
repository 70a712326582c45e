/**
 * Sends blocks to the endpoint with a fixed number in flight, and deploys version 2 on the way.
 *
 *     blocks sent     1 2 3 ... h | 1 2 3 ... (again, for as long as v2 loads) | h+1 ... n
 *     answered by     v1            v1, some of the last ones v2                 v2
 *
 * While v2 is loading, the blocks of the first half are sent again. At full speed v1 would be
 * through with the second half before v2 has started its threads, with nothing left for v2.
 */
import { performance } from 'node:perf_hooks';
import type { HandlerRegistry } from '../../src/index.js';
import type { Progress } from './progress.js';
import type { Claim } from './verify.js';

/** What one version has answered. */
export interface VersionTally {
  version: number;
  requests: number;
  bytesIn: number;
  bytesOut: number;
  /** Sum of the times that its native calls took. */
  ranMs: number;
  /** When the first request it answered was sent, and when its newest answer came: engine time. */
  firstSentMs: number;
  lastAnsweredMs: number;
}

interface Answer extends Claim {
  version: number;
}

/** A request that nobody waits for any more would be cancelled; no block takes nearly as long. */
const TIMEOUT_MS = 120_000;

export class Traffic {
  readonly versions = new Map<number, VersionTally>();
  /** Requests that got an error instead of an answer, and the first of these errors. */
  lost = 0;
  firstError: unknown;
  /** Requests sent again while v2 was loading. */
  repeats = 0;
  /** Time spent in `send`: the clock of the figures. */
  engineMs = 0;

  readonly #registry: HandlerRegistry;
  readonly #inFlight: number;
  readonly #startDeployment: () => Promise<void>;
  readonly #progress: Progress;
  #deployment: Promise<void> | undefined;
  #deploying = false;

  /** `deploy` replaces the compressor and settles when the new version is active. */
  constructor(
    registry: HandlerRegistry,
    inFlight: number,
    deploy: () => Promise<void>,
    progress: Progress,
  ) {
    this.#registry = registry;
    this.#inFlight = inFlight;
    this.#startDeployment = deploy;
    this.#progress = progress;
  }

  get hasDeployed(): boolean {
    return this.#deployment !== undefined;
  }

  /**
   * Resolves when every block has been answered or lost, to what there is to verify. Deploys as
   * soon as `deployAtBytes` have been sent, unless it has done so before.
   *
   * @throws what `deploy` throws, if it failed; all requests have settled then
   */
  async send(blocks: readonly Uint8Array[], deployAtBytes: number): Promise<Claim[]> {
    const answers: (Answer | undefined)[] = blocks.map(() => undefined);
    const surprises: Claim[] = [];
    const engineMsBefore = this.engineMs;
    const startMs = performance.now();
    let sent = 0;
    let sentBytes = 0;
    let repeated = 0;

    const nextIndex = (): number | undefined => {
      if (this.#deploying) {
        this.repeats++;
        return repeated++ % sent;
      }
      return sent < blocks.length ? sent++ : undefined;
    };

    const sendUntilNoneIsLeft = async () => {
      for (let index = nextIndex(); index !== undefined; index = nextIndex()) {
        const original = blocks[index] as Uint8Array;
        sentBytes += original.length;
        if (sentBytes >= deployAtBytes && !this.hasDeployed) this.#deploy();
        const answer = await this.#request(original, engineMsBefore - startMs);
        const earlier = answers[index];
        if (answer === undefined || isSame(answer, earlier)) continue;
        // The same bytes again need no second look; other bytes may be right too.
        if (earlier !== undefined) {
          surprises.push(answer);
          continue;
        }
        answers[index] = answer;
        this.#progress.doneBytes += original.length;
      }
    };

    const senders = Array.from({ length: this.#inFlight }, sendUntilNoneIsLeft);
    await Promise.all(senders);
    this.engineMs = engineMsBefore + performance.now() - startMs;
    await this.#deployment;
    return [...answers.filter((answer) => answer !== undefined), ...surprises];
  }

  #deploy(): void {
    this.#deploying = true;
    this.#progress.phase = 'deploying v2';
    this.#deployment = this.#startDeployment().finally(() => {
      this.#deploying = false;
      this.#progress.phase = 'compressing';
    });
    // Whoever sends learns of a failure at the end; until then it must not count as unhandled.
    this.#deployment.catch(() => undefined);
  }

  async #request(original: Uint8Array, engineOffsetMs: number): Promise<Answer | undefined> {
    const sentMs = performance.now() + engineOffsetMs;
    this.#progress.inFlight++;
    try {
      const response = await this.#registry.executeWithTimeout(
        'compress',
        {},
        original,
        TIMEOUT_MS,
      );
      const tally = this.#tallyOf(response.version, sentMs);
      tally.requests++;
      tally.bytesIn += original.length;
      tally.bytesOut += response.bytes.length;
      tally.ranMs += response.ranMs;
      tally.firstSentMs = Math.min(tally.firstSentMs, sentMs);
      tally.lastAnsweredMs = performance.now() + engineOffsetMs;
      this.#progress.compressedBytes += original.length;
      this.#progress.compressingMs = tally.lastAnsweredMs;
      this.#progress.version = response.version;
      return { original, compressed: response.bytes, version: response.version };
    } catch (error) {
      this.lost++;
      this.firstError ??= error;
      return undefined;
    } finally {
      this.#progress.inFlight--;
    }
  }

  #tallyOf(version: number, firstSentMs: number): VersionTally {
    let tally = this.versions.get(version);
    if (tally === undefined) {
      const nothing = { requests: 0, bytesIn: 0, bytesOut: 0, ranMs: 0, lastAnsweredMs: 0 };
      tally = { version, firstSentMs, ...nothing };
      this.versions.set(version, tally);
    }
    return tally;
  }
}

function isSame(answer: Answer, earlier: Answer | undefined): boolean {
  return (
    answer.version === earlier?.version &&
    Buffer.compare(answer.compressed, earlier.compressed) === 0
  );
}
