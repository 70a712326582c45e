/** The callers of one endpoint: each sends a request, waits for how it ends, pauses and sends the next. */

import { setTimeout as pause } from 'node:timers/promises';
import type {
  HandlerResponse,
  LoadedHandler,
  RequestGuard,
  VersionState,
} from '../../src/index.js';
import { activeOf, maxPayloadBytesOf, type SoakEndpoint } from './endpoint.js';
import { type Call, handlers, longCall } from './handlers.js';
import { ForeignSignal, hostileCall } from './hostile.js';
import type { Random } from './random.js';
import { countedAs, type Ending, judge, type Sent } from './verdict.js';

/** Share of the requests that are sent to a version itself, however old it is, and of the turns in which another is taken. */
const TO_VERSION = 0.05;
const TAKE_VERSION = 0.1;
/** Share of the turns in which a guard is held, at most so long. */
const GUARD = 0.02;
const MOST_GUARD_MS = 60;
/** Share of the requests that are a mistake, and of the signals that are of another class. */
const HOSTILE = 0.02;
const FOREIGN = 0.3;
/** Share of the responses whose memory is given back at once, where callers do so; others are kept until the next one. */
const RELEASED_AT_ONCE = 0.5;
const DEFAULT_CRASH_LOOP_AFTER = 5;

/** Sends requests until it is told to stop; resolves when all that it has sent have settled. */
export async function runCallers(endpoint: SoakEndpoint): Promise<void> {
  const callers = Array.from({ length: endpoint.kind.callers }, (_, index) =>
    new Caller(endpoint, endpoint.random(`${index}`)).run(),
  );
  await Promise.all(callers);
}

export class Caller {
  readonly #endpoint: SoakEndpoint;
  readonly #random: Random;
  /** A version that was active at some time. */
  #held: LoadedHandler | undefined;
  /** A response that must not change as long as it is kept. */
  #kept: { response: HandlerResponse; call: Call } | undefined;

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
      const requests = Array.from({ length: burst ? kind.bursts.requests : 1 }, () => this.send());
      if (random.chance(GUARD)) requests.push(this.#hold());
      await Promise.all(requests);
      await pause(random.pauseMs(kind.pauseMs));
    }
    this.#letGo();
  }

  /** One request as any other, but that it crashes nothing and nobody gives it up. */
  sendQuietly(): Promise<void> {
    return this.send(true);
  }

  async send(quietly = false): Promise<void> {
    const { kind, registry, ledger, versions, payloads, forks } = this.#endpoint;
    const random = this.#random;
    const direct = random.chance(TO_VERSION) ? this.#held : undefined;
    const handler = direct ?? activeOf(this.#endpoint);
    if (handler === undefined) return this.#sendToNobody();
    const version = versions.of(handler);
    version.requests += 1;
    version.unsettled += 1;
    const maxPayloadBytes = maxPayloadBytesOf(this.#endpoint);
    const surroundings = { random, payloads, forks, version, maxPayloadBytes };
    const long =
      !quietly && kind.stuckCalls !== undefined && random.chance(kind.stuckCalls.share)
        ? longCall(version.library, surroundings, kind.stuckCalls.mostMs)
        : undefined;
    const next = () => handlers[version.library](surroundings);
    let call: Call = long ?? (random.chance(HOSTILE) ? hostileCall(random) : next());
    while (quietly && (call.crashes || call.signal !== undefined)) call = next();
    const timeoutMs = quietly ? undefined : this.#timeoutMs(long);
    if (call.crashes) {
      version.crashing += 1;
      ledger.crashing += 1;
    }
    const giveUp = call.signal === undefined && !quietly ? this.#giveUp() : undefined;
    const signal = call.signal ?? giveUp?.signal;
    const sent: Sent = {
      call,
      version,
      number: handler.version,
      isolation: handler.isolation,
      state: handler.state,
      inFlight: handler.activeRequests,
      timeoutMs,
      signal: giveUp?.signal,
      abortedBefore: giveUp?.signal.aborted === true,
      floods: kind.floods ?? false,
      sticks: kind.sticks ?? false,
      crashLoopAfter: kind.options.crashLoopAfter ?? DEFAULT_CRASH_LOOP_AFTER,
    };
    const { request, context } = call;
    const options = signal === undefined ? {} : { signal };
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
    version.unsettled -= 1;
    this.#settled(sent, ending, performance.now() - startedMs, handler.state);
  }

  /** While the endpoint is not loaded, there is one answer. */
  async #sendToNobody(): Promise<void> {
    const { registry, kind, ledger, closing } = this.#endpoint;
    ledger.sent += 1;
    const ending = await settled(registry.execute(kind.id, undefined, 'nobody'));
    const code = 'reason' in ending ? (ending.reason as { code?: unknown }).code : 'a response';
    ledger.settled += 1;
    ledger.outcomes.add(String(code));
    if (code === (closing.aborted ? 'ERR_HANDLER_CLOSED' : 'ERR_HANDLER_NOT_LOADED')) return;
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
    const wasShed = 'reason' in ending && ledger.shed.has(ending.reason as object);
    const counted = countedAs(sent, ending, wasShed);
    if (counted !== null) version.totals[counted] += 1;
    if (counted === 'dropped') ledger.dropped += 1;
    if ('response' in ending) {
      ledger.verifiedBytes += ending.response.bytes.length;
      version.crashesInRow = 0;
      if (kind.keeps && problem === null) this.#keep(ending.response, sent.call);
    } else if (wasShed) {
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

  /** Gives its memory back, now or when the next response is kept: until then nobody may have written to it. */
  #keep(response: HandlerResponse, call: Call): void {
    if (this.#random.chance(RELEASED_AT_ONCE)) {
      this.#release(response);
      return;
    }
    this.#letGo();
    this.#kept = { response, call };
  }

  #letGo(): void {
    if (this.#kept === undefined) return;
    const { response, call } = this.#kept;
    this.#kept = undefined;
    const problem = call.check?.(response) ?? null;
    if (problem !== null) {
      this.#endpoint.ledger.problem(this.#endpoint.kind.id, `a response that was kept: ${problem}`);
    }
    // Some are left to the collector.
    if (this.#random.chance(RELEASED_AT_ONCE)) this.#release(response);
  }

  #release(response: HandlerResponse): void {
    response.release();
    response.release();
    const { length } = response.bytes;
    if (length === 0) return;
    this.#endpoint.ledger.problem(this.#endpoint.kind.id, `${length} bytes after release()`);
  }

  #timeoutMs(long: Call | undefined): number | undefined {
    if (long !== undefined) return this.#random.int(1, 40);
    const { timeouts } = this.#endpoint.kind;
    if (timeouts === undefined || !this.#random.chance(timeouts.share)) return undefined;
    return this.#random.int(1, timeouts.mostMs);
  }

  /** A signal that is aborted before the call or some time later. */
  #giveUp(): { signal: AbortSignal; done(): void } | undefined {
    const { aborts } = this.#endpoint.kind;
    if (aborts === undefined || !this.#random.chance(aborts.share)) return undefined;
    const controller = new AbortController();
    const foreign = this.#random.chance(FOREIGN) ? new ForeignSignal() : null;
    const reason = new Error('given up by the soak');
    const abort = () => (foreign ?? controller).abort(reason);
    const afterMs = this.#random.int(-1, aborts.mostMs);
    if (afterMs < 0) abort();
    const timer = setTimeout(abort, Math.max(0, afterMs));
    const done = () => {
      clearTimeout(timer);
      // One that has fired calls nobody any more, whether or not its listener is still there.
      if (foreign === null || foreign.aborted || foreign.listening === 0) return;
      this.#endpoint.ledger.problem(this.#endpoint.kind.id, 'a signal keeps its listener');
    };
    return { signal: (foreign as unknown as AbortSignal | null) ?? controller.signal, done };
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
