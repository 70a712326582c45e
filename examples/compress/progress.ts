/** The progress bar on a terminal's stderr. Anywhere else there is none. */
import { SingleBar } from 'cli-progress';
import { megabytes } from './report.js';

export type Phase = 'reading' | 'compressing' | 'deploying v2' | 'verifying';

/** What the run changes as it goes on, and the bar looks at now and then. */
export interface Progress {
  phase: Phase;
  /** Bytes read, compressed and verified. */
  doneBytes: number;
  /** Answers of the compressors, and the time that they took. */
  compressedBytes: number;
  compressingMs: number;
  /** Version of the newest answer. */
  version: number;
  inFlight: number;
}

/** Often enough to look alive. The run pays for each drawing, so not on every answer. */
const REDRAW_MS = 100;

const format = '{bar} {percentage}% {phase} | v{version} | {rate} MB/s | {inFlight} in flight';

/** Draws `progress` until the function that it returns is called. */
export function showProgress(progress: Readonly<Progress>, totalBytes: number): () => void {
  if (!process.stderr.isTTY) return () => undefined;

  const bar = new SingleBar({
    format,
    stream: process.stderr,
    barsize: 20,
    barCompleteChar: '\u2588',
    barIncompleteChar: '\u2591',
    autopadding: true,
    clearOnComplete: true,
    emptyOnZero: true,
  });
  let drawn = { compressedBytes: 0, compressingMs: 0 };
  const payload = () => {
    const rate = ratePerSecond(drawn, progress);
    drawn = { ...progress };
    return {
      phase: progress.phase.padEnd(12),
      version: progress.version,
      rate: (rate === undefined ? '-' : megabytes(rate).toFixed(0)).padStart(4),
      inFlight: String(progress.inFlight).padStart(2),
    };
  };
  // Each byte is read, compressed and verified.
  bar.start(Math.max(1, totalBytes * 3), 0, payload());
  const redraw = setInterval(() => bar.update(progress.doneBytes, payload()), REDRAW_MS);
  return () => {
    clearInterval(redraw);
    bar.stop();
  };
}

type Work = Pick<Progress, 'compressedBytes' | 'compressingMs'>;

/** Bytes a second of compression time from `before` to `now`; `undefined` outside that time. */
function ratePerSecond(before: Work, now: Work): number | undefined {
  const ms = now.compressingMs - before.compressingMs;
  return ms > 0 ? ((now.compressedBytes - before.compressedBytes) * 1000) / ms : undefined;
}
