import test from 'ava';
import { isUnchanged } from '../../src/library/source.js';

const state = { ino: 1n, size: 2n, nlink: 1n, mtimeNs: 3n, ctimeNs: 4n };

test('sees what a copy could have missed', (t) => {
  t.true(isUnchanged(state, { ...state }));
  for (const field of ['ino', 'size', 'mtimeNs', 'ctimeNs'] as const) {
    t.false(isUnchanged(state, { ...state, [field]: 5n }), field);
  }
});

test('a file that only gained or lost a name is unchanged', (t) => {
  const renamedOver = { ...state, nlink: 0n, ctimeNs: 5n };
  t.true(isUnchanged(state, renamedOver));
  t.true(isUnchanged(state, { ...state, nlink: 2n, ctimeNs: 5n }));
  for (const field of ['ino', 'size', 'mtimeNs'] as const) {
    t.false(isUnchanged(state, { ...renamedOver, [field]: 6n }), field);
  }
});
