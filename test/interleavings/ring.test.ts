/**
 * The ring through every interleaving of its host and two lanes, and what becomes of it with a mistake in it.
 *
 * `CHANGEOVER_THOROUGH=1` explores the scripts with more than half a million states too, which takes a minute.
 */

import test, { type ExecutionContext } from 'ava';
import { turns } from '../support/polling.js';
import { explore, type Program, Violation } from './explore.js';
import { endings, libraryProgram } from './library-programs.js';
import { ringMutations } from './ring-mutations.js';
import { ringProgram, ringScripts } from './ring-programs.js';
import type { Mutation } from './ring-source.js';

const programs = new Map<string, (mutation?: Mutation) => Program>([
  ...ringScripts.map((script) => [script.name, (m?: Mutation) => ringProgram(script, m)] as const),
  ...endings.map((ending) => [ending, (m?: Mutation) => libraryProgram(ending, m)] as const),
]);

// Exploring blocks this thread: between tests it takes a turn, in which the last one's result is told.

/** Explores a program and reports how much that was. */
function exploreAndLog(t: ExecutionContext, program: Program): void {
  const startedMs = performance.now();
  const { states, steps, ends } = explore(program);
  const tookMs = Math.round(performance.now() - startedMs);
  t.log(`${states} states, ${steps} steps, ${ends} ends, ${tookMs} ms`);
}

const thorough = process.env['CHANGEOVER_THOROUGH'] === '1';
const left = new Set(ringScripts.filter((s) => s.thorough && !thorough).map(({ name }) => name));

for (const [name, program] of programs) {
  if (left.has(name)) continue;
  test.serial(`every interleaving: ${name}`, async (t) => {
    await turns(2);
    exploreAndLog(t, program());
    t.pass();
  });
}

for (const { name, script, ...mutation } of ringMutations) {
  test.serial(`noticed: ${name}`, async (t) => {
    await turns(2);
    const mutated = programs.get(script);
    if (mutated === undefined) return t.fail(`there is no script '${script}'`);
    const { message } = t.throws(() => explore(mutated(mutation)), { instanceOf: Violation });
    t.log(message.split('\n')[0]);
  });
}
