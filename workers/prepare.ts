/**
 * The thread that looks into libraries and changes their copies, so that the main thread does not.
 * It runs no code of theirs: whatever it is doing, it can be ended.
 */

import { parentPort } from 'node:worker_threads';
import { ElfError } from '../src/library/elf/bytes.js';
import type { PrepareAnswer, PrepareAsk } from '../src/library/prepare/messages.js';
import { patch } from '../src/library/prepare/patch.js';
import type { Patched } from '../src/library/prepare/patch-task.js';
import { readAhead, type Survey, survey, warmUp } from '../src/library/prepare/survey.js';
import { codeOf, messageOf } from '../src/library/system-errors.js';

function said(ask: PrepareAsk): Survey | Patched[] | null {
  switch (ask.type) {
    case 'warm-up':
      readAhead();
      return null;
    case 'survey':
      return survey(ask.task);
    case 'patch':
      return ask.tasks.map(patch);
  }
}

function answer(ask: PrepareAsk): PrepareAnswer {
  try {
    return { ok: true, said: said(ask) };
  } catch (error) {
    const { path } = error as NodeJS.ErrnoException;
    const isElf = error instanceof ElfError;
    return { ok: false, failure: { isElf, code: codeOf(error), path, message: messageOf(error) } };
  }
}

// Before the first question: that comes once the copy is written, which takes a while.
warmUp();
parentPort?.on('message', (ask: PrepareAsk) => parentPort?.postMessage(answer(ask)));
