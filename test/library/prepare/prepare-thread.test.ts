/** The thread that looks into libraries, which all loads of a process share. */

import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fixture } from '../../../fixtures/paths.js';
import { askSurvey, hold } from '../../../src/library/prepare/prepare-thread.js';
import { scratch } from '../../support/files.js';
import { onLinux } from '../../support/process.js';

const taskFor = (path: string) => ({
  copyPath: path,
  sourcePath: path,
  libraryPath: '',
  binding: 'auto' as const,
  inOwnProcess: false,
});

onLinux("whoever gives up ends nobody else's question", async (t) => {
  const echo = fixture('echo');
  // Opening it does not return before somebody opens it to write.
  const hanging = join(await scratch(t), 'hanging.so');
  await promisify(execFile)('mkfifo', [hanging]);
  const [first, second] = [new AbortController(), new AbortController()];

  const answered = askSurvey(taskFor(hanging), first.signal);
  const waiting = askSurvey(taskFor(echo), second.signal);
  const other = askSurvey(taskFor(echo));

  second.abort(new Error('second'));
  await t.throwsAsync(waiting, { message: 'second' });
  first.abort(new Error('first'));
  await t.throwsAsync(answered, { message: 'first' });
  t.is((await other).libraries[0]?.path, echo);

  // Lets the thread that was given up end.
  await (await open(hanging, 'r+')).close();
});

onLinux('a question that nobody waits for is not asked', async (t) => {
  const reason = new Error('over');
  await t.throwsAsync(askSurvey(taskFor(fixture('echo')), AbortSignal.abort(reason)), {
    is: reason,
  });
  await t.throwsAsync(hold(AbortSignal.abort(reason)), { is: reason });
});

onLinux('what the system refuses comes with its code and the file', async (t) => {
  const path = join(await scratch(t), 'none.so');
  await t.throwsAsync(askSurvey(taskFor(path)), { code: 'ENOENT' });
  const error = await askSurvey(taskFor(path)).catch((cause: NodeJS.ErrnoException) => cause);
  t.is((error as NodeJS.ErrnoException).path, path);
});
