/** Loads one module of the engine with a mistake made on purpose: `module.register()` is given which. */

import type { LoadHook } from 'node:module';
import { type Change, changed } from '../support/compiled.js';

export interface Mistake extends Change {
  /** The module's path below `src/`. */
  readonly module: string;
}

let mistake: Mistake;

export function initialize(made: Mistake): void {
  mistake = made;
}

export const load: LoadHook = async (url, context, next) => {
  const loaded = await next(url, context);
  if (!url.endsWith(`/src/${mistake.module}`)) return loaded;
  return { ...loaded, source: changed(String(loaded.source), mistake) };
};
