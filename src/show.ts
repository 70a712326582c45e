/** A value in the words of an error message, whatever it is: nothing of the caller's runs. */

import { types } from 'node:util';

const LONGEST_TEXT = 200;

export function show(value: unknown): string {
  switch (typeof value) {
    case 'string': {
      const cut = value.length > LONGEST_TEXT ? ' (cut)' : '';
      return JSON.stringify(value.slice(0, LONGEST_TEXT)) + cut;
    }
    case 'object':
      return value === null ? 'null' : showObject(value);
    case 'function':
    case 'symbol':
      return `a ${typeof value}`;
    case 'bigint':
      return `${value}n`;
    default:
      return String(value);
  }
}

/** By the kind alone: what is in an object does not belong in a log, and may not even be printable. */
function showObject(value: object): string {
  // The traps of a proxy and a getter for the tag are code of the caller's, and could throw.
  if (types.isProxy(value)) return 'a Proxy';
  const kind = Array.isArray(value) ? 'Array' : kindOf(value);
  if (kind === 'Object') return 'an object';
  return `${/^[AEIO]/.test(kind) ? 'an' : 'a'} ${kind}`;
}

/** The name of the class that it is an instance of, as far as that can be had without running anything. */
function kindOf(value: object): string {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (typeof prototype !== 'object' || prototype === null || types.isProxy(prototype)) {
    return 'Object';
  }
  const made: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  if (typeof made !== 'function' || types.isProxy(made)) return 'Object';
  const name: unknown = Object.getOwnPropertyDescriptor(made, 'name')?.value;
  return typeof name === 'string' && /^\w{1,64}$/.test(name) ? name : 'Object';
}
