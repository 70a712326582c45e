/** The native code that is measured, and how it is built. */

import { join } from 'node:path';
import { compileLibrary } from '../fixtures/compile.js';
import { packageRoot } from '../fixtures/paths.js';

export const echoLibrary = join(packageRoot, 'dist/bench/native/libhandler_echo.so');

export async function buildNative(): Promise<void> {
  await compileLibrary({ source: join(packageRoot, 'bench/native/echo.c'), output: echoLibrary });
}
