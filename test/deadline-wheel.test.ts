/** Nothing comes early, late or twice, whatever is added and taken back meanwhile. */

import test from 'ava';
import fc from 'fast-check';
import { DeadlineWheel, OUTSIDE_WHEEL, type WheelLinks } from '../src/deadline-wheel.js';

class Element implements WheelLinks<Element> {
  wheelPrevious: Element | null = OUTSIDE_WHEEL.wheelPrevious;
  wheelNext: Element | null = OUTSIDE_WHEEL.wheelNext;
  wheelSlot = OUTSIDE_WHEEL.wheelSlot;
  wheelTick = OUTSIDE_WHEEL.wheelTick;

  constructor(readonly atMs: number) {}
}

const ORIGIN_MS = 1234.5;

/** From under a millisecond to beyond what the wheel reaches, all orders of magnitude alike. */
const delay = fc
  .tuple(fc.integer({ min: 0, max: 40 }), fc.double({ min: 0, max: 1, noNaN: true }))
  .map(([power, share]) => 2 ** power * share);

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('add' as const), delay }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('advance' as const), delay }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('follow' as const) }) },
);

test('gives out what a sorted list would', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      let nowMs = ORIGIN_MS;
      let nextMs = Number.POSITIVE_INFINITY;
      const wheel = new DeadlineWheel<Element>(nowMs);
      const inside = new Set<Element>();
      const advance = (toMs: number) => {
        nowMs = toMs;
        nextMs = wheel.advance(nowMs, (element) => {
          t.true(inside.delete(element), 'once, and not after it was taken back');
          t.true(element.atMs <= nowMs, 'not early');
        });
        for (const { atMs } of inside) {
          t.true(atMs > nowMs - 2, 'a millisecond late, for fractions, and no more');
          t.true(nextMs <= Math.max(atMs, nowMs) + 2, 'it would be found in time');
        }
        t.true(nextMs > nowMs, 'or it would be asked again and again');
      };
      for (const each of steps) {
        if (each.kind === 'add') {
          const element = new Element(nowMs + each.delay);
          inside.add(element);
          wheel.add(element, element.atMs);
        } else if (each.kind === 'remove') {
          const element = [...inside][each.which % Math.max(1, inside.size)];
          if (element === undefined) continue;
          wheel.remove(element);
          wheel.remove(element);
          inside.delete(element);
        } else if (each.kind === 'advance') {
          advance(nowMs + each.delay);
        } else if (nextMs > nowMs && nextMs !== Number.POSITIVE_INFINITY) {
          advance(nextMs);
        }
      }
      advance(nowMs + 2 ** 42);
      t.is(inside.size, 0);
      t.is(nextMs, Number.POSITIVE_INFINITY);
    }),
  );
});

test('what is due may add itself again, and take others back', (t) => {
  const wheel = new DeadlineWheel<Element>(0);
  const [first, second, third] = [new Element(10), new Element(10), new Element(90)];
  for (const element of [first, second, third]) wheel.add(element, element.atMs);
  const out: Element[] = [];
  const nextMs = wheel.advance(10, (element) => {
    out.push(element);
    wheel.remove(element === first ? second : first);
    wheel.remove(third);
    wheel.add(element, 10);
  });
  t.is(out.length, 1);
  t.is(nextMs, 11, 'what is added as due comes with the next millisecond');
});
