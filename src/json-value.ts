/**
 * JSON text of a caller's value, without losing anything on the way.
 *
 * `JSON.stringify` turns a `Map` into `{}`, `NaN` into `null`, and leaves functions out, so a
 * handler would compute with something that its caller never sent. Such values are refused instead.
 * What decides for itself how it is written, by a `toJSON` method, is left to it.
 */

import { types } from 'node:util';
import { InvalidRequestError } from './errors.js';

/**
 * Runs getters and `toJSON` methods of the caller's.
 *
 * @throws {InvalidRequestError} if JSON cannot represent the value. `what` names it in the message.
 */
export function toJson(value: unknown, what: string): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
    const fault = findUnwritable(value);
    if (fault !== null) {
      throw new InvalidRequestError(
        `${what} must be bytes, a string or a JSON value; got ${fault}, which JSON cannot represent`,
      );
    }
  } catch (cause) {
    if (cause instanceof InvalidRequestError) throw cause;
    throw new InvalidRequestError(
      `${what} cannot be written as JSON (${reasonOf(cause)}); send bytes, a string or a JSON value`,
      { cause },
    );
  }
  if (text === undefined) {
    throw new InvalidRequestError(
      `${what} must be bytes, a string or a JSON value; got ${typeof value}`,
    );
  }
  return text;
}

/** What a getter or `toJSON` throws may be anything. */
function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : typeof cause;
}

/** The first thing in an acyclic value that would be lost, in words; null if there is none. */
function findUnwritable(root: unknown): string | null {
  const left: object[] = [];
  const rootFault = examine(root, left);
  if (rootFault !== null) return rootFault;
  for (let container = left.pop(); container !== undefined; container = left.pop()) {
    const inArray = Array.isArray(container);
    const keys = Object.keys(container);
    // A place of an array that was never set is written as null, too.
    if (Array.isArray(container) && keys.length < container.length) return 'an array with holes';
    for (const key of keys) {
      const value = (container as Record<string, unknown>)[key];
      // A property without a value is an ordinary way to leave it out; in an array it would become
      // null.
      if (value === undefined && !inArray) continue;
      const fault = examine(value, left);
      if (fault !== null) return `${fault} at ${JSON.stringify(key)}`;
    }
  }
  return null;
}

/** Says what is wrong with one value, or puts it on the list of those to be looked into. */
function examine(value: unknown, left: object[]): string | null {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return null;
    case 'number':
      return Number.isFinite(value) ? null : String(value);
    case 'object':
      break;
    default:
      return `${value === undefined ? '' : 'a '}${typeof value}`;
  }
  if (value === null || typeof (value as { toJSON?: unknown }).toJSON === 'function') return null;
  const fault = Array.isArray(value) || isPlain(value) ? null : examineInstance(value);
  if (fault === null) left.push(value);
  return fault;
}

/** In any realm. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return true;
  return Object.getPrototypeOf(prototype) === null && tagOf(value) === 'Object';
}

/**
 * Instances of classes are written as their own enumerable properties. What keeps its state
 * elsewhere is lost.
 */
function examineInstance(value: object): string | null {
  if (types.isNumberObject(value)) return examine(Number(value), []);
  if (types.isBoxedPrimitive(value)) return null;
  const tag = tagOf(value);
  // Also of a class that adds properties of its own.
  if (types.isMap(value) || types.isSet(value)) return `a ${tag}`;
  if (types.isNativeError(value) || tag === 'Error') return 'an Error';
  if (ArrayBuffer.isView(value)) return `bytes (${tag}) inside it`;
  if (typeof (value as { pipe?: unknown }).pipe === 'function') return 'a stream';
  if (Object.keys(value).length > 0) return null;
  const { name } = Object.getPrototypeOf(value)?.constructor ?? {};
  return `an object of the kind ${typeof name === 'string' && name !== '' ? name : tag}`;
}

const tagOf = (value: object): string => Object.prototype.toString.call(value).slice(8, -1);
