#!/usr/bin/env node

/** `changeover COMMAND ...`: finds the command and ends with its exit code: 0 good, 1 bad news, 2 used wrongly. */

import { readFile } from 'node:fs/promises';
import { type Command, UsageError } from './command.js';
import { inspectCommand } from './inspect.js';

const COMMANDS: Record<string, Command> = { inspect: inspectCommand };

const EXIT_USAGE = 2;

function usage(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const lines = Object.entries(COMMANDS).map(
    ([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`,
  );
  return `Usage: changeover COMMAND ...\n\nCommands:\n${lines.join('\n')}\n\n"changeover COMMAND --help" says more, "changeover --version" which version this is.\n`;
}

async function main(args: string[]): Promise<number> {
  const [name = '', ...rest] = args;
  if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(usage());
    return 0;
  }
  if (name === '--version') {
    const manifest = new URL('../../../package.json', import.meta.url);
    const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string };
    process.stdout.write(`${version}\n`);
    return 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const what = name === '' ? 'no command was given' : `there is no command '${name}'`;
    process.stderr.write(`changeover: ${what}\n\n${usage()}`);
    return EXIT_USAGE;
  }
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(command.help);
    return 0;
  }
  try {
    return await command.run(rest);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`changeover ${name}: ${error.message}\n\n${command.help}`);
    return EXIT_USAGE;
  }
}

process.exitCode = await main(process.argv.slice(2));
