/** `npm run soak`: everything at once, for as long as it is told to, and nothing may be lost. */

import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { UsageError } from '../../bench/harness/command-line.js';
import { exitProcess } from '../../src/index.js';
import { parseOptions, type SoakOptions, usage } from './options.js';
import { hasPassed, reportJson, reportMarkdown, reportText } from './report.js';
import { runSoak } from './run.js';

const CANNOT_START = 2;

try {
  const options = parseOptions(process.argv.slice(2));
  if (options === 'help') process.stdout.write(usage);
  else await soak(options);
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`soak: ${error.message}`);
  process.exitCode = CANNOT_START;
}

async function soak(options: SoakOptions): Promise<void> {
  const interrupted = new AbortController();
  process.once('SIGINT', () => interrupted.abort());
  console.error(`soak: seed ${options.seed}, ${options.minutes} minutes`);
  const result = await runSoak(options, interrupted.signal);
  console.log(options.json ? reportJson(result) : reportText(result));
  if (options.report !== undefined) {
    const file = resolve(options.report);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, reportMarkdown(result));
  }
  const status = hasPassed(result) ? 0 : 1;
  process.exitCode = status;
  // Native code still runs; Node would wait for it.
  if (result.leftBehind.length > 0) await exitProcess(status);
}
