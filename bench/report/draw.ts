/** A plot as SVG. */

import type { Plot } from '../harness/plot.js';
import { drawBars } from './bars.js';
import { frameFor } from './frame.js';
import { drawLines } from './lines.js';
import type { Theme } from './theme.js';

/** @param foot What the figure was measured on and with, and the command that repeats it; a line each. */
export function drawPlot(plot: Plot, foot: readonly string[], theme: Theme): string {
  const frame = frameFor(plot, foot, theme);
  const svg = plot.kind === 'bar' ? drawBars(plot, frame, theme) : drawLines(plot, frame, theme);
  // Not every viewer knows the attribute; a third of an em puts the letters' middle there in all of them.
  return svg.replaceAll('dominant-baseline="central"', 'dy="0.35em"');
}
