/** Bar plots: a row for each series, a column for each category, the number at the end of each bar. */

import * as echarts from 'echarts';
import type { BarPlot, PlotSeries } from '../harness/plot.js';
import { short } from '../harness/units.js';
import { FONT, type Frame, MARGIN, text, WIDTH, widthOf } from './frame.js';
import type { Theme } from './theme.js';

const ROW_HEIGHT = 27;
const BAR_HEIGHT = 15;
const NAME_SIZE = 13;
const VALUE_SIZE = 12;
/** Above the bars, for the categories' names. */
const HEAD = 30;
const BETWEEN = 24;

export function drawBars(plot: BarPlot, frame: Frame, theme: Theme): string {
  const categories = plot.x.categories ?? [
    ...new Set(plot.series.flatMap(({ points }) => points.map(([x]) => String(x)))),
  ];
  const valueIn = ({ points }: PlotSeries, category: string) =>
    points.find(([x]) => String(x) === category)?.[1] ?? Number.NaN;
  const first = categories[0] ?? '';
  const rows = plot.series
    .filter(({ points }) => points.some(([, y]) => Number.isFinite(y)))
    .toSorted((a, b) => (valueIn(b, first) || 0) - (valueIn(a, first) || 0));
  const values = rows.flatMap(({ points }) => points.map(([, y]) => y)).filter(Number.isFinite);
  const written = values.map((value) => short(value, plot.y.unit));
  const names = Math.max(...rows.map(({ name }) => widthOf(name, NAME_SIZE))) + 14;
  const left = MARGIN + names;
  const column = (WIDTH - left - MARGIN - (categories.length - 1) * BETWEEN) / categories.length;
  const valueRoom = Math.max(...written.map((value) => widthOf(value, VALUE_SIZE))) + 16;
  const plotHeight = HEAD + rows.length * ROW_HEIGHT;
  const columnLeft = (index: number) => left + index * (column + BETWEEN);
  const log = plot.y.scale === 'log';

  const height = frame.height(plotHeight);
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: theme.background,
      textStyle: { fontFamily: FONT },
      grid: categories.map((_, index) => ({
        left: columnLeft(index),
        width: column - valueRoom,
        top: frame.top + HEAD,
        height: rows.length * ROW_HEIGHT,
      })),
      xAxis: categories.map((_, gridIndex) => ({
        gridIndex,
        type: log ? 'log' : 'value',
        min: log ? Math.min(...values) / 2 : 0,
        max: Math.max(...values),
        show: false,
      })),
      yAxis: categories.map((_, gridIndex) => ({
        gridIndex,
        type: 'category',
        inverse: true,
        data: rows.map(({ name }) => name),
        axisTick: { show: false },
        axisLabel: { show: false },
        axisLine: { show: true, onZero: false, lineStyle: { color: theme.axis } },
      })),
      series: categories.map((category, index) => ({
        type: 'bar',
        xAxisIndex: index,
        yAxisIndex: index,
        barWidth: BAR_HEIGHT,
        data: rows.map((row) => {
          const value = valueIn(row, category);
          return {
            value: Number.isFinite(value) ? value : null,
            itemStyle: barStyle(row.role, theme),
            label: {
              show: Number.isFinite(value),
              position: 'right',
              formatter: short(value, plot.y.unit),
              color: row.role === 'engine' ? theme.engine : theme.text,
              fontSize: VALUE_SIZE,
              fontWeight: row.role === 'engine' ? 700 : 400,
              fontFamily: FONT,
            },
          };
        }),
      })),
    });
    const graphic = [
      ...frame.elements(plotHeight),
      ...categories.map((category, index) =>
        text(category, columnLeft(index), frame.top + HEAD / 2 - 3, {
          size: 12.5,
          color: theme.text,
          weight: 600,
        }),
      ),
      ...rows.map(({ name, role }, index) =>
        text(name, left - 10, frame.top + HEAD + (index + 0.5) * ROW_HEIGHT, {
          size: NAME_SIZE,
          color: role === 'engine' ? theme.engine : role === 'limit' ? theme.muted : theme.text,
          weight: role === 'engine' ? 700 : 400,
          align: 'right',
        }),
      ),
    ];
    chart.setOption({ graphic: graphic as object[] });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

function barStyle(role: PlotSeries['role'], theme: Theme): object {
  const borderRadius = [0, 3, 3, 0];
  if (role === 'limit') {
    const dashed = { borderColor: theme.limit, borderType: 'dashed', borderWidth: 1.25 };
    return { color: theme.grid, ...dashed, borderRadius };
  }
  const color = { engine: theme.engine, peer: theme.peerBar, koffi: theme.koffiBar }[role];
  return { color, borderRadius };
}
