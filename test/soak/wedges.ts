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
}

type Symptom = 'refuses' | 'answers nothing' | 'has no lane' | 'lacks lanes';

/** What must not last. */
const SYMPTOMS: Record<Symptom, (look: Look, before: Look) => boolean> = {
  refuses: ({ refusing }) => refusing !== null,
  'answers nothing': ({ unsettled, ended }, before) => unsettled > 0 && ended === before.ended,
  'has no lane': ({ refusing, lanes }) =>
    refusing === null && lanes.serving + lanes.starting + lanes.stuck === 0,
  // Those that are missing come back with the first answer.
  'lacks lanes': ({ threads, lanes, ended }, before) =>
    lanes.serving + lanes.starting + lanes.stuck < threads && ended > before.ended,
};

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
    // Something has happened: whatever follows from it begins anew.
    if (now.version !== last?.version || now.troubles !== last?.troubles) this.#since.clear();
    if (now.version === undefined) return [];
    const found: Symptom[] = [];
    for (const symptom of Object.keys(SYMPTOMS) as Symptom[]) {
      const since = this.#since.get(symptom) ?? now;
      const isThere = SYMPTOMS[symptom](now, since);
      if (!isThere && !this.#mayStillCome(symptom, now)) this.#since.delete(symptom);
      else this.#since.set(symptom, since);
      if (!isThere || now.nowMs - since.nowMs < this.#patienceMs) continue;
      found.push(symptom);
      this.#since.delete(symptom);
    }
    return found;
  }

  /** Lanes may be missing for as long as nothing is answered. */
  #mayStillCome(symptom: Symptom, { threads, lanes }: Look): boolean {
    return symptom === 'lacks lanes' && lanes.serving + lanes.starting + lanes.stuck < threads;
  }
}
