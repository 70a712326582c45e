/** What a plot shows. How it is drawn is the report's business. */

export interface Plot {
  /** The file's name, without ending. */
  name: string;
  title: string;
  /** What the plot says, in one sentence. */
  caption: string;
  kind: 'line' | 'bar';
  x: Axis;
  y: Axis;
  series: PlotSeries[];
  /** Moments or values on the x axis to point out. */
  marks?: { x: number | string; label: string }[];
}

export interface Axis {
  label: string;
  scale?: 'linear' | 'log' | 'category';
  /** The categories, in their order. */
  categories?: string[];
}

export interface PlotSeries {
  name: string;
  /** For categories, x is the category's name. */
  points: [x: number | string, y: number][];
  role: 'engine' | 'peer' | 'koffi' | 'limit';
}
