/**
 * How a run of tests is shown while it goes on: a bar on a terminal, a line now and then elsewhere.
 */

import { SingleBar } from 'cli-progress';

/** How often a log gets a line. */
const LINE_EVERY_MS = 30_000;

export interface Progress {
  /** A test has ended. A failed one is named at once. */
  test(ok: boolean, title: string): void;
  end(): void;
}

/** `expected` is the number of tests that ran the last time, or null if nobody knows. */
export function showProgress(expected: number | null, stream = process.stderr): Progress {
  let done = 0;
  const startedMs = performance.now();
  const bar =
    stream.isTTY && expected !== null
      ? new SingleBar({
          format: '{bar} {value}/{total} tests | {duration_formatted} | {title}',
          stream,
          barsize: 20,
          barCompleteChar: '\u2588',
          barIncompleteChar: '\u2591',
          clearOnComplete: true,
          hideCursor: true,
        })
      : null;
  bar?.start(expected ?? 0, 0, { title: '' });
  let lineMs = startedMs;
  return {
    test(ok, title) {
      done += 1;
      bar?.update(done, { title: title.slice(0, 40) });
      if (!ok) stream.write(`${bar === null ? '' : '\n'}✘ ${title}\n`);
      const nowMs = performance.now();
      if (bar !== null || nowMs - lineMs < LINE_EVERY_MS) return;
      lineMs = nowMs;
      stream.write(`${done} tests after ${Math.round((nowMs - startedMs) / 1000)} s\n`);
    },
    end: () => bar?.stop(),
  };
}
