/** `npm run demo`: replaces a native compressor under full load and shows that nothing is lost. */
import { parseOptions, UsageError, usage } from './options.js';
import { table } from './report.js';
import { run } from './run.js';

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (options === 'help') {
    process.stdout.write(usage);
    return;
  }
  const report = await run(options);
  process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : table(report));
  if (!report.passed) process.exitCode = 1;
}

try {
  await main();
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`demo: ${error.message}\n`);
    process.exitCode = 2;
  } else {
    process.stderr.write(`demo: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.exitCode = 1;
  }
}
