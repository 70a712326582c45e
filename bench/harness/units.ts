/** Numbers as short as a reader needs them: 1.3 M, 250 k, 64 KiB, 12 ms. */

export type Unit = 'plain' | 'bytes' | 'us' | 'ms' | 's' | '%';

/** A unit's steps, from large to small: from what size on, and what follows the number. */
const STEPS: Record<Unit, readonly [size: number, suffix: string][]> = {
  plain: [
    [1e9, ' G'],
    [1e6, ' M'],
    [1e3, ' k'],
    [1, ''],
  ],
  bytes: [
    [2 ** 30, ' GiB'],
    [2 ** 20, ' MiB'],
    [2 ** 10, ' KiB'],
    [1, ' B'],
  ],
  us: [
    [1e6, ' s'],
    [1e3, ' ms'],
    [1, ' µs'],
    [1e-3, ' ns'],
  ],
  ms: [
    [1e3, ' s'],
    [1, ' ms'],
    [1e-3, ' µs'],
  ],
  s: [
    [1, ' s'],
    [1e-3, ' ms'],
  ],
  '%': [[1, ' %']],
};

/** Three significant digits, no trailing zeros, and the unit's step. */
export function short(value: number, unit: Unit = 'plain', digits = 3): string {
  if (!Number.isFinite(value)) return '–';
  const steps = STEPS[unit];
  if (value === 0) return unit === 'plain' ? '0' : `0${unitStep(unit)}`;
  // What rounds to 1,000 is the next step's 1.
  const rounded = (size: number) => Number((value / size).toPrecision(digits));
  const fits = steps.find(([size]) => Math.abs(rounded(size)) >= 1);
  const [size, suffix] = fits ?? steps.at(-1) ?? [1, ''];
  return `${rounded(size)}${suffix}`;
}

function unitStep(unit: Unit): string {
  return STEPS[unit].find(([size]) => size === 1)?.[1] ?? '';
}
