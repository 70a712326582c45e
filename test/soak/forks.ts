/** Paths for what handlers fork: such a process lives until a file is there. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from './random.js';

const MOST_MS = 3000;

export class Forks {
  readonly #directory: string;
  /** What ends each process that was forked, if it was. */
  readonly #timers = new Map<string, NodeJS.Timeout>();
  #made = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** A path of its own for one more process, which ends some time later. */
  path(random: Random): string {
    this.#made += 1;
    const path = join(this.#directory, `fork-${this.#made}`);
    this.#timers.set(
      path,
      setTimeout(() => this.#end(path), random.int(0, MOST_MS)),
    );
    return path;
  }

  endAll(): void {
    for (const path of this.#timers.keys()) this.#end(path);
  }

  #end(path: string): void {
    clearTimeout(this.#timers.get(path));
    this.#timers.delete(path);
    writeFileSync(`${path}.open`, '');
  }
}
