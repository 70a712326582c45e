/** `npm run bench:report`: makes docs/benchmarks.md and its figures of the published results. */

import { access, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../fixtures/paths.js';
import { loadResults, publishedDir } from './harness/results.js';
import { questions } from './questions.js';
import { FIGURES, makeReport } from './report/document.js';

const HELP = `npm run bench:report [-- --from DIR] [--to DIR]

Makes benchmarks.md and its figures of the newest full results of each question and Node version.

  --from DIR   results to read (default: bench/results/published, which \`npm run bench -- --publish\` fills)
  --to DIR     where to write (default: docs)`;

const DOCUMENT = 'benchmarks.md';
const PERFORMANCE_DOCUMENT = 'performance.md';

const { values } = parseArgs({
  options: {
    from: { type: 'string', default: publishedDir },
    to: { type: 'string', default: join(packageRoot, 'docs') },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (values.help) console.log(HELP);
else process.exitCode = await report(values.from, values.to);

async function report(from: string, to: string): Promise<number> {
  const results = await loadResults(from);
  if (results.size === 0) {
    console.error(
      `there are no results of a full run in ${from}; make them with: npm run bench -- --publish`,
    );
    return 1;
  }
  const explained = await exists(join(to, PERFORMANCE_DOCUMENT));
  const { markdown, figures } = makeReport(
    questions,
    results,
    explained ? PERFORMANCE_DOCUMENT : undefined,
  );
  const figuresDir = join(to, FIGURES);
  await mkdir(figuresDir, { recursive: true });
  // Figures that no question has any more.
  const old = (await readdir(figuresDir)).filter(
    (name) => name.endsWith('.svg') && !figures.has(name),
  );
  await Promise.all(old.map((name) => rm(join(figuresDir, name))));
  await Promise.all(
    [...figures].map(([name, svg]) => writeFile(join(figuresDir, name), `${svg}\n`)),
  );
  await writeFile(join(to, DOCUMENT), markdown);
  const where = relative(process.cwd(), join(to, DOCUMENT));
  console.log(`${where}: ${results.size} questions, ${figures.size} figures in ${FIGURES}/`);
  return 0;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
