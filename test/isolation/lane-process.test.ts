/** A lane's process as its lane sees it: which of it is noted where the host finds it, and when. */

import { readFileSync } from 'node:fs';
import { CancelFlags } from '../../src/cancel-flags.js';
import { plainPlan } from '../../src/library/load-plan.js';
import { NativeMemory } from '../../workers/native-library.js';
import { LaneProcess } from '../../workers/process/lane-process.js';
import { onLinux } from '../support/process.js';

const STACK_BYTES = 1024 * 1024;
const PATIENCE_MS = 20_000;

/** Blocks until a child has ended, and leaves it to be waited for. */
function awaitZombie(pid: number): void {
  const endMs = performance.now() + PATIENCE_MS;
  let text = '';
  while (performance.now() < endMs) {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    if (text.slice(text.lastIndexOf(')') + 2).startsWith('Z')) return;
  }
  throw new Error(`process ${pid} has not ended: ${text}`);
}

onLinux('the id of a process that ends at once is not noted any more', async (t) => {
  const native = new NativeMemory(STACK_BYTES);
  const cancelFlags = await CancelFlags.create(32);
  let noted = 0;
  let started = 0;
  let lifeline = -1;
  const task = {
    plan: plainPlan('/nowhere'),
    maxPayloadBytes: 1024,
    stackBytes: STACK_BYTES,
    process: { name: 'test', env: {}, cancelFlags, maxRssBytes: Infinity, stopTimeoutMs: 1000 },
  };
  const child = new LaneProcess(task, native, {
    started: (pid) => {
      started = pid;
      noted = pid;
      process.kill(pid, 'SIGKILL');
      awaitZombie(pid);
    },
    ended: () => {
      noted = 0;
    },
    noteLifeline: (descriptor) => {
      lifeline = descriptor;
    },
    takeLifeline: () => {
      const taken = lifeline;
      lifeline = -1;
      return taken;
    },
  });

  t.not(started, 0);
  t.is(noted, 0);
  t.deepEqual(await child.kill(), { exitCode: null, signal: 'SIGKILL', reason: null });
  child.release();
  cancelFlags.close();
});
