/**
 * Whether an endpoint is wedged: it is active, and for some time it has refused requests, answered nothing, or had too
 * few lanes, although nothing has happened that would be a reason.
 */

import type { VersionStats } from '../../src/index.js';

/** What is seen of an endpoint at one moment. */
export interface Look {
  readonly nowMs: number;
  /** The active version; undefined if there is none. */
  readonly version: number | undefined;
  readonly threads: number;
  readonly lanes: VersionStats['lanes'];
  readonly refusing: VersionStats['refusing'];
  /** Requests that wait for an answer, and how many have had one, since the version was loaded. */
  readonly unsettled: number;
  readonly ended: number;
  /** Lanes that were lost or got stuck, so far. */
  readonly troubles: number;
  /** Processes of lanes that the soak itself has killed, so far. */
  readonly killed: number;
}

type Symptom = 'refuses' | 'answers nothing' | 'has no lane' | 'lacks lanes';

/** What must not last. */
const SYMPTOMS: Record<Symptom, (look: Look, before: Look) => boolean> = {
  // A lane that is lost again is a reason to go on.
  refuses: ({ refusing, troubles }, before) => refusing !== null && troubles === before.troubles,
  // Beside much load, a lane may be killed before it could answer anything, several times in a row.
  'answers nothing': ({ unsettled, ended, killed }, before) =>
    unsettled > 0 && ended === before.ended && killed === before.killed,
  'has no lane': ({ refusing, lanes }) =>
    refusing === null && lanes.serving + lanes.starting + lanes.stuck === 0,
  'lacks lanes': (look, before) => lacksLanes(look) && look.ended > before.ended,
};

/** After lanes were lost in a row, the others come back with the first answer. */
function lacksLanes({ refusing, threads, lanes }: Look): boolean {
  return refusing === null && lanes.serving + lanes.starting + lanes.stuck < threads;
}

export class WedgeWatch {
  readonly #patienceMs: number;
  /** Since when each symptom has lasted, and what was seen then. */
  readonly #since = new Map<Symptom, Look>();
  #last: Look | undefined;

  constructor(patienceMs: number) {
    this.#patienceMs = patienceMs;
  }

  /** What has lasted too long, said once for each time that it does. */
  look(now: Look): Symptom[] {
    const last = this.#last;
    this.#last = now;
    if (now.version !== last?.version) this.#since.clear();
    if (now.version === undefined) return [];
    const found: Symptom[] = [];
    for (const symptom of Object.keys(SYMPTOMS) as Symptom[]) {
      const since = this.#since.get(symptom) ?? now;
      const isThere = SYMPTOMS[symptom](now, since);
      const mayCome = symptom === 'lacks lanes' && lacksLanes(now);
      if (isThere || mayCome) this.#since.set(symptom, since);
      else this.#since.delete(symptom);
      if (!isThere || now.nowMs - since.nowMs < this.#patienceMs) continue;
      found.push(symptom);
      this.#since.delete(symptom);
    }
    return found;
  }
}
