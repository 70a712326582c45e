/**
 * The thread that looks into libraries and changes their copies, so that the main thread does not. It runs no code of theirs: whatever
 * it is doing, it can be ended.
 */

import { parentPort } from 'node:worker_threads';
import { ElfError } from '../src/library/elf/bytes.js';
import type { PrepareAnswer, PrepareRequest } from '../src/library/prepare/messages.js';
import { patch } from '../src/library/prepare/patch.js';
import { survey } from '../src/library/prepare/survey.js';
import { codeOf, messageOf } from '../src/library/system-errors.js';

function answer({ id, ask }: PrepareRequest): PrepareAnswer {
  try {
    const said = ask.type === 'survey' ? survey(ask.task) : ask.tasks.map(patch);
    return { id, ok: true, said };
  } catch (error) {
    const code = codeOf(error);
    return {
      id,
      ok: false,
      failure: { isElf: error instanceof ElfError, code, message: messageOf(error) },
    };
  }
}

parentPort?.on('message', (request: PrepareRequest) => parentPort?.postMessage(answer(request)));
