/**
 * What this process holds outside of V8's heap, from proc_pid_smaps(5). V8's young generation grows
 * to its full size in some hundred swaps, by 90 to 230 mappings, whatever is loaded; what a library
 * leaves behind would not be seen beside it.
 */

import { readFileSync } from 'node:fs';

export interface NativeMemory {
  mappings: number;
  /**
   * What this process alone has written to. Not what it shares with lane processes, which counts as
   * private when one of them has ended and its memory here is not collected yet.
   */
  privateKiB: number;
}

/**
 * V8 asks for its heap at random addresses below this one, without a name. Libraries and everybody
 * else's memory lie above.
 */
const V8_HEAP_END = 2 ** 46;

export function nativeMemory(): NativeMemory {
  let mappings = 0;
  let privateKiB = 0;
  let isCounted = false;
  let isShared = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const [, start, access, name] =
      /^([0-9a-f]+)-[0-9a-f]+ (\S+) \S+ \S+ \d+ *(.*)$/.exec(line) ?? [];
    if (start !== undefined) {
      isShared = access?.endsWith('s') === true;
      isCounted = name !== '' || Number.parseInt(start, 16) >= V8_HEAP_END;
      if (isCounted) mappings += 1;
    } else if (isCounted && !isShared && line.startsWith('Private_Dirty:')) {
      privateKiB += Number(/\d+/.exec(line)?.[0]);
    }
  }
  return { mappings, privateKiB };
}
