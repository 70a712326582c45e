import test from 'ava';
import { CrashLoop } from '../src/crash-loop.js';

test('the first is replaced at once, then it takes twice as long each time, up to a limit', (t) => {
  const loop = new CrashLoop(1000);
  const delays = Array.from({ length: 10 }, () => loop.lost());
  t.deepEqual(delays, [0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  t.is(loop.state, 'closed');
});

test('an answer in between begins anew', (t) => {
  const loop = new CrashLoop(2);
  for (let round = 0; round < 10; round++) {
    loop.answered();
    t.is(loop.lost(), 0);
  }
  t.is(loop.state, 'closed');
  t.is(loop.crashes, 1);
});

test('closed, open, half-open, open again, half-open, closed', (t) => {
  const loop = new CrashLoop(3);
  loop.lost();
  loop.lost();
  loop.cameUp();
  t.is(loop.state, 'closed');
  loop.lost();
  t.is(loop.state, 'open');
  loop.cameUp();
  t.is(loop.state, 'half-open');
  t.is(loop.lost(), 200);
  t.is(loop.state, 'open');
  loop.cameUp();
  loop.answered();
  t.is(loop.state, 'closed');
  t.is(loop.crashes, 0);
  t.is(loop.lost(), 0);
  t.is(loop.state, 'closed');
});
