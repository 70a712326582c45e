/** `npm run real`: real libraries through everything that a backend does with them. */

import { writeFile } from 'node:fs/promises';
import { arch, release, type } from 'node:os';
import { parseArgs } from 'node:util';
import { SingleBar } from 'cli-progress';
import { messageOf } from '../../src/library/system-errors.js';
import { atMost } from '../support/turns.js';
import { BRIEF, FULL, isRight, type Row } from './checks.js';
import { libraries } from './libraries.js';
import type { Library } from './library.js';
import { missingPackages } from './needs.js';
import { publishedPath, type Results, writePage } from './page.js';
import { runRow } from './run.js';
import { output } from './tools.js';

const HELP = `npm run real -- [library ...] [--brief] [--publish] [--json]

Builds a handler on each library, loads it in threads and in processes, and compares what it answers with the library's own tool: under
load and swaps, with deadlines of a millisecond, with 16 MiB, and after the unload. Takes about ten minutes on two cores.

  library      ${libraries.map(({ name }) => name).join(', ')} (default: all)
  --brief      few swaps, which say nothing about what they leave behind, and two libraries at a time; three to five minutes
  --publish    keep the results in test/real/published.json and write them into docs/libraries.md
  --json       print the results as JSON; progress goes to standard error
  --help       print this

Fails if anything is wrong. A library whose package is missing is left out, and the package is named. Exit code: 0, 1 if something is wrong,
2 if the command line cannot be followed.
`;

const USAGE_ERROR = 2;
const ISOLATIONS = ['thread', 'process'] as const;

process.exitCode = await main();

async function main(): Promise<number> {
  let values: { help: boolean; json: boolean; brief: boolean; publish: boolean };
  let names: string[];
  try {
    ({ values, positionals: names } = parseArgs({
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h', default: false },
        json: { type: 'boolean', default: false },
        brief: { type: 'boolean', default: false },
        publish: { type: 'boolean', default: false },
      },
    }));
    const unknown = names.find((name) => !libraries.some((library) => library.name === name));
    if (unknown !== undefined) throw new Error(`there is no library '${unknown}'`);
    if (values.publish && (values.brief || names.length > 0)) {
      throw new Error('--publish wants all libraries in full');
    }
  } catch (error) {
    console.error(`${messageOf(error)}\nRun with --help to see what there is.`);
    return USAGE_ERROR;
  }
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const asked = libraries.filter(({ name }) => names.length === 0 || names.includes(name));
  const results = await runAll(asked, values);
  if (values.publish) {
    await writeFile(publishedPath, `${JSON.stringify(results, null, 2)}\n`);
    await writePage(results);
  }
  if (values.json) console.log(JSON.stringify(results, null, 2));
  return results.rows.every(isRight) ? 0 : 1;
}

async function runAll(
  asked: readonly Library[],
  { brief, json }: { brief: boolean; json: boolean },
): Promise<Results> {
  const size = brief ? BRIEF : FULL;
  const say = (text: string) => (json ? console.error(text) : console.log(text));
  const bar = new SingleBar({
    format: '{bar} {value}/{total}, {duration_formatted} of about {eta_formatted} more  {what}',
    clearOnComplete: true,
    hideCursor: true,
  });
  if (process.stderr.isTTY) bar.start(asked.length * ISOLATIONS.length, 0, { what: '' });
  const runLibrary = async (library: Library): Promise<Row[]> => {
    const missing = await missingPackages(library.needs);
    if (missing.length > 0) {
      say(`- ${library.name}: needs ${missing.join(', ')}`);
      bar.increment(ISOLATIONS.length);
      return [];
    }
    const rows: Row[] = [];
    for (const isolation of ISOLATIONS) {
      bar.update({ what: `${library.name}, ${isolation}` });
      const row = await runRow(library, isolation, size);
      rows.push(row);
      if (process.stderr.isTTY) process.stderr.write('\x1b[2K\r');
      say(told(row));
      bar.increment();
    }
    return rows;
  };
  // What swaps leave behind is measured best on a machine that does nothing else.
  const inTurn = atMost(brief ? 2 : 1);
  const rows = await Promise.all(asked.map((library) => inTurn(() => runLibrary(library))));
  bar.stop();
  return {
    node: process.versions.node,
    system: `${type()} ${release()}, ${arch()}`,
    size,
    packages: await versionsOf(asked),
    rows: rows.flat(),
  };
}

function told(row: Row): string {
  const { library, isolation, verdicts } = row;
  const wrong = verdicts.flatMap(({ check, wrong }) =>
    wrong.map((what) => `    ${check}: ${what}`),
  );
  const notes = verdicts.flatMap(({ note }) => (note === undefined ? [] : [note])).join('; ');
  return [`${isRight(row) ? '✔' : '✘'} ${library}, ${isolation}: ${notes}`, ...wrong].join('\n');
}

/** Of the packages that are here, where there is a package manager of Debian's to ask. */
async function versionsOf(asked: readonly Library[]): Promise<Record<string, string>> {
  const needed = asked.flatMap(({ needs }) => needs);
  const missing = await missingPackages(needed);
  const names = [...new Set(needed.map((need) => need.package))].filter(
    (name) => !missing.includes(name),
  );
  const versions: Record<string, string> = {};
  for (const name of names.sort()) {
    try {
      const format = '--showformat=$' + '{Version}';
      versions[name] = (
        await output(['dpkg-query', '--show', format, name], Buffer.alloc(0))
      ).toString();
    } catch {
      // It came by another way; then the page gives no version.
    }
  }
  // Rust comes by other ways than Debian's more often than not.
  if (names.includes('rustc')) {
    const said = await output([process.env['RUSTC'] ?? 'rustc', '--version'], Buffer.alloc(0));
    versions['rustc'] = said.toString().split(' ')[1] ?? '';
  }
  return versions;
}
