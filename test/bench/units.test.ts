import test from 'ava';
import { short, type Unit } from '../../bench/harness/units.js';

const written: [value: number, unit: Unit, text: string][] = [
  [0, 'plain', '0'],
  [0, 'bytes', '0 B'],
  [0.5, 'plain', '0.5'],
  [999.4, 'plain', '999'],
  [999.9, 'plain', '1 k'],
  [250_000, 'plain', '250 k'],
  [1_300_000, 'plain', '1.3 M'],
  [-2_500, 'plain', '-2.5 k'],
  [64 * 1024, 'bytes', '64 KiB'],
  [2 ** 30, 'bytes', '1 GiB'],
  [1000, 'bytes', '1000 B'],
  [0.5, 'us', '500 ns'],
  [1500, 'us', '1.5 ms'],
  [2_000_000, 'us', '2 s'],
  [0.25, 'ms', '250 µs'],
  [0.5, 's', '500 ms'],
  [12.34, '%', '12.3 %'],
  [Number.NaN, 'us', '–'],
];

for (const [value, unit, text] of written) {
  test(`${value} as ${unit} is ${text}`, (t) => {
    t.is(short(value, unit), text);
  });
}
