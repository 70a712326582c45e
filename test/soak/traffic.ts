/** The callers of one endpoint: each sends a request, waits for how it ends, pauses and sends the next. */

import { setTimeout as pause } from 'node:timers/promises';
import type {
  HandlerResponse,
  LoadedHandler,
  RequestGuard,
  VersionState,
} from '../../src/index.js';
import { activeOf, type SoakEndpoint } from './endpoint.js';
import { type Call, handlers, longCall } from './handlers.js';
import type { Random } from './random.js';
import { type Ending, judge, type Sent } from './verdict.js';

/** Share of the requests that are sent to a version itself, however old it is, and of the turns in which another is taken. */
const TO_VERSION = 0.05;
const TAKE_VERSION = 0.1;
/** Share of the turns in which a guard is held, at most so long. */
const GUARD = 0.02;
const MOST_GUARD_MS = 60;
const DEFAULT_CRASH_LOOP_AFTER = 5;

/** Sends requests until it is told to stop; resolves when all that it has sent have settled. */
export async function runCallers(endpoint: SoakEndpoint): Promise<void> {
  const callers = Array.from({ length: endpoint.kind.callers }, (_, index) =>
    new Caller(endpoint, endpoint.random(`${index}`)).run(),
  );
  await Promise.all(callers);
}

class Caller {
  readonly #endpoint: SoakEndpoint;
  readonly #random: Random;
  /** A version that was active at some time. */
  #held: LoadedHandler | undefined;

  constructor(endpoint: SoakEndpoint, random: Random) {
    this.#endpoint = endpoint;
    this.#random = random;
  }

  async run(): Promise<void> {
    const { kind, stop } = this.#endpoint;
    const random = this.#random;
    while (!stop.aborted) {
      if (random.chance(TAKE_VERSION)) this.#held = activeOf(this.#endpoint);
      const burst = kind.bursts !== undefined && random.chance(kind.bursts.share);
      const requests = Array.from({ length: burst ? kind.bursts.requests : 1 }, () => this.#send());
      if (random.chance(GUARD)) requests.push(this.#hold());
      await Promise.all(requests);
      await pause(random.pauseMs(kind.pauseMs));
    }
  }

  async #send(): Promise<void> {
    const { kind, registry, ledger, versions, payloads } = this.#endpoint;
    const random = this.#random;
    const direct = random.chance(TO_VERSION) ? this.#held : undefined;
    const handler = direct ?? activeOf(this.#endpoint);
    if (handler === undefined) return this.#sendToNobody();
    const version = versions.of(handler);
    version.requests += 1;
    const long =
      kind.stuckCalls !== undefined && random.chance(kind.stuckCalls.share)
        ? longCall(version.library, random, kind.stuckCalls.mostMs)
        : undefined;
    const call: Call = long ?? handlers[version.library]({ random, payloads, version });
    const timeoutMs = long === undefined ? this.#timeoutMs() : random.int(1, 40);
    if (call.crashes) {
      version.crashing += 1;
      ledger.crashing += 1;
    }
    const giveUp = this.#giveUp();
    const sent: Sent = {
      call,
      version,
      number: handler.version,
      isolation: handler.isolation,
      state: handler.state,
      inFlight: handler.activeRequests,
      timeoutMs,
      signal: giveUp?.signal,
      abortedBefore: giveUp?.signal.aborted ?? false,
      floods: kind.floods ?? false,
      sticks: kind.sticks ?? false,
      crashLoopAfter: kind.options.crashLoopAfter ?? DEFAULT_CRASH_LOOP_AFTER,
    };
    const { request, context } = call;
    const options = giveUp === undefined ? {} : { signal: giveUp.signal };
    const target = direct ?? registry.endpoint(kind.id);
    const startedMs = performance.now();
    ledger.sent += 1;
    const answer =
      timeoutMs === undefined
        ? target.execute(context, request, options)
        : target.executeWithTimeout(context, request, timeoutMs, options);
    call.sent?.();
    const ending = await settled(answer);
    giveUp?.done();
    this.#settled(sent, ending, performance.now() - startedMs, handler.state);
  }

  /** While the endpoint is not loaded, there is one answer. */
  async #sendToNobody(): Promise<void> {
    const { registry, kind, ledger } = this.#endpoint;
    ledger.sent += 1;
    const ending = await settled(registry.execute(kind.id, undefined, 'nobody'));
    const code = 'reason' in ending ? (ending.reason as { code?: unknown }).code : 'a response';
    ledger.settled += 1;
    ledger.outcomes.add(String(code));
    if (code === 'ERR_HANDLER_NOT_LOADED') return;
    ledger.wrong += 1;
    ledger.problem(kind.id, `not loaded, and ${String(code)} came back`);
  }

  /** `state` is the version's when the request has ended. */
  #settled(sent: Sent, ending: Ending, tookMs: number, state: VersionState): void {
    const { kind, ledger } = this.#endpoint;
    const { version } = sent;
    const { outcome, problem } = judge(sent, ending, tookMs);
    ledger.settled += 1;
    ledger.outcomes.add(outcome);
    if ('response' in ending) {
      ledger.verifiedBytes += ending.response.bytes.length;
      version.crashesInRow = 0;
    } else if (ledger.shed.has(ending.reason as object)) {
      ledger.shedSeen += 1;
    } else if (state !== 'active' && /DROPPED|STUCK|CRASH_LOOP/.test(outcome)) {
      version.dropped += 1;
    }
    if (outcome.startsWith('ERR_HANDLER_LANE_EXITED')) {
      version.crashesInRow += 1;
      // Callers are told in the order in which it happened.
      if (version.crashesInRow === sent.crashLoopAfter) ledger.loopsDue += 1;
    }
    if (outcome.startsWith('ERR_HANDLER_TIMEOUT')) {
      ledger.timeoutAnswered(tookMs - (sent.timeoutMs ?? tookMs));
    }
    if (problem === null) return;
    ledger.wrong += 1;
    ledger.problem(`${kind.id}, ${version.library}`, problem);
  }

  #timeoutMs(): number | undefined {
    const { timeouts } = this.#endpoint.kind;
    if (timeouts === undefined || !this.#random.chance(timeouts.share)) return undefined;
    return this.#random.int(1, timeouts.mostMs);
  }

  /** A signal that is aborted before the call or some time later. */
  #giveUp(): { signal: AbortSignal; done(): void } | undefined {
    const { aborts } = this.#endpoint.kind;
    if (aborts === undefined || !this.#random.chance(aborts.share)) return undefined;
    const controller = new AbortController();
    const abort = () => controller.abort(new Error('given up by the soak'));
    const afterMs = this.#random.int(-1, aborts.mostMs);
    if (afterMs < 0) abort();
    const timer = setTimeout(abort, Math.max(0, afterMs));
    return { signal: controller.signal, done: () => clearTimeout(timer) };
  }

  /** Holds the active version: it must not retire meanwhile. */
  async #hold(): Promise<void> {
    const { kind, ledger, versions } = this.#endpoint;
    const handler = activeOf(this.#endpoint);
    const guard: RequestGuard | null | undefined = handler?.acquireRequest();
    if (handler === undefined || guard === undefined) return;
    if (guard === null) return ledger.problem(kind.id, 'an active version gave no guard');
    const version = versions.of(handler);
    version.guards += 1;
    await pause(this.#random.int(0, MOST_GUARD_MS));
    if (handler.state === 'retired' || handler.activeRequests < 1) {
      ledger.problem(kind.id, `${handler.state} with ${handler.activeRequests} in flight, held`);
    }
    version.guards -= 1;
    guard.release();
    // Only the first counts.
    guard.release();
    ledger.changes.add('guard held');
  }
}

async function settled(answer: Promise<HandlerResponse>): Promise<Ending> {
  try {
    return { response: await answer };
  } catch (reason) {
    return { reason };
  }
}
