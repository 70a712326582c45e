/**
 * The rule for handler ids, and the library file name that follows from one. An id is checked
 * before it becomes part of a path, so no id can lead out of the handlers directory.
 */

import { InvalidIdError } from '../errors.js';

const HANDLER_ID = /^[A-Za-z0-9_-]{1,64}$/;

/**
 * How much of a refused id a message repeats, in UTF-16 units: what is refused may be of any size.
 */
const SHOWN_CHARACTERS = 40;

/**
 * Guarantees that `id` is a handler id: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
 *
 * @throws {InvalidIdError} if it is anything else.
 */
export function assertHandlerId(id: unknown): asserts id is string {
  if (typeof id === 'string' && HANDLER_ID.test(id)) return;
  throw new InvalidIdError(
    `expected a handler id of 1 to 64 characters of A-Z a-z 0-9 _ -, got ${describe(id)}`,
  );
}

/**
 * The file name of a handler's library: `libhandler_{id}.so` on Linux and other Unix systems,
 * `libhandler_{id}.dylib` on macOS, `handler_{id}.dll` on Windows.
 *
 * @throws {InvalidIdError} if `id` is not a handler id.
 */
export function libraryFileName(id: string, platform: NodeJS.Platform = process.platform): string {
  assertHandlerId(id);
  if (platform === 'win32') return `handler_${id}.dll`;
  if (platform === 'darwin') return `libhandler_${id}.dylib`;
  return `libhandler_${id}.so`;
}

/** Strings as shortened JSON, small values as they are, the rest by type: it may not serialise. */
function describe(value: unknown): string {
  switch (typeof value) {
    case 'string': {
      if (value.length <= SHOWN_CHARACTERS) return JSON.stringify(value);
      const shown = JSON.stringify(value.slice(0, SHOWN_CHARACTERS));
      return `${shown}... (${value.length} characters)`;
    }
    case 'number':
    case 'boolean':
    case 'undefined':
      return String(value);
    case 'object':
      if (value === null) return 'null';
      return Array.isArray(value) ? 'an array' : 'an object';
    default:
      return `a ${typeof value}`;
  }
}
