/** Preloaded by a soak that is to notice a mistake: what it is, the environment says. */

import { register } from 'node:module';
import type { Mistake } from './mistake-hooks.js';

const data = JSON.parse(process.env['CHANGEOVER_TEST_MISTAKE'] ?? '') as Mistake;
register('./mistake-hooks.js', import.meta.url, { data });
