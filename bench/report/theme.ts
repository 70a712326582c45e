/** Colours, markers and line styles: the engine strong, peers muted, limits grey and dashed. */

import type { PlotSeries } from '../harness/plot.js';

export interface Theme {
  readonly name: 'light' | 'dark';
  background: string;
  text: string;
  muted: string;
  grid: string;
  axis: string;
  engine: string;
  limit: string;
  /** Of lines, one for each peer; told apart by colour-blind people as well, and by their markers. */
  peers: readonly string[];
  /** Of bars, which have their names beside them. */
  peerBar: string;
  koffiBar: string;
}

export const themes: readonly Theme[] = [
  {
    name: 'light',
    background: '#ffffff',
    text: '#1f2328',
    muted: '#59636e',
    grid: '#e7eaee',
    axis: '#9aa4ae',
    engine: '#d9400b',
    limit: '#7d8590',
    peers: ['#3f72a8', '#2b8a7b', '#8a63ab', '#97790f', '#6f6259', '#b0588a'],
    peerBar: '#8fa9c4',
    koffiBar: '#b9b0a8',
  },
  {
    name: 'dark',
    background: '#0d1117',
    text: '#f0f6fc',
    muted: '#9198a1',
    grid: '#21262d',
    axis: '#5c6570',
    engine: '#ff7a33',
    limit: '#8b949e',
    peers: ['#79aee2', '#56c2ae', '#bb9bdc', '#d2b448', '#b9a899', '#e08bbb'],
    peerBar: '#4d6a88',
    koffiBar: '#6b625b',
  },
];

export interface Style {
  color: string;
  width: number;
  dash: 'solid' | number[];
  symbol: string;
  symbolSize: number;
  strong: boolean;
}

const SYMBOLS = ['circle', 'rect', 'triangle', 'diamond', 'roundRect', 'pin'];
const DASHES: readonly ('solid' | number[])[] = ['solid', [7, 4], [2, 3]];

/**
 * A style for each series. Variants of one contender (`Piscina` and `Piscina, configured`) share colour and marker, and differ
 * in the line.
 */
export function stylesOf(series: readonly PlotSeries[], theme: Theme): Map<string, Style> {
  const stems = [...new Set(series.filter(isRival).map(({ name }) => stemOf(name)))];
  const seen = new Map<string, number>();
  return new Map(
    series.map(({ name, role }) => {
      const family = isRival({ name, role }) ? stemOf(name) : role;
      const variant = seen.get(family) ?? 0;
      seen.set(family, variant + 1);
      const dash = DASHES[variant % DASHES.length] ?? 'solid';
      const base = { dash, symbolSize: 7, strong: false };
      if (role === 'engine') {
        const symbol = variant === 0 ? 'circle' : 'emptyCircle';
        const style = { ...base, color: theme.engine, width: 3.5, symbolSize: 9, strong: true };
        return [name, { ...style, symbol }];
      }
      if (role === 'limit') {
        return [name, { ...base, color: theme.limit, width: 1.5, dash: [5, 5], symbol: 'none' }];
      }
      const rank = stems.indexOf(family);
      const color = theme.peers[rank % theme.peers.length] ?? theme.muted;
      const symbol = SYMBOLS[rank % SYMBOLS.length] ?? 'circle';
      return [name, { ...base, color, width: 1.75, symbol }];
    }),
  );
}

function isRival({ role }: Pick<PlotSeries, 'role' | 'name'>): boolean {
  return role === 'peer' || role === 'koffi';
}

/** `Piscina` of `Piscina, configured`. */
export function stemOf(name: string): string {
  return name.split(',')[0] ?? name;
}
