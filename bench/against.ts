/** `npm run bench -- QUESTION --against REF`: this checkout compared with another commit. */

import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommandError } from './against/command.js';
import { compare, type FigureResult, type SideName } from './against/compare.js';
import { relativeWidth } from './against/interval.js';
import { type AgainstOptions, parseAgainstOptions, usage } from './against/options.js';
import {
  EXIT,
  exitStatus,
  type QuestionResult,
  reportObject,
  tableText,
} from './against/report.js';
import { buildSides, type Sides } from './against/sides.js';
import { UsageError } from './harness/command-line.js';
import { drawBar } from './harness/live-bar.js';
import { describeMachine } from './harness/machine.js';
import type { Mode, Question, Trial } from './harness/question.js';
import { inFreshProcess } from './harness/run.js';

const REDRAW_MS = 200;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Does what `args` ask for, and returns the exit status. */
export async function against(args: readonly string[]): Promise<number> {
  try {
    const options = parseAgainstOptions(args);
    if (options === 'help') {
      process.stdout.write(usage);
      return EXIT.fine;
    }
    return await unlessInterrupted((signal) =>
      inDirectory((directory) => run(options, directory, signal)),
    );
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof CommandError)) throw error;
    console.error(`bench: ${error.message}`);
    return EXIT.cannotStart;
  }
}

/**
 * Lets `work` end in order when a signal comes, and returns the status that a shell gives a program
 * that the signal ended.
 */
async function unlessInterrupted(work: (signal: AbortSignal) => Promise<number>): Promise<number> {
  const interruption = new AbortController();
  let received: (typeof SIGNALS)[number] | undefined;
  const interrupt = (signal: (typeof SIGNALS)[number]) => {
    // npm passes on a signal that the terminal has sent already: the second one must not cut the
    // cleaning short.
    received ??= signal;
    interruption.abort();
  };
  for (const signal of SIGNALS) process.on(signal, interrupt);
  try {
    return await work(interruption.signal);
  } catch (error) {
    if (received === undefined) throw error;
    console.error(`bench: interrupted by ${received}`);
    return 128 + constants.signals[received];
  } finally {
    for (const signal of SIGNALS) process.off(signal, interrupt);
  }
}

/** In a new directory, which is removed afterwards. */
async function inDirectory(work: (directory: string) => Promise<number>): Promise<number> {
  // The real path, because errors are stripped of it.
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'changeover-bench-against-'));
  try {
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function run(
  options: AgainstOptions,
  directory: string,
  signal: AbortSignal,
): Promise<number> {
  const machine = describeMachine();
  const say = (line: string) => console.error(`bench: ${line}`);
  const sides = await buildSides({ ref: options.ref, directory, signal, say });
  if (!options.json) {
    console.log(
      `Node ${machine.node}, ${machine.cpu}, ${machine.cores} cores, ${options.mode} trials`,
    );
  }
  const oldName = options.ref.startsWith(sides.oldCommit)
    ? sides.oldCommit
    : `${options.ref} (${sides.oldCommit})`;
  const results: QuestionResult[] = [];
  for (const question of options.asked) {
    say(`comparing by ${question.name}, for ${options.mostMs / 60_000} minutes at most`);
    const result = await compareBy(question, options, sides, signal);
    results.push(result);
    if (!options.json) console.log(`\n${tableText(result, oldName, options)}`);
  }
  if (options.json) {
    const commits = { ref: options.ref, old: sides.oldCommit, new: machine.commit };
    console.log(
      JSON.stringify({ machine, ...commits, ...reportObject(results, options) }, null, 2),
    );
  }
  return exitStatus(results, options);
}

async function compareBy(
  question: Question,
  options: AgainstOptions,
  { roots }: Sides,
  signal: AbortSignal,
): Promise<QuestionResult> {
  const measure = async (side: SideName, trial: Trial, mode: Mode) => {
    const outcome = await inFreshProcess(question.name, trial, mode, { root: roots[side], signal });
    signal.throwIfAborted();
    if ('error' in outcome) throw new Error(`${side}: ${outcome.error}`);
    return outcome.measurement;
  };
  const startedMs = performance.now();
  let seen = { pairs: 0, widest: '–' };
  const stopDrawing = process.stderr.isTTY
    ? drawBar({
        format: `of the most time | ${question.name} | {pairs} pairs | widest interval {widest}`,
        line: () => seen,
        startedMs,
        totalMs: options.mostMs,
        redrawMs: REDRAW_MS,
      })
    : () => undefined;
  try {
    // Unmeasured: the first process of each side reads files that all later ones find in memory.
    for (const side of ['new', 'old'] as const) {
      for (const { trial } of question.compared) {
        await inFreshProcess(question.name, trial, 'quick', { root: roots[side], signal });
        signal.throwIfAborted();
      }
    }
    const figures = await compare({
      ...options,
      compared: question.compared,
      measure: (side, trial) => measure(side, trial, options.mode),
      progress: ({ pairs, results }) => {
        seen = { pairs, widest: widestText(results) };
      },
      now: () => performance.now(),
    });
    return { name: question.name, tookMs: performance.now() - startedMs, figures };
  } finally {
    stopDrawing();
  }
}

function widestText(results: readonly FigureResult[]): string {
  const widths = results.flatMap(({ interval }) =>
    interval === null ? [] : relativeWidth(interval),
  );
  return widths.length === 0 ? '–' : `±${(Math.max(...widths) * 100).toFixed(1)} %`;
}
