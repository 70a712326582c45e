/**
 * Which Debian packages are missing for a library, without a package manager: by the files that
 * they bring.
 */

import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import type { Need } from './library.js';
import { run } from './tools.js';

/** The packages that are missing, by name. */
export async function missingPackages(needs: readonly Need[]): Promise<string[]> {
  const found = await Promise.all(needs.map(isHere));
  return [...new Set(needs.filter((_, index) => !found[index]).map((need) => need.package))];
}

async function isHere(need: Need): Promise<boolean> {
  if ('program' in need) return isInPath(need.program);
  try {
    if ('archive' in need) {
      // The compiler prints the bare name of what it does not find.
      const path = await run(['cc', `-print-file-name=${need.archive}`]);
      return path.toString().trim().startsWith('/');
    }
    const include = Buffer.from(`#include <${need.header}>\n`);
    await run(['cc', ...includeDirs, '-E', '-o', '/dev/null', '-x', 'c', '-'], include);
    return true;
  } catch {
    return false; // There is no such header, or no compiler, which is a need of its own.
  }
}

/** Where a package keeps its headers in a folder of its own. */
export const includeDirs: readonly string[] = ['-I/usr/include/libxml2'];

async function isInPath(program: string): Promise<boolean> {
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    try {
      await access(join(directory, program), constants.X_OK);
      return true;
    } catch {
      // It may be in the next one.
    }
  }
  return false;
}
