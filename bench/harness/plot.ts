/** What a plot shows. How it is drawn is the report's business (bench/report/). */

import type { Unit } from './units.js';

export type Plot = LinePlot | BarPlot | PanelPlot;

interface AnyPlot {
  /** The file's name, without ending. */
  name: string;
  /** What the plot says, in one sentence made from the numbers. */
  title: string;
  /** What is plotted, and what one needs to know to read it right. */
  caption: string;
}

/** Lines over numbers. */
export interface LinePlot extends AnyPlot {
  kind: 'line';
  x: Axis;
  y: Axis;
  series: PlotSeries[];
  marks?: Mark[];
}

/** Several line plots, one below the other, over the same x: what happened at the same time. */
export interface PanelPlot extends AnyPlot {
  kind: 'panels';
  x: Axis;
  panels: Panel[];
  marks?: Mark[];
}

export interface Panel {
  y: Axis;
  series: PlotSeries[];
}

/** A row of bars for each series, a column for each category; longest first. */
export interface BarPlot extends AnyPlot {
  kind: 'bar';
  x: Axis;
  y: Axis;
  series: PlotSeries[];
}

export interface Axis {
  label: string;
  scale?: 'linear' | 'log' | 'category';
  /** The categories, in their order. */
  categories?: string[];
  /** How numbers are written. Default: plain. */
  unit?: Unit;
}

/** A moment or value on the x axis to point out. */
export interface Mark {
  x: number;
  label: string;
}

export interface PlotSeries {
  name: string;
  /** For categories, x is the category's name. What is not a finite number is left out. */
  points: [x: number | string, y: number][];
  role: 'engine' | 'peer' | 'koffi' | 'limit';
}
