/**
 * Pre-flight: before this process loads a library, a short-lived child process loads the same private copy and does to it all
 * that will be done here. What would have crashed or hung this process is an error of the load.
 *
 * The same bytes are tried again at every load: the outcome depends on more than them (dependencies, files, the
 * environment), and one that was remembered might not be true any more.
 */

import { strict as assert } from 'node:assert';
import { inTime } from '../deferred.js';
import { LoadTimeoutError, PreflightError } from '../errors.js';
import type { HandlerInfo } from '../lane-protocol.js';
import type { LoadPlan } from '../library/load-plan.js';
import { messageOf } from '../library/system-errors.js';
import type { ResolvedEndpointOptions } from '../options.js';
import { encodeRequest } from '../request.js';
import type { VersionIdentity } from '../request-errors.js';
import { HandlerResponse } from '../response.js';
import { contextBytes } from '../ring/layout.js';
import type { StartedChild } from '../start-child.js';
import { type ChildReport, runChild } from './child.js';
import { judge } from './judge.js';
import type { SelfTest } from './options.js';
import type { PreflightTask } from './protocol.js';

/** What a pre-flight learned about a library that passed. Null is what this platform does not tell. */
export interface PreflightReport {
  /** Milliseconds from the start of the child process to its end; with one that was started ahead, from when it got its task. */
  tookMs: number;
  /** What the library says of itself. */
  info: HandlerInfo;
  /** Whether unloading it took it out of memory. If not, every version that is replaced leaves its copy behind. */
  unloads: boolean | null;
  /** Threads that it had started and that were there after `handler_shutdown`. */
  threadsLeft: number | null;
  /** Descriptors that were open after the unload and had not been before the load. */
  descriptorsLeft: number | null;
  /** Milliseconds that the self-test's request took; null without one. */
  selfTestMs: number | null;
}

export interface PreflightParts {
  /** The library as the caller named it. */
  path: string;
  /** How the private copy is opened. */
  plan: LoadPlan;
  identity: VersionIdentity;
  options: ResolvedEndpointOptions;
  /** The child that was started ahead, if there is one. It is given a task, then. */
  takeChild: () => Promise<StartedChild | null>;
  /** What is left of `loadTimeoutMs`. */
  timeoutMs: number;
  signal: AbortSignal;
}

/**
 * Resolves with what was learned once the child has ended.
 *
 * @throws {LoadError} if the library must not be loaded here, or the reason of `signal`.
 */
export async function preflight(parts: PreflightParts): Promise<PreflightReport> {
  const { path, plan, identity, options, timeoutMs, signal } = parts;
  const { maxPayloadBytes, stackBytes, env } = options;
  const { selfTest } = options.preflight || {};
  const { lengths, body } = encodeSelfTest(selfTest, maxPayloadBytes);
  const startedMs = performance.now();
  const leftMs = () => Math.max(1, timeoutMs - (performance.now() - startedMs));
  // Not before: a self-test that cannot be sent needs no child.
  const ahead = parts.takeChild();
  const task = { plan, stackBytes, maxPayloadBytes, selfTest: lengths };
  let child = await runChild({ ahead, task, body, env, timeoutMs: leftMs(), signal });
  if (child.wasAhead && hasNotBegun(child)) {
    // It had ended, and nobody had noticed yet.
    child = await runChild({ task, body, env, timeoutMs: leftMs(), signal });
  }
  if (child.end.how === 'aborted') throw signal.reason;
  const { loadTimeoutMs } = options;
  const report = judge(child, { path, identity, loadTimeoutMs });
  if (selfTest?.check !== undefined) {
    // It is the caller's code, which may wait for anything; the loads after this one wait for it.
    await inTime(checkResponse(selfTest.check, child, { path, identity }), {
      timeoutMs: leftMs(),
      signal,
      late: () =>
        new LoadTimeoutError(
          loadTimeoutMs,
          `the check of the self-test of ${path} had not settled after ${loadTimeoutMs} ms; make it quicker, or raise loadTimeoutMs`,
          path,
          { ...identity, step: 'self-test' },
        ),
    });
  }
  return report;
}

/** Whether a child has ended by itself before it came to the library. */
function hasNotBegun({ messages, end }: ChildReport): boolean {
  return messages.length === 0 && (end.how === 'crashed' || end.how === 'exited');
}

/** The self-test's request as it lies in a lane's memory: context, then request. */
export function encodeSelfTest(
  selfTest: SelfTest | undefined,
  maxPayloadBytes: number,
): { lengths: PreflightTask['selfTest']; body: Uint8Array } {
  if (selfTest === undefined) return { lengths: null, body: new Uint8Array() };
  const encoded = encodeRequest(selfTest.context, selfTest.request, maxPayloadBytes);
  const { requestIdLength, metadataLength, byteLength: requestLength } = encoded;
  const requestAt = contextBytes(requestIdLength, metadataLength);
  const body = Buffer.alloc(requestAt + requestLength);
  body.write(encoded.requestId, 0, 'utf8');
  if (requestAt > 0) body.write(encoded.metadata, requestIdLength + 1, 'utf8');
  if (typeof encoded.body === 'string') body.write(encoded.body, requestAt, 'utf8');
  else body.set(encoded.body, requestAt);
  return { lengths: { requestIdLength, metadataLength, requestLength }, body };
}

/** Gives the self-test's response to the caller's own check. */
async function checkResponse(
  check: NonNullable<SelfTest['check']>,
  { messages, stderr }: ChildReport,
  { path, identity }: Pick<PreflightParts, 'path' | 'identity'>,
): Promise<void> {
  const response = messages.find((message) => message.type === 'response');
  assert(response !== undefined, 'a self-test that passed has a response');
  const bytes = new Uint8Array(Buffer.from(response.bytes, 'base64'));
  try {
    const said = await check(new HandlerResponse(bytes, identity.version, 0, response.ranMs));
    if (said === false) throw new Error('false');
  } catch (cause) {
    throw new PreflightError(
      { reason: 'self-test-failed', step: 'self-test', stderr },
      `the self-test of ${path} was answered, but its check says: ${messageOf(cause)}`,
      path,
      { ...identity, cause },
    );
  }
}
