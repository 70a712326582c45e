import test from 'ava';
import { isUnchanged } from '../../src/library/source.js';

const state = { ino: 1n, size: 2n, mtimeNs: 3n, ctimeNs: 4n };

test('sees what a copy could have missed', (t) => {
  t.true(isUnchanged(state, { ...state }));
  for (const field of ['ino', 'size', 'mtimeNs', 'ctimeNs'] as const) {
    t.false(isUnchanged(state, { ...state, [field]: 5n }), field);
  }
});
