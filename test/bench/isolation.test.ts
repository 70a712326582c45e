/** What the answer says of crashes: what did not happen is never, and never a time. */

import test from 'ava';
import { type Measurement, Results } from '../../bench/harness/question.js';
import { isolation } from '../../bench/isolation.js';

function answerTo(measured: Record<string, Measurement | undefined>) {
  const samples = Object.entries(measured).map(([key, measurement]) => {
    const [contender = '', what = '', lanes = '1'] = key.split(' ');
    const trial = { contender, what, lanes: Number(lanes) };
    return measurement === undefined
      ? { trial, round: 1, error: 'it failed' }
      : { trial, round: 1, measurement };
  });
  return isolation.answer(new Results(samples));
}

function rowOf(answer: ReturnType<typeof answerTo>, column: string, name: string) {
  const table = answer.tables.find(({ columns }) => columns.includes(column));
  return table?.rows.find(([first]) => first === name)?.slice(1);
}

test('a crash: times, who never hears of it, who is lost, and a host that ends', (t) => {
  const answer = answerTo({
    'engineThreads crash 1': { endsHost: 1 },
    'engineProcesses crash 1': { lost: 0, stranded: 0, toldMs: 5, nextMs: 50, allMs: 70 },
    'engineProcesses crash 2': { lost: 0, stranded: 0, toldMs: 5, nextMs: 2, allMs: 25 },
    'workerpoolProcesses crash 1': { lost: 1, stranded: 19 },
    'tinypoolProcesses crash 1': undefined,
  });
  const row = (name: string) => rowOf(answer, 'its caller is told', name);
  t.deepEqual(row('changeover, threads'), ['the host ends', '', '', '']);
  t.deepEqual(row('changeover, processes, 1 lane'), ['5.00', '50.0', '70.0', '0']);
  t.deepEqual(row('workerpool, processes, 1 lane'), ['never', 'never', 'never', '20']);
  t.deepEqual(row('tinypool, processes, 1 lane'), ['failed', 'failed', 'failed', 'failed']);
  t.regex(answer.headline ?? '', /told in 5\.00 ms.* 50\.0 ms with one lane and 2\.00 ms with two/);
  t.regex(answer.headline ?? '', /no other request is lost/);
  const [one, two] = answer.levels;
  t.is(one?.value, 0);
  t.is(two?.value, 0);
});

test('a lost request is a missed level, and the headline says so', (t) => {
  const answer = answerTo({
    'engineProcesses crash 1': { lost: 2, stranded: 1, toldMs: 5, nextMs: 50 },
    'engineProcesses crash 2': { lost: 0, stranded: 0, toldMs: 5, nextMs: 2, allMs: 25 },
  });
  t.is(answer.levels[0]?.value, 3);
  t.regex(answer.headline ?? '', /3 other requests are lost/);
});

test('a stuck call in a thread never gives the CPU back', (t) => {
  const answer = answerTo({
    'engineThreads stuck 1': { lateMs: 1, nextMs: 1050 },
    'engineProcesses stuck 1': { lateMs: 1, nextMs: 1060, cpuBackMs: 1010 },
  });
  const row = (name: string) => rowOf(answer, 'CPU back after', name);
  t.deepEqual(row('changeover, threads'), ['1.00', '1,050', 'never']);
  t.deepEqual(row('changeover, processes'), ['1.00', '1,060', '1,010']);
  t.is(answer.levels[2]?.value, 10);
});
