/** The names of lines, written where they end, none over another. */

import { type Element, MARGIN, text, widthOf } from './frame.js';
import type { Style, Theme } from './theme.js';

/** A line's last point, in pixels. */
export interface LineEnd {
  name: string;
  x: number;
  y: number;
  style: Style;
}

const SIZE = 12.5;
const LINE_HEIGHT = 16;
/** From a line's end to its label. */
const LEADER = 22;
/** Lines that end this near to each other are labelled in one column. */
const SAME_END = 8;

/** Room that labels need right of the plot. */
export function labelRoom(names: readonly string[]): number {
  return LEADER + Math.max(0, ...names.map((name) => widthOf(name, SIZE))) + MARGIN;
}

/** Labels with thin leaders to their lines, between `top` and `bottom`. */
export function endLabels(
  ends: readonly LineEnd[],
  { top, bottom }: { top: number; bottom: number },
  theme: Theme,
): Element[] {
  const columns = new Map<number, LineEnd[]>();
  for (const end of ends) {
    const near = [...columns.keys()].find((x) => Math.abs(x - end.x) <= SAME_END) ?? end.x;
    columns.set(near, [...(columns.get(near) ?? []), end]);
  }
  return [...columns.values()].flatMap((column) => {
    const sorted = column.toSorted((a, b) => a.y - b.y);
    const ys = spread(
      sorted.map(({ y }) => y),
      top,
      bottom,
    );
    return sorted.flatMap(({ name, x, y, style }, index) => {
      const labelY = ys[index] ?? y;
      const { color, strong } = style;
      return [
        {
          type: 'polyline',
          silent: true,
          z: 90,
          shape: {
            points: [
              [x + 6, y],
              [x + LEADER - 12, labelY],
              [x + LEADER - 4, labelY],
            ],
          },
          style: { stroke: color, lineWidth: 1, opacity: 0.6, fill: 'none' },
        },
        text(name, x + LEADER, labelY, {
          size: SIZE,
          color,
          weight: strong ? 700 : 500,
          halo: theme.background,
        }),
      ];
    });
  });
}

/** The nearest places to the wanted ones that lie a line apart. */
function spread(wanted: readonly number[], top: number, bottom: number): number[] {
  const places = [...wanted];
  // Relaxation: overlapping neighbours push each other apart, both the same way, until none overlap.
  for (let pass = 0; pass < 500; pass++) {
    let moved = false;
    for (let index = 1; index < places.length; index++) {
      const overlap = LINE_HEIGHT - ((places[index] ?? 0) - (places[index - 1] ?? 0));
      if (overlap <= 0.01) continue;
      places[index - 1] = (places[index - 1] ?? 0) - overlap / 2;
      places[index] = (places[index] ?? 0) + overlap / 2;
      moved = true;
    }
    const above = top - (places[0] ?? top);
    if (above > 0) places[0] = top;
    const below = (places.at(-1) ?? bottom) - bottom;
    if (below > 0) places[places.length - 1] = bottom;
    if (!moved && above <= 0 && below <= 0) break;
  }
  return places;
}
