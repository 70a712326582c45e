/** Child processes as they are started for pre-flight. */

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { type StartedChild, startChild } from '../src/start-child.js';
import { reap } from '../workers/posix-spawn.js';
import { needs } from './support/needs.js';
import { rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { descriptorCount, onLinux } from './support/process.js';

/** Counts what the whole process has open, so it runs while no other test does. */
const countingOnLinux = needs('Linux', process.platform === 'linux', test.serial);

function startScript(script: string, env: Record<string, string> = {}): Promise<StartedChild> {
  return startChild({ file: process.execPath, args: ['-e', script], env });
}

/** What it writes, and how it ends. */
async function outcomeOf(child: StartedChild) {
  child.stdin.end();
  const [messages, stderr, exit] = await Promise.all([
    text(child.messages),
    text(child.stderr),
    child.exited,
  ]);
  return { messages, stderr, exit };
}

test('a child is given its input and heard on both pipes', async (t) => {
  const child = await startScript(
    `const input = fs.readFileSync(0, 'utf8'); fs.writeSync(3, 'got ' + input); fs.writeSync(2, 'aside')`,
  );
  child.stdin.write('this');
  const { messages, stderr, exit } = await outcomeOf(child);
  t.is(messages, 'got this');
  t.is(stderr, 'aside');
  t.deepEqual(exit, { exitCode: 0 });
});

test('its exit code is told', async (t) => {
  t.deepEqual((await outcomeOf(await startScript('process.exit(7)'))).exit, { exitCode: 7 });
});

test('the signal that ended it is told', async (t) => {
  const { exit } = await outcomeOf(await startScript(`process.kill(process.pid, 'SIGSEGV')`));
  t.deepEqual(exit, { signal: 'SIGSEGV' });
});

test('it can be killed, and killing it once more is nothing', async (t) => {
  const child = await startScript('setInterval(() => undefined, 1000)');
  child.kill('SIGKILL');
  t.deepEqual(await child.exited, { signal: 'SIGKILL' });
  t.notThrows(() => child.kill('SIGKILL'));
});

onLinux('what has been waited for already has ended, whoever has waited', async (t) => {
  const child = await startScript('process.exit(7)');
  t.deepEqual(await child.exited, { exitCode: 7 });
  t.deepEqual(reap(child.pid), { exitCode: 0 });
});

test('its end is noticed although something else keeps its messages open', async (t) => {
  const child = await startScript(
    `child_process.spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', 3], detached: true })
      .once('spawn', function () { fs.writeSync(3, String(this.pid)); process.exit(3); })`,
  );
  const [sleeper] = (await once(child.messages, 'data')) as [Buffer];
  t.teardown(() => process.kill(Number(sleeper.toString()), 'SIGKILL'));
  t.deepEqual(await child.exited, { exitCode: 3 });
  for (const stream of [child.stdin, child.stderr, child.messages]) stream.destroy();
});

test('its environment is what it was given', async (t) => {
  const script = 'fs.writeSync(3, JSON.stringify(process.env))';
  const { messages } = await outcomeOf(await startScript(script, { ONLY: 'this=that' }));
  t.deepEqual(JSON.parse(messages), { ONLY: 'this=that' });
});

/** The standard signals, 1 to 31, in a line of proc_pid_status(5); above are the C library's own and real-time ones. */
function standardSignals(status: string, line: string): number {
  const mask = new RegExp(`^${line}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
  return Number(BigInt(`0x${mask}`) & 0x7fff_ffffn);
}

onLinux('no signal is ignored or blocked in it', async (t) => {
  // This process ignores SIGPIPE, as every Node process does.
  t.not(standardSignals(await readFile('/proc/self/status', 'utf8'), 'SigIgn'), 0);
  // Not a Node process, which would ignore it again.
  const child = await startChild({
    file: '/bin/sh',
    args: ['-c', 'exec cat /proc/self/status >&3'],
    env: { PATH: '/bin:/usr/bin' },
  });
  const { messages } = await outcomeOf(child);
  t.is(standardSignals(messages, 'SigIgn'), 0);
  t.is(standardSignals(messages, 'SigBlk'), 0);
});

onLinux('it inherits no other descriptor', async (t) => {
  const child = await startChild({
    file: '/bin/sh',
    args: ['-c', 'ls /proc/$$/fd >&3'],
    env: { PATH: '/bin:/usr/bin' },
  });
  const { messages } = await outcomeOf(child);
  const open = messages.trim().split('\n').map(Number);
  t.deepEqual(open.filter((descriptor) => descriptor <= 3).sort(), [0, 1, 2, 3]);
  // A shell keeps its script's or its saved descriptors at 10 and above.
  t.deepEqual(
    open.filter((descriptor) => descriptor > 3 && descriptor < 10),
    [],
  );
});

countingOnLinux('a program that is not there is an error with the system’s code', async (t) => {
  const before = await descriptorCount();
  const error = await rejection(startChild({ file: '/no/such/program', args: [], env: {} }));
  t.is((error as NodeJS.ErrnoException).code, 'ENOENT');
  await eventually(descriptorCount, (count) => count <= before);
});

countingOnLinux('many at once leave neither zombies nor descriptors', async (t) => {
  const before = await descriptorCount();
  const children = await Promise.all(
    Array.from({ length: 12 }, (_, index) => startScript(`process.exit(${index})`)),
  );
  const ends = await Promise.all(children.map(outcomeOf));
  t.deepEqual(
    ends.map(({ exit }) => exit),
    children.map((_, exitCode) => ({ exitCode })),
  );
  const own = await readFile('/proc/thread-self/children', 'utf8');
  const pids = new Set(own.trim().split(' '));
  t.deepEqual(
    children.filter(({ pid }) => pids.has(String(pid))),
    [],
  );
  // Streams that are over are closed a little later.
  await eventually(descriptorCount, (count) => count <= before);
});
