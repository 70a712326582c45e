/** The explorer itself, on programs whose outcomes are known, and against itself without its short cuts. */

import test from 'ava';
import fc from 'fast-check';
import { explore, type Program, type Thread, type View, Violation } from './explore.js';
import { Machine } from './machine.js';

const [X, Y, DIED] = [0, 1, 7];

function wordsOf(machine: Machine) {
  return machine.view(1);
}

/** A program whose threads run one command each. */
function program(
  commands: ((machine: Machine) => void)[],
  more: Partial<Omit<Program, 'machine'>> = {},
): Program {
  const machine = new Machine();
  const threads: Thread<number>[] = commands.map((command, index) => ({
    name: `thread ${index}`,
    initial: 0,
    deathAt: DIED,
    command() {
      command(machine);
      return null;
    },
    mayDie: () => true,
  }));
  return {
    name: 'test',
    machine,
    threads: threads as Program['threads'],
    memory: new Map(),
    deaths: 0,
    atEnd: () => undefined,
    ...more,
  };
}

/** Every memory that a program can end with, as text. */
function endsOf(
  commands: ((machine: Machine) => void)[],
  words: number,
  everyOrder = false,
): string[] {
  const ends = new Set<string>();
  const atEnd = (view: View) => {
    ends.add(Array.from({ length: words }, (_, word) => view.word(word)).join(' '));
  };
  explore(program(commands, { atEnd, everyOrder }));
  return [...ends].sort();
}

const increment = (machine: Machine) => {
  const { atomics } = machine;
  atomics.store(wordsOf(machine), X, atomics.load(wordsOf(machine), X) + 1);
};

test('an update in two steps can be lost', (t) => {
  t.deepEqual(endsOf([increment, increment], 1), ['1', '2']);
  t.deepEqual(endsOf([increment, increment, increment], 1), ['1', '2', '3']);
});

test('an atomic addition is not lost', (t) => {
  const add = (machine: Machine) => void machine.atomics.add(wordsOf(machine), X, 1);
  t.deepEqual(endsOf([add, add, add], 1), ['3']);
});

test('store buffering: one of two sees the other', (t) => {
  const side = (mine: number, theirs: number, result: number) => (machine: Machine) => {
    const { atomics } = machine;
    atomics.store(wordsOf(machine), mine, 1);
    atomics.store(wordsOf(machine), result, atomics.load(wordsOf(machine), theirs));
  };
  t.deepEqual(endsOf([side(X, Y, 2), side(Y, X, 3)], 4), ['1 1 0 1', '1 1 1 0', '1 1 1 1']);
});

test('a wake-up that is lost is a deadlock', (t) => {
  const sleeper = (machine: Machine) => {
    const { atomics } = machine;
    if (atomics.load(wordsOf(machine), X) === 0) atomics.wait(wordsOf(machine), Y, 0);
  };
  const waker = (machine: Machine) => {
    machine.atomics.store(wordsOf(machine), X, 1);
    machine.atomics.notify(wordsOf(machine), Y);
  };
  const atEnd = (view: View) => {
    if (view.sleeps(0)) throw new Error('asleep');
  };
  const error = t.throws(() => explore(program([sleeper, waker], { atEnd })), {
    instanceOf: Violation,
  });
  t.regex(error.message, /asleep/);
  const careful = (machine: Machine) => {
    machine.atomics.store(wordsOf(machine), Y, 1);
    waker(machine);
  };
  t.notThrows(() => explore(program([sleeper, careful], { atEnd })));
});

test('data races are found, and only those', (t) => {
  const publish = (machine: Machine) => {
    machine.view(1)[X] = 42;
    machine.atomics.store(wordsOf(machine), Y, 1);
  };
  const consume = (checks: boolean) => (machine: Machine) => {
    if (checks && machine.atomics.load(wordsOf(machine), Y) === 0) return;
    if (machine.view(1)[X] !== 42) throw new Error('not written yet');
  };
  t.notThrows(() => explore(program([publish, consume(true)])));
  const error = t.throws(() => explore(program([publish, consume(false)])), {
    instanceOf: Violation,
  });
  t.regex(error.message, /data race|not written yet/);
});

test('a thread may die before each access, as often as is allowed', (t) => {
  const two = (machine: Machine) => {
    machine.atomics.store(wordsOf(machine), X, 1);
    machine.atomics.store(wordsOf(machine), Y, 1);
  };
  const ends = new Set<string>();
  const atEnd = (view: View) => ends.add(`${view.word(X)}${view.word(Y)} ${view.word(DIED)}`);
  explore(program([two], { deaths: 1, atEnd: (view) => void atEnd(view) }));
  t.deepEqual([...ends].sort(), ['00 1', '10 1', '11 0']);
});

test('a thread that goes round for ever is found', (t) => {
  const spin = (machine: Machine) => {
    while (machine.atomics.load(wordsOf(machine), X) === 0);
  };
  const error = t.throws(() => explore(program([spin])), { instanceOf: Violation });
  t.regex(error.message, /round for ever/);
});

// ---- Short cuts --------------------------------------------------------------------------------------

const step = fc.record({
  kind: fc.constantFrom('load', 'store', 'add', 'or', 'exchange', 'compareExchange'),
  word: fc.nat(2),
  value: fc.integer({ min: 1, max: 2 }),
  /** What the thread has read so far goes into what it writes. */
  uses: fc.boolean(),
});
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

function run(steps: readonly Step[], thread: number) {
  return (machine: Machine) => {
    const words = wordsOf(machine);
    let seen = 0;
    for (const { kind, word, value, uses } of steps) {
      const { atomics, ignoringAtomics } = machine;
      const operand = uses ? (seen % 3) + value : value;
      if (kind === 'load') seen = seen * 3 + atomics.load(words, word);
      else if (kind === 'compareExchange') seen += atomics.compareExchange(words, word, 0, operand);
      else if (kind === 'exchange') seen += atomics.exchange(words, word, operand);
      else (ignoringAtomics[kind as 'add'] as typeof atomics.add)(words, word, operand);
    }
    atomics(machine, thread, seen);
  };
}

/** What a thread has seen goes to a word of its own, so that it counts as an outcome. */
function atomics(machine: Machine, thread: number, seen: number): void {
  machine.atomics.store(wordsOf(machine), 3 + thread, seen);
}

test('leaving out orders that nobody can notice leaves out no outcome', (t) => {
  let ends = 0;
  fc.assert(
    fc.property(
      fc.array(fc.array(step, { maxLength: 4 }), { minLength: 2, maxLength: 3 }),
      (threads) => {
        const commands = threads.map(run);
        const some = endsOf(commands, 6);
        ends += some.length;
        const all = endsOf(commands, 6, true);
        if (some.join() !== all.join()) throw new Error(`${some} instead of ${all}`);
      },
    ),
    { numRuns: 300 },
  );
  t.log(`${ends} outcomes`);
  t.true(ends > 300);
});
