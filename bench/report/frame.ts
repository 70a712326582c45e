/** What is around every plot: the finding on top, what is plotted below it, and at the foot how to repeat it. */

import type { Plot } from '../harness/plot.js';
import type { Theme } from './theme.js';

export const WIDTH = 960;
export const MARGIN = 28;
export const FONT =
  "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif";

const TITLE = { size: 21, lineHeight: 27 };
const CAPTION = { size: 13.5, lineHeight: 19 };
const FOOT = { size: 11, lineHeight: 15 };
/** Between the head and the plot, and between the plot and the foot. */
const GAP = 22;

/** Average widths of a character, in font sizes; a little wide, as readers have different fonts. */
const CHARACTER = 0.5;
const BOLD_CHARACTER = 0.54;

/** A drawing element of echarts. */
export type Element = Record<string, unknown>;

export interface Frame {
  /** Where the plot may begin. */
  top: number;
  /** The whole figure's height, around a plot of so many pixels. */
  height(plotHeight: number): number;
  elements(plotHeight: number): Element[];
}

export function frameFor(plot: Plot, foot: readonly string[], theme: Theme): Frame {
  const title = wrap(plot.title, TITLE.size * BOLD_CHARACTER);
  const caption = wrap(plot.caption, CAPTION.size * CHARACTER);
  const feet = foot.flatMap((line) => wrap(line, FOOT.size * CHARACTER));
  const captionTop = MARGIN - 4 + title.length * TITLE.lineHeight + 4;
  const top = captionTop + caption.length * CAPTION.lineHeight + GAP;
  const footTop = (plotHeight: number) => top + plotHeight + GAP;
  return {
    top,
    height: (plotHeight) => footTop(plotHeight) + feet.length * FOOT.lineHeight + MARGIN - 10,
    elements: (plotHeight) => [
      block(title, MARGIN - 4, { ...TITLE, weight: 600, color: theme.text }),
      block(caption, captionTop, { ...CAPTION, weight: 400, color: theme.muted }),
      block(feet, footTop(plotHeight), { ...FOOT, weight: 400, color: theme.muted }),
    ],
  };
}

interface TextStyle {
  size: number;
  lineHeight: number;
  weight: number;
  color: string;
}

function block(lines: readonly string[], y: number, style: TextStyle): Element {
  return {
    type: 'group',
    children: lines.map((line, index) =>
      text(line, MARGIN, y + (index + 0.5) * style.lineHeight, style),
    ),
  };
}

/** A line of text, its middle at `y`. */
export function text(
  content: string,
  x: number,
  y: number,
  style: {
    size: number;
    color: string;
    weight?: number;
    align?: 'left' | 'center' | 'right';
    /** Painted around the letters, so that lines below do not disturb. */
    halo?: string;
  },
): Element {
  const { size, color, weight = 400, align = 'left', halo } = style;
  return {
    type: 'text',
    silent: true,
    x,
    y,
    z: 100,
    style: {
      text: content,
      fill: color,
      font: `${weight} ${size}px ${FONT}`,
      textAlign: align,
      textVerticalAlign: 'middle',
      ...(halo === undefined ? {} : { stroke: halo, lineWidth: 4 }),
    },
  };
}

/** How wide a text is, about. */
export function widthOf(content: string, size: number): number {
  return content.length * size * CHARACTER;
}

function wrap(content: string, characterWidth: number): string[] {
  const most = Math.floor((WIDTH - 2 * MARGIN) / characterWidth);
  const lines: string[] = [];
  let line = '';
  for (const word of content.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > most) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return line === '' ? lines : [...lines, line];
}
