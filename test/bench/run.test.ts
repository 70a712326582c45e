import { pathToFileURL } from 'node:url';
import test from 'ava';
import { withoutRoot } from '../../bench/harness/run.js';
import { packageRoot } from '../../fixtures/paths.js';

test('a published error does not say where the checkout lies', (t) => {
  const file = `${packageRoot}node_modules/x.js`;
  const stack = `Error: no\n    at f (${file}:1:2)\n    at g (${pathToFileURL(file).href}:3:4)`;
  t.is(
    withoutRoot(stack),
    'Error: no\n    at f (node_modules/x.js:1:2)\n    at g (node_modules/x.js:3:4)',
  );
});
