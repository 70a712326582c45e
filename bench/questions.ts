/** All questions, in the order in which they are asked. */

import type { Question } from './harness/question.js';
import { isolation } from './isolation.js';
import { latency } from './latency.js';
import { memory } from './memory.js';
import { overload } from './overload.js';
import { payload } from './payload.js';
import { preflight } from './preflight.js';
import { reload } from './reload.js';
import { scaling } from './scaling.js';
import { stats } from './stats.js';
import { swap } from './swap.js';
import { throughput } from './throughput.js';
import { timeout } from './timeout.js';

export const questions: readonly Question[] = [
  throughput,
  latency,
  timeout,
  payload,
  scaling,
  swap,
  isolation,
  preflight,
  reload,
  memory,
  stats,
  overload,
];
