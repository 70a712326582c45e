/** The option `preflight`. */

import { InvalidOptionError } from '../errors.js';
import type { RequestContext, RequestPayload } from '../request.js';
import type { HandlerResponse } from '../response.js';
import { show } from '../show.js';

/** A request that a library must answer with success before it is loaded. */
export interface SelfTest {
  context?: RequestContext;
  request: RequestPayload;
  /** Looks at the response: if it throws, rejects or says `false`, the library is refused. Default: success is enough. */
  check?: (response: HandlerResponse) => unknown;
}

/** What pre-flight does beyond loading and unloading. */
export interface PreflightOptions {
  selfTest?: SelfTest;
}

/**
 * Checks the option: `true` is a pre-flight without self-test, `false` none.
 *
 * @throws {InvalidOptionError} if it is anything else.
 */
export function checkPreflight(value: unknown): PreflightOptions | false {
  if (value === true) return {};
  if (value === false) return false;
  checkNames('preflight', value, ['selfTest']);
  const { selfTest } = value as { selfTest?: unknown };
  if (selfTest === undefined) return {};
  checkNames('preflight.selfTest', selfTest, ['context', 'request', 'check']);
  const { request, check } = selfTest as Partial<SelfTest>;
  if (request === undefined) {
    throw new InvalidOptionError(
      'preflight.selfTest',
      'preflight.selfTest must have a request: bytes, a string or a JSON value',
    );
  }
  if (check !== undefined && typeof check !== 'function') {
    throw new InvalidOptionError(
      'preflight.selfTest',
      `preflight.selfTest.check must be a function; got ${show(check)}`,
    );
  }
  return { selfTest: selfTest as SelfTest };
}

function checkNames(option: string, value: unknown, known: string[]): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const kinds = option === 'preflight' ? 'a boolean or an object' : 'an object';
    throw new InvalidOptionError(option, `${option} must be ${kinds}; got ${show(value)}`);
  }
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue;
    throw new InvalidOptionError(
      option,
      `there is no '${name}' in ${option}; there are: ${known.join(', ')}`,
    );
  }
}
