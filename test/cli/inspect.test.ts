/** `changeover inspect` as a user runs it: what it prints and how it ends. */

import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import test from 'ava';
import { fixture, packageRoot } from '../../fixtures/paths.js';
import type { Inspection } from '../../src/inspect/inspect.js';
import { formatInspection } from '../../src/inspect/report.js';
import { scratch } from '../support/files.js';
import { onLinux } from '../support/process.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** A busy machine may take longer than users would wait. What is given later counts. */
const PATIENTLY = ['--timeout', '60000'];

interface End {
  exitCode: number | null;
  stdout: string;
  stderr: string;
}

function changeover(...args: string[]): Promise<End> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [main, ...args], (_error, stdout, stderr) => {
      resolve({ exitCode: child.exitCode, stdout, stderr });
    });
  });
}

async function inspectJson(...args: string[]): Promise<[exitCode: number | null, Inspection]> {
  const { exitCode, stdout } = await changeover('inspect', '--json', ...PATIENTLY, ...args);
  return [exitCode, JSON.parse(stdout) as Inspection];
}

test('help', async (t) => {
  for (const args of [['--help'], ['-h'], ['help']]) {
    const { exitCode, stdout, stderr } = await changeover(...args);
    t.is(exitCode, 0);
    t.regex(stdout, /^Usage: changeover COMMAND.*\n {2}inspect {2}/s);
    t.is(stderr, '');
  }
  const { exitCode, stdout } = await changeover('inspect', '--help');
  t.is(exitCode, 0);
  t.regex(stdout, /^Usage: changeover inspect LIB/);
});

test('the version is that of the package', async (t) => {
  const manifest = await readFile(join(packageRoot, 'package.json'), 'utf8');
  const { version } = JSON.parse(manifest) as { version: string };
  t.like(await changeover('--version'), { exitCode: 0, stdout: `${version}\n`, stderr: '' });
});

test('called wrongly: exit code 2, on stderr, with what was expected', async (t) => {
  const echo = fixture('echo');
  for (const [args, said] of [
    [[], /no command was given/],
    [['inspekt'], /there is no command 'inspekt'/],
    [['constructor'], /there is no command 'constructor'/],
    [['inspect'], /expected one library, got 0/],
    [['inspect', echo, echo], /expected one library, got 2/],
    [['inspect', echo, '--jason'], /Unknown option '--jason'/],
    [['inspect', echo, '--env', 'NAME'], /NAME=VALUE/],
    [['inspect', echo, '--timeout', 'soon'], /loadTimeoutMs must be/],
    [['inspect', echo, '--self-test', '/nowhere'], /self-test cannot be read.*ENOENT/],
  ] as const) {
    const { exitCode, stdout, stderr } = await changeover(...args);
    t.is(exitCode, 2, stderr);
    t.is(stdout, '');
    t.regex(stderr, said);
    t.regex(stderr, /Usage: changeover/);
  }
});

test('a good library', async (t) => {
  const { exitCode, stdout, stderr } = await changeover('inspect', ...PATIENTLY, fixture('fault'));
  t.is(exitCode, 0, stderr);
  t.is(stdout, stripVTControlCharacters(stdout), 'no colours where there is no terminal');
  t.true(stdout.startsWith(`${fixture('fault')}\n✔ would be loaded\n`));
  t.regex(stdout, /^ {2}says +fault, 1\.2\.3$/m);
  t.regex(stdout, /^ {2}integrity +sha256-[A-Za-z0-9+/]{43}=$/m);

  const [jsonCode, inspection] = await inspectJson(fixture('fault'));
  t.is(jsonCode, 0);
  t.like(inspection, { path: fixture('fault'), refused: null, arch: process.arch });
  t.is(inspection.preflight?.info.name, 'fault');
  const steps = ['open', 'abi', 'info', 'init', 'shutdown', 'unload'];
  t.deepEqual(
    inspection.steps.map(({ step }) => step),
    steps as (typeof inspection.steps)[number]['step'][],
  );
});

test('a library that would be refused: exit code 1 and the error of the load', async (t) => {
  const refused = async (path: string, ...args: string[]) => {
    const [exitCode, inspection] = await inspectJson(path, ...args);
    t.is(exitCode, 1);
    return inspection.refused;
  };
  t.like(await refused(fixture('wrong_abi')), { code: 'ERR_HANDLER_ABI_MISMATCH' });
  t.like(await refused('/nowhere/libhandler_x.so'), { code: 'ERR_HANDLER_LIBRARY_NOT_FOUND' });
  t.like(await refused(fixture('fault'), '--env', 'CHANGEOVER_TEST_FAULT=segv@init'), {
    code: 'ERR_HANDLER_PREFLIGHT',
    step: 'init',
    signal: 'SIGSEGV',
  });
  const slow = ['--env', 'CHANGEOVER_TEST_FAULT=sleep@init', '--timeout', '3000'];
  t.like(await refused(fixture('fault'), ...slow), { code: 'ERR_HANDLER_LOAD_TIMEOUT' });

  const { exitCode, stdout } = await changeover('inspect', ...PATIENTLY, fixture('failing_init'));
  t.is(exitCode, 1);
  t.regex(stdout, /✘ would be refused\n.*ERR_HANDLER_INIT_FAILED\n[^\n]*no licence/s);
});

onLinux('what it needs, found or not', async (t) => {
  const [, good] = await inspectJson(fixture('cpp'));
  const names = good.dependencies?.map(({ name }) => name) ?? [];
  t.true(names.includes('libstdc++.so.6'), `${names}`);
  for (const { path } of good.dependencies ?? []) t.regex(path ?? 'null', /^\//);
  const [, bad] = await inspectJson(fixture('missing_dependency'));
  const missing = bad.dependencies?.filter(({ path }) => path === null);
  t.deepEqual(
    missing?.map(({ name }) => name),
    ['libabsent.so'],
  );
});

test('a self-test', async (t) => {
  const request = join(await scratch(t), 'request');
  await writeFile(request, 'throw');
  const [passed, inspection] = await inspectJson(fixture('echo'), '--self-test', request);
  t.is(passed, 0);
  t.true((inspection.preflight?.selfTestMs ?? -1) >= 0);
  const [failed, { refused }] = await inspectJson(fixture('cpp'), '--self-test', request);
  t.is(failed, 1);
  t.regex(refused?.message ?? '', /returned 5: thrown inside the handler/);
});

test('what a library says of itself does not reach the terminal as commands', async (t) => {
  const [, inspection] = await inspectJson(fixture('fault'));
  const info = { name: '\u001b[2Jfault', version: '1\r2', description: 'a\u202eb' };
  const preflight = { ...inspection.preflight, info } as NonNullable<Inspection['preflight']>;
  const text = formatInspection({ ...inspection, preflight }, false);
  t.regex(text, /says +\uFFFD\[2Jfault, 1\uFFFD2, a\uFFFDb$/m);
  t.not(formatInspection(inspection, true), formatInspection(inspection, false));
});
