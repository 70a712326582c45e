/** The demo as a user runs it: a process of its own, on a directory made for it. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import type { Report } from '../examples/compress/report.js';

const demo = fileURLToPath(new URL('../examples/compress/demo.js', import.meta.url));
const CHUNK_BYTES = 64 * 1024;

interface Finished {
  exitCode: number;
  stdout: string;
  stderr: string;
}

function runDemo(...args: string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: 120_000, maxBuffer: 16 * 1024 * 1024 };
    execFile(process.execPath, [demo, ...args], limits, (error, stdout, stderr) => {
      if (error === null) resolve({ exitCode: 0, stdout, stderr });
      else if (typeof error.code === 'number') resolve({ exitCode: error.code, stdout, stderr });
      else reject(error);
    });
  });
}

async function makeDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'changeover-demo-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Text, noise and emptiness, in files of less and of more than a chunk. */
async function makeFiles(directory: string): Promise<{ files: number; bytes: number }> {
  await mkdir(join(directory, 'below', 'it'), { recursive: true });
  const contents: Record<string, Uint8Array> = {
    'text.txt': Buffer.from('the quick brown fox jumps over the lazy dog\n'.repeat(500)),
    'large.txt': Buffer.from(
      Array.from({ length: 60_000 }, (_, line) => `line ${line}`).join('\n'),
    ),
    'noise.bin': randomBytes(CHUNK_BYTES),
    'large.bin': randomBytes(3 * CHUNK_BYTES + 1),
    empty: Buffer.alloc(0),
    byte: Buffer.from('x'),
    'below/zeros.bin': Buffer.alloc(5 * CHUNK_BYTES),
    'below/it/short.txt': Buffer.from('aaaaaaaaaaaaa'),
  };
  for (const [name, content] of Object.entries(contents)) {
    await writeFile(join(directory, name), content);
  }
  await symlink('text.txt', join(directory, 'link.txt'));
  const sizes = Object.values(contents).map((content) => content.length);
  return { files: sizes.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

// Serial, since it needs both cores: the tests below start many processes.
test.serial('both versions compress without a lost or wrong block', async (t) => {
  const directory = await makeDirectory(t);
  const made = await makeFiles(directory);

  const args = [directory, '--json', '--chunk', String(CHUNK_BYTES), '--in-flight', '8'];
  const { exitCode, stdout, stderr } = await runDemo(...args);

  t.is(stderr, '');
  const report = JSON.parse(stdout) as Report;
  t.is(report.lost, 0, report.firstError);
  t.is(report.wrong, 0);
  t.is(report.files, made.files);
  t.is(report.unreadable, 0);
  t.is(report.requests, report.blocks + report.repeats);
  t.true(report.bytesIn >= made.bytes);
  t.deepEqual(
    report.versions.map(({ version, library }) => [version, library]),
    [
      [1, 'lz4_fast'],
      [2, 'lz4_chain'],
    ],
  );
  t.true(report.versions.every(({ requests }) => requests > 0));
  if (process.platform === 'linux') t.is(report.drain?.library, 'unloaded');
  t.true(report.passed);
  t.is(exitCode, 0);
});

test.serial('the table fits in 80 columns', async (t) => {
  const directory = await makeDirectory(t);
  await makeFiles(directory);

  const { exitCode, stdout } = await runDemo(directory);

  t.is(exitCode, 0);
  const lines = stdout.split('\n');
  t.deepEqual(
    lines.filter((line) => line.length > 80),
    [],
  );
  t.true(
    lines.some((line) => /requests lost +0$/.test(line)),
    stdout,
  );
});

const refused: Record<string, string[]> = {
  'a directory that does not exist': [join(tmpdir(), 'changeover-no-such-directory')],
  'a file for a directory': [fileURLToPath(import.meta.url)],
  'an unknown option': ['--no-such-option'],
  'a number out of range': ['--in-flight', '0'],
  'a number that is none': ['--threads', 'many'],
  'two directories': [tmpdir(), tmpdir()],
};

for (const [what, args] of Object.entries(refused)) {
  test(`refuses ${what} in one line`, async (t) => {
    const { exitCode, stdout, stderr } = await runDemo(...args);

    t.is(exitCode, 2);
    t.is(stdout, '');
    t.regex(stderr, /^demo: [^\n]+\n$/);
  });
}

test('refuses a directory without files', async (t) => {
  const { exitCode, stderr } = await runDemo(await makeDirectory(t));

  t.is(exitCode, 2);
  t.regex(stderr, /^demo: [^\n]+\n$/);
});

test('--help says what there is', async (t) => {
  const { exitCode, stdout } = await runDemo('--help');

  t.is(exitCode, 0);
  for (const option of ['DIR', '--in-flight', '--threads', '--chunk', '--json']) {
    t.true(stdout.includes(option), option);
  }
});
