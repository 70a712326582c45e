import test from 'ava';
import { step, type VersionState } from '../src/version-state.js';

const STATES: readonly VersionState[] = [
  'loading',
  'active',
  'draining',
  'drained',
  'retired',
  'failed',
];

/** The diagram in version-state.ts, arrow by arrow. */
const ARROWS = new Set([
  'loading active',
  'loading failed',
  'active draining',
  'draining drained',
  'drained retired',
]);

for (const from of STATES) {
  for (const to of STATES) {
    const allowed = ARROWS.has(`${from} ${to}`);
    test(`${from} to ${to} is ${allowed ? 'a step' : 'refused'}`, (t) => {
      if (allowed) t.is(step(from, to), to);
      else t.throws(() => step(from, to), { code: 'ERR_ASSERTION' });
    });
  }
}
