/** Runs a question's trials: rounds interleaved, each trial in a fresh process. */

import { fork } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../fixtures/paths.js';
import type { Measurement, Mode, Question, Sample, Trial } from './question.js';

/** Far more than any trial takes; what is still running then hangs. */
const TRIAL_TIMEOUT_MS = 300_000;

export interface RunOptions {
  mode: Mode;
  rounds: number;
  /** Called before each trial. */
  progress(trial: Trial): void;
}

export async function run(question: Question, options: RunOptions): Promise<Sample[]> {
  const samples: Sample[] = [];
  const trials = question.trials(options.mode);
  for (let round = 1; round <= options.rounds; round++) {
    for (const trial of trials) {
      options.progress(trial);
      samples.push({ trial, round, ...(await inFreshProcess(question.name, trial, options.mode)) });
    }
  }
  return samples;
}

/** What the process of a trial sends when it is done. */
export type TrialOutcome = { measurement: Measurement } | { error: string };

export interface TrialProcess {
  /** The directory whose dist/ is measured. Default: this checkout. */
  root?: string;
  /** Kills the process. */
  signal?: AbortSignal;
}

export function inFreshProcess(
  question: string,
  trial: Trial,
  mode: Mode,
  { root = packageRoot, signal: interruption }: TrialProcess = {},
): Promise<TrialOutcome> {
  const script = join(root, 'dist/bench/harness/trial.js');
  const child = fork(script, [question, JSON.stringify(trial), mode], {
    execArgv: ['--expose-gc'],
    // As many threads for koffi's asynchronous calls as pools are given; the default is 4.
    env: { ...process.env, UV_THREADPOOL_SIZE: String(trial['lanes'] ?? 1) },
    // What peers print is not for the result.
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let printed = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    printed = (printed + text).slice(-2000);
  });
  const kill = () => child.kill('SIGKILL');
  const hangs = setTimeout(kill, TRIAL_TIMEOUT_MS);
  interruption?.addEventListener('abort', kill, { once: true });
  return new Promise((resolve) => {
    let outcome: TrialOutcome | undefined;
    child.once('message', (message) => {
      outcome = message as TrialOutcome;
    });
    child.once('close', (code, signal) => {
      clearTimeout(hangs);
      interruption?.removeEventListener('abort', kill);
      const ended = outcome ?? { error: `the process ended with ${signal ?? code}\n${printed}` };
      resolve('error' in ended ? { error: withoutRoot(ended.error, root) } : ended);
    });
  });
}

/** Results are published: where this checkout lies is nobody's business. */
export function withoutRoot(text: string, root = packageRoot): string {
  // With a slash at the end, so that what is left is relative.
  const prefix = join(root, '/');
  return text.replaceAll(pathToFileURL(prefix).href, '').replaceAll(prefix, '').trim();
}
