/** A bar on a terminal's stderr that goes by time, with a line about what happens. */

import { SingleBar } from 'cli-progress';

export interface LiveBar {
  /** What follows the percentage, in cli-progress's format; `line` names its values. */
  format: string;
  line(): Record<string, string | number>;
  startedMs: number;
  totalMs: number;
  redrawMs: number;
}

/** Draws until the function that it returns is called. */
export function drawBar({ format, line, startedMs, totalMs, redrawMs }: LiveBar): () => void {
  const bar = new SingleBar({
    format: `{bar} {percentage}% | ${format}`,
    stream: process.stderr,
    barsize: 20,
    barCompleteChar: '\u2588',
    barIncompleteChar: '\u2591',
    clearOnComplete: true,
    hideCursor: true,
  });
  bar.start(totalMs, 0, line());
  const redraw = setInterval(() => {
    bar.update(Math.min(totalMs, performance.now() - startedMs), line());
  }, redrawMs);
  return () => {
    clearInterval(redraw);
    bar.stop();
  };
}
