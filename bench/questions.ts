/** All questions, in the order in which they are asked. */

import type { Question } from './harness/question.js';
import { latency } from './latency.js';
import { throughput } from './throughput.js';

export const questions: readonly Question[] = [throughput, latency];
