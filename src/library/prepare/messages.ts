/** What the main thread and the thread of workers/prepare.ts say to each other. Plain data only. */

import type { Patched, PatchTask } from './patch-task.js';
import type { Survey, SurveyTask } from './survey.js';

/** `warm-up` has it read what surveys need. */
export type PrepareAsk =
  | { type: 'warm-up' }
  | { type: 'survey'; task: SurveyTask }
  | { type: 'patch'; tasks: PatchTask[] };

export type PrepareAnswer =
  | { ok: true; said: Survey | Patched[] | null }
  | { ok: false; failure: PrepareFailure };

export interface PrepareFailure {
  /** Whether it is the file that cannot be read or changed. */
  isElf: boolean;
  /** The system's code, if it was a call of the system that failed. */
  code: string | undefined;
  /** And the file that it was about, if the system tells. */
  path: string | undefined;
  message: string;
}
