/** Line plots: one panel or several over the same x axis. */

import * as echarts from 'echarts';
import type { Axis, LinePlot, Panel, PanelPlot, PlotSeries } from '../harness/plot.js';
import { short } from '../harness/units.js';
import { type Element, FONT, type Frame, MARGIN, text, WIDTH } from './frame.js';
import { endLabels, type LineEnd, labelRoom } from './labels.js';
import { type Style, stylesOf, type Theme } from './theme.js';
import { type Range, xRange, yRange } from './ticks.js';

const SINGLE_HEIGHT = 400;
const PANEL_HEIGHT = 128;
/** Above each panel, for the name of its y axis. */
const HEAD = 30;
/** Between a panel and the next one's head. */
const BETWEEN = 18;
/** Below the last panel: numbers, and the x axis' name. */
const X_AXIS = 46;
/** Left of the plot, for numbers. */
const Y_AXIS = 52;
/** Beyond so many points, markers would hide the line. */
const MOST_MARKERS = 16;

type NumberPoint = [number, number];

export function drawLines(plot: LinePlot | PanelPlot, frame: Frame, theme: Theme): string {
  const panels = plot.kind === 'panels' ? plot.panels : [{ y: plot.y, series: plot.series }];
  const height = panels.length === 1 ? SINGLE_HEIGHT : PANEL_HEIGHT;
  const plotHeight = panels.length * (HEAD + height + BETWEEN) - BETWEEN + X_AXIS;
  const figureHeight = frame.height(plotHeight);
  const all = panels.flatMap(({ series }) => series);
  const distinct = [...new Map(all.map((series) => [series.name, series])).values()];
  const styles = stylesOf(distinct, theme);
  const labelled = panels.filter(hasLabels).flatMap(({ series }) => series.map(({ name }) => name));
  const right = Math.max(MARGIN, labelRoom(labelled));
  const top = (index: number) => frame.top + HEAD + index * (HEAD + height + BETWEEN);
  const x = xRange(
    plot.x,
    all.flatMap((series) => numbers(series, plot.x).map(([value]) => value)),
  );

  const chart = echarts.init(null, null, {
    renderer: 'svg',
    ssr: true,
    width: WIDTH,
    height: figureHeight,
  });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: theme.background,
      textStyle: { fontFamily: FONT },
      grid: panels.map((_, index) => ({
        left: MARGIN + Y_AXIS,
        right,
        top: top(index),
        height,
      })),
      xAxis: panels.map((_, index) =>
        xAxisOf(plot.x, x, index, index === panels.length - 1, theme),
      ),
      yAxis: panels.map((panel, index) => yAxisOf(panel, index, plot.x, theme)),
      series: panels.flatMap((panel, index) =>
        panel.series.map((series) =>
          seriesOf(series, panel.y, plot.x, index, styles.get(series.name)),
        ),
      ),
    });
    const pixel = (index: number, point: NumberPoint) =>
      chart.convertToPixel({ xAxisIndex: index, yAxisIndex: index }, point) as NumberPoint;
    const labels = panels.flatMap((panel, index) => [
      text(panel.y.label, MARGIN, top(index) - 16, { size: 12.5, color: theme.text, weight: 600 }),
      ...(hasLabels(panel)
        ? endLabels(
            panel.series.flatMap((series): LineEnd[] => {
              const last = numbers(series, plot.x, panel.y).at(-1);
              const style = styles.get(series.name);
              if (last === undefined || style === undefined) return [];
              const [endX, endY] = pixel(index, last);
              return [{ name: series.name, x: endX, y: endY, style }];
            }),
            { top: top(index), bottom: top(index) + height },
            theme,
          )
        : []),
    ]);
    const last = panels.length - 1;
    const marks = (plot.marks ?? []).flatMap((mark, index) => {
      const [markX] = pixel(0, [mark.x, yRangeOf(panels[0], plot.x).min]);
      // Neighbours at different heights, so that their labels do not meet.
      const y = top(0) + 10 + (index % 2) * 17;
      return markElements(mark.label, markX, y, { top: top(0), bottom: top(last) + height }, theme);
    });
    const xName = text(
      plot.x.label,
      (MARGIN + Y_AXIS + WIDTH - right) / 2,
      top(last) + height + X_AXIS - 10,
      { size: 12.5, color: theme.muted, align: 'center' },
    );
    const elements = [...frame.elements(plotHeight), ...labels, ...marks, xName];
    chart.setOption({ graphic: elements as object[] });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

/** A single line is what the panel is named for. */
function hasLabels({ series }: Panel): boolean {
  return series.length > 1;
}

/** The points that can be drawn: finite, and above 0 on a logarithmic axis. */
function numbers({ points }: PlotSeries, x: Axis, y?: Axis): NumberPoint[] {
  const fits = (value: number, axis?: Axis) =>
    Number.isFinite(value) && (axis?.scale !== 'log' || value > 0);
  return points
    .map(([px, py]): NumberPoint => [Number(px), py])
    .filter(([px, py]) => fits(px, x) && fits(py, y));
}

function yRangeOf(panel: Panel | undefined, x: Axis): Range {
  if (panel === undefined) return { min: 0, max: 1, ticks: [0, 1] };
  const values = panel.series.flatMap((series) => numbers(series, x, panel.y).map(([, y]) => y));
  return yRange(panel.y, values.length === 0 ? [1] : values);
}

function xAxisOf(axis: Axis, { min, max, ticks }: Range, index: number, isLast: boolean, t: Theme) {
  return {
    gridIndex: index,
    type: axis.scale === 'log' ? 'log' : 'value',
    min,
    max,
    axisLine: { show: true, onZero: false, lineStyle: { color: t.axis } },
    axisTick: { show: isLast, customValues: ticks, lineStyle: { color: t.axis } },
    axisLabel: {
      show: isLast,
      customValues: ticks,
      color: t.muted,
      fontSize: 12,
      formatter: (value: number) => short(value, axis.unit),
    },
    splitLine: { show: false },
  };
}

function yAxisOf(panel: Panel, index: number, x: Axis, theme: Theme) {
  const { min, max, ticks } = yRangeOf(panel, x);
  return {
    gridIndex: index,
    type: panel.y.scale === 'log' ? 'log' : 'value',
    min,
    max,
    axisLine: { show: false },
    axisTick: { show: false, customValues: ticks },
    axisLabel: {
      customValues: ticks,
      color: theme.muted,
      fontSize: 12,
      formatter: (value: number) => short(value, panel.y.unit),
    },
    splitLine: { show: true, lineStyle: { color: theme.grid } },
  };
}

function seriesOf(
  series: PlotSeries,
  y: Axis,
  x: Axis,
  index: number,
  style: Style | undefined,
): object {
  const data = numbers(series, x, y);
  return {
    type: 'line',
    name: series.name,
    xAxisIndex: index,
    yAxisIndex: index,
    data,
    z: style?.strong ? 5 : 3,
    clip: false,
    symbol: data.length > MOST_MARKERS ? 'none' : style?.symbol,
    symbolSize: style?.symbolSize,
    showAllSymbol: true,
    itemStyle: { color: style?.color },
    lineStyle: { color: style?.color, width: style?.width, type: style?.dash, cap: 'round' },
  };
}

function markElements(
  label: string,
  x: number,
  y: number,
  { top, bottom }: { top: number; bottom: number },
  theme: Theme,
): Element[] {
  return [
    {
      type: 'line',
      silent: true,
      z: 1,
      shape: { x1: x, y1: top, x2: x, y2: bottom },
      style: { stroke: theme.muted, lineWidth: 1, lineDash: [3, 3] },
    },
    text(label, x + 6, y, { size: 12, color: theme.text, weight: 600, halo: theme.background }),
  ];
}
