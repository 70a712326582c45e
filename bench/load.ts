/** `npm run bench -- --load`: a load test of a user's own handler. */

import { exitProcess, HandlerError } from '../src/index.js';
import { UsageError } from './harness/command-line.js';
import { parseLoadOptions, usage } from './load/options.js';
import { hasPassed, reportText } from './load/report.js';
import { runLoad } from './load/run.js';

const CANNOT_START = 2;

/** Does what `args` ask for, and returns the exit status. */
export async function load(args: readonly string[]): Promise<number> {
  try {
    const options = parseLoadOptions(args);
    if (options === 'help') {
      process.stdout.write(usage);
      return 0;
    }
    const { report, leftBehind } = await runLoad(options);
    console.log(options.json ? JSON.stringify(report, null, 2) : reportText(report));
    const status = hasPassed(report) ? 0 : 1;
    if (leftBehind.length === 0) return status;
    for (const { reason } of leftBehind) console.error(`load: left behind: ${reason}`);
    // Native code still runs; Node would wait for it.
    return await exitProcess(status);
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof HandlerError)) throw error;
    const code = error instanceof HandlerError ? `${error.code}: ` : '';
    console.error(`load: ${code}${error.message}`);
    return CANNOT_START;
  }
}
