/** Libraries that a test writes itself. */

import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { compileLibrary } from '../../fixtures/compile.js';

/** A handler that replies with a number or a text. */
export const HANDLER = `
#include "handler.h"
#include <stdio.h>
HANDLER_DEFINE_ABI();
static int32_t say(handler_response *res, const char *what, int number) {
  char text[80];
  int length = snprintf(text, sizeof text, "%s %d", what, number);
  return handler_reply(res, text, (size_t)length);
}
`;

export interface Source {
  /** Below the directory; its folder is made. */
  name: string;
  code: string;
  flags?: readonly string[];
  language?: 'c' | 'c++';
}

/**
 * Compiles a library into a directory and returns its path. Its symbols are visible unless it says
 * otherwise.
 */
export async function compileIn(directory: string, library: Source): Promise<string> {
  const { name, code, flags = [], language = 'c' } = library;
  const output = join(directory, name);
  const source = `${output}.${language === 'c' ? 'c' : 'cc'}`;
  await mkdir(dirname(output), { recursive: true });
  await writeFile(source, code);
  await compileLibrary({ source, output, flags: ['-fvisibility=default', ...flags], language });
  return output;
}
