import test from 'ava';
import fc from 'fast-check';
import { PendingQueue, type QueueLinks } from '../src/pending-queue.js';

class Element implements QueueLinks<Element> {
  previous: Element | null = null;
  next: Element | null = null;
  constructor(readonly name: number) {}
}

interface Pair {
  queue: PendingQueue<Element>;
  model: Element[];
}

type Operation = (pair: Pair) => void;

let lastName = 0;

const push: Operation = ({ queue, model }) => {
  lastName += 1;
  const element = new Element(lastName);
  queue.push(element);
  model.push(element);
};

const shift: Operation = ({ queue, model }) => {
  const expected = model.shift() ?? null;
  if (queue.shift() !== expected) throw new Error('shift took another element');
};

const removeAt =
  (place: number): Operation =>
  ({ queue, model }) => {
    const [element] = model.splice(Math.floor(place * model.length), 1);
    if (element !== undefined) queue.remove(element);
  };

/** Takes an element out and puts it at the end: it must be as good as new. */
const requeueAt =
  (place: number): Operation =>
  ({ queue, model }) => {
    const [element] = model.splice(Math.floor(place * model.length), 1);
    if (element === undefined) return;
    queue.remove(element);
    queue.push(element);
    model.push(element);
  };

/** Removes every other element from within the iteration. */
const thin: Operation = ({ queue, model }) => {
  let index = 0;
  for (const element of queue) {
    if (index % 2 === 0) queue.remove(element);
    index += 1;
  }
  const kept = model.filter((_, at) => at % 2 === 1);
  model.splice(0, model.length, ...kept);
};

const place = fc.double({ min: 0, max: 0.999, noNaN: true });
const operations = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.constant(push) },
    { weight: 2, arbitrary: fc.constant(shift) },
    { weight: 2, arbitrary: place.map(removeAt) },
    { weight: 1, arbitrary: place.map(requeueAt) },
    { weight: 1, arbitrary: fc.constant(thin) },
  ),
);

test('it does what an array does', (t) => {
  const property = fc.property(operations, (steps) => {
    const pair: Pair = { queue: new PendingQueue<Element>(), model: [] };
    for (const step of steps) {
      step(pair);
      const names = [...pair.queue].map((element) => element.name);
      const expected = pair.model.map((element) => element.name);
      if (pair.queue.length !== expected.length) throw new Error('the lengths differ');
      if (names.join() !== expected.join()) throw new Error(`${names} instead of ${expected}`);
    }
  });
  t.notThrows(() => fc.assert(property, { numRuns: 500 }));
});

test('an element that has left holds on to no other', (t) => {
  const queue = new PendingQueue<Element>();
  const elements = [1, 2, 3].map((name) => new Element(name));
  for (const element of elements) queue.push(element);
  const [first, second, third] = elements as [Element, Element, Element];
  queue.remove(second);
  t.is(queue.shift(), first);
  t.is(queue.shift(), third);
  t.is(queue.shift(), null);
  for (const element of elements) {
    t.is(element.previous, null);
    t.is(element.next, null);
  }
});
