/** Values in error messages: short, in the same words everywhere, and without running code of the caller's. */
import test from 'ava';
import { show } from '../src/show.js';

class Job {}

for (const [value, text] of [
  ['2', '"2"'],
  [2, '2'],
  [Number.NaN, 'NaN'],
  [10n, '10n'],
  [true, 'true'],
  [undefined, 'undefined'],
  [null, 'null'],
  [() => 1, 'a function'],
  [Symbol('x'), 'a symbol'],
  [[1], 'an Array'],
  [{ secret: 1 }, 'an object'],
  [Object.create(null), 'an object'],
  [new Map(), 'a Map'],
  [new Uint8Array(1), 'a Uint8Array'],
  [new URL('file:///x'), 'a URL'],
  [new AbortController(), 'an AbortController'],
  [new Job(), 'a Job'],
  [{ toString: 5, valueOf: 5 }, 'an object'],
] as const) {
  test(`${text}${typeof value === 'object' && value !== null ? ` (${Object.keys(value).join()})` : ''}`, (t) => {
    t.is(show(value), text);
  });
}

test('nothing that throws is run', (t) => {
  const fail = () => {
    throw new Error('run');
  };
  const traps = { get: fail, getPrototypeOf: fail, getOwnPropertyDescriptor: fail, ownKeys: fail };
  t.is(show(new Proxy({}, traps)), 'a Proxy');
  t.is(show(Object.create(new Proxy({}, traps))), 'an object');
  const hostile = Object.defineProperties(
    {},
    { [Symbol.toStringTag]: { get: fail }, constructor: { get: fail }, toString: { get: fail } },
  );
  t.is(show(hostile), 'an object');
  t.is(show(Object.create(hostile)), 'an object');
});

test('a long text is cut', (t) => {
  t.is(show('x'.repeat(300)), `"${'x'.repeat(200)}" (cut)`);
});
