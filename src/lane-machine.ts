/**
 * The lanes of one version as a state machine: plain data, no input or output. An event goes in,
 * the next state and a list of effects come out; `Lanes` performs them and sends the events.
 *
 * A lane is known by its place: its index in the ring. A place without a lane is free.
 *
 * | lane     | event                        | becomes                                             |
 * |----------|------------------------------|-----------------------------------------------------|
 * | (free)   | one is missing or worn       | starting                                            |
 * | starting | ready                        | serving                                             |
 * |          | startOverdue                 | killed (process), stuck in its load (thread)        |
 * | serving  | callStuck                    | stuck (thread), leaving until checked (process)     |
 * |          | there are enough without it  | leaving                                             |
 * | stuck    | callReturned, ready          | serving, or leaving if it was barred                |
 * | leaving  | callChecked: it still runs   | killed                                              |
 * |          | callStuck                    | stuck (thread), checked again (process)             |
 * |          | endOverdue                   | killed                                              |
 * | killed   | killFailed, endOverdue       | stuck                                               |
 * | any      | ended                        | dead: it keeps its place while what it left behind  |
 * |          |                              | is collected                                        |
 * | dead     | reaped                       | (free)                                              |
 *
 * The circuit is about lanes that are lost in a row, with no request answered in between. The names
 * are those of a circuit breaker: open means that nothing goes through.
 *
 * | circuit   | requests | event                             | becomes                             |
 * |-----------|----------|-----------------------------------|-------------------------------------|
 * | closed    | taken    | a lane is lost: the first         | closed, and it is replaced at once  |
 * |           |          | a lane is lost: one more          | pausing                             |
 * | pausing   | taken    | retryDue                          | closed, and lanes are started       |
 * | closed or | taken    | `crashLoopAfter` are lost         | open                                |
 * | pausing   |          |                                   |                                     |
 * | open      | refused  | retryDue                          | probing; half-open if a lane serves |
 * | probing   | refused  | a lane serves                     | half-open                           |
 * |           |          | its start fails                   | open                                |
 * | half-open | taken    | the probe serves no longer, or    | open                                |
 * |           |          | another lane is lost              |                                     |
 * | not       |          | a request is answered             | closed; a pause goes on             |
 * | closed    |          |                                   |                                     |
 *
 * A start that fails while other lanes serve is not the circuit's affair: the next one waits,
 * longer each time, and requests are taken as before. That is what `spares` is for.
 *
 * What holds after each step is in `assertFleet`.
 */

import { strict as assert } from 'node:assert';
import type { WearReason } from './lane-protocol.js';

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 5000;

/** What does not change while a version lives. */
export interface FleetLimits {
  /** Lanes that should serve. */
  readonly threads: number;
  /** How many more there may be because others are stuck. */
  readonly maxStuckLanes: number;
  /** How many there can be at once, those that leave included. */
  readonly places: number;
  readonly crashLoopAfter: number;
  /** Whether a lane has a process, which can be killed. */
  readonly killable: boolean;
  /** How long a lane may take to start, and to end once it was killed. */
  readonly loadTimeoutMs: number;
  /** When a lane is worn; Infinity for never. */
  readonly recycleAfterMs: number;
}

/** The lane whose place another takes. */
export interface Replaced {
  readonly lane: number;
  readonly why: 'stuck' | 'worn';
}

/** What the death of a lane says about the others. */
type Loss =
  /** It was expected, or has been counted already. */
  | 'none'
  /** Counts if it died in the middle of a call. */
  | 'if-in-call'
  /** It died while it served. */
  | 'service'
  /** It never came up. */
  | 'start';

export type Lane =
  /** Loads the library. */
  | { readonly state: 'starting'; readonly replaces: Replaced | null }
  | { readonly state: 'serving'; readonly worn: WearReason | null }
  /**
   * Cannot be had back until its call or its load returns. `barred` if it takes no request then.
   */
  | {
      readonly state: 'stuck';
      readonly in: 'call' | 'load';
      readonly worn: WearReason | null;
      readonly barred: boolean;
    }
  /** Has been told to leave. `hurried` if it is killed unless it does so soon. */
  | { readonly state: 'leaving'; readonly hurried: boolean }
  | { readonly state: 'killed' }
  | { readonly state: 'dead'; readonly expected: boolean; readonly loss: Loss };

export type Circuit =
  | { readonly state: 'closed'; readonly lostInRow: number }
  | { readonly state: 'pausing'; readonly lostInRow: number }
  | { readonly state: 'open'; readonly lostInRow: number }
  | { readonly state: 'probing'; readonly lostInRow: number }
  | { readonly state: 'half-open'; readonly lostInRow: number; readonly probe: number };

/** Starts beside lanes that serve. */
export type Spares =
  | { readonly state: 'steady'; readonly failures: number }
  | { readonly state: 'pausing'; readonly failures: number };

/** Why requests are refused. */
export type FleetRefusal =
  | { readonly why: 'stuck'; readonly stuckLanes: number }
  | { readonly why: 'crash-loop'; readonly crashes: number };

export interface Fleet {
  readonly limits: FleetLimits;
  /**
   * Lost lanes are replaced only while serving: before, they fail the load; after, they are not
   * missed.
   */
  readonly phase: 'loading' | 'serving' | 'stopping';
  readonly lanes: readonly (Lane | null)[];
  readonly circuit: Circuit;
  readonly spares: Spares;
  /** Places whose lanes are stuck or were killed, and for which none has been started yet. */
  readonly owed: readonly number[];
  readonly refusal: FleetRefusal | null;
}

/** One at a time for each purpose. */
export type FleetTimer =
  | { readonly purpose: 'retry' | 'spare' }
  | { readonly purpose: 'start' | 'end' | 'age'; readonly lane: number };

export type FleetEvent =
  /** One more lane is to load. Once for each, before `loaded`. */
  | { readonly type: 'open'; readonly lane: number }
  /** All lanes have been ready. */
  | { readonly type: 'loaded' }
  | { readonly type: 'ready'; readonly lane: number }
  | { readonly type: 'worn'; readonly lane: number; readonly reason: WearReason }
  /** The abandoned call in `slot` has outlived its grace. */
  | { readonly type: 'callStuck'; readonly lane: number; readonly slot: number }
  /** The answer to the effect `checkCall`. */
  | { readonly type: 'callChecked'; readonly lane: number; readonly running: boolean }
  /** An abandoned call has returned, whether it had been found stuck or not. */
  | { readonly type: 'callReturned'; readonly lane: number }
  /** A handler has answered. */
  | { readonly type: 'answered' }
  | { readonly type: 'killFailed'; readonly lane: number }
  /** The lane's task is over: it has left, or its thread or process has died. */
  | { readonly type: 'ended'; readonly lane: number; readonly by: 'left' | 'died' }
  /** The answer to the effect `reap`. */
  | { readonly type: 'reaped'; readonly lane: number; readonly inCall: boolean }
  | { readonly type: 'due'; readonly timer: FleetTimer }
  /** All are to leave; none is started any more. */
  | { readonly type: 'stop' }
  /** All processes are to end, whatever they do; none is started any more. */
  | { readonly type: 'killAll' };

export type Effect =
  | { readonly do: 'start'; readonly lane: number }
  /** Bars the lane from new requests and has it leave. */
  | { readonly do: 'dismiss'; readonly lane: number }
  /** Asks whether the lane, which is barred, still runs the call in `slot`. */
  | { readonly do: 'checkCall'; readonly lane: number; readonly slot: number }
  | { readonly do: 'kill'; readonly lane: number }
  /** Collects what a dead lane has completed, cleans up after it, and says `reaped`. */
  | { readonly do: 'reap'; readonly lane: number; readonly by: 'left' | 'died' }
  | { readonly do: 'setTimer'; readonly timer: FleetTimer; readonly delayMs: number }
  | { readonly do: 'clearTimer'; readonly timer: FleetTimer }
  | { readonly do: 'refuse'; readonly refusal: FleetRefusal }
  | { readonly do: 'accept' }
  | { readonly do: 'report'; readonly report: FleetReport };

/** What the version tells its listeners. */
export type FleetReport =
  | {
      readonly what: 'laneStuck';
      readonly lane: number;
      readonly replaced: boolean;
      readonly killed: boolean;
    }
  | { readonly what: 'laneReplaced'; readonly lane: number; readonly by: number }
  | {
      readonly what: 'laneRecycled';
      readonly lane: number;
      readonly by: number;
      readonly reason: WearReason;
    }
  | { readonly what: 'crashLoop'; readonly crashes: number; readonly retryMs: number }
  | { readonly what: 'crashLoopEnded' };

export interface Step {
  readonly fleet: Fleet;
  readonly effects: readonly Effect[];
}

export function newFleet(limits: FleetLimits): Fleet {
  return {
    limits,
    phase: 'loading',
    lanes: new Array(limits.places).fill(null),
    circuit: { state: 'closed', lostInRow: 0 },
    spares: { state: 'steady', failures: 0 },
    owed: [],
    refusal: null,
  };
}

/** Whether an answered request would change nothing, as is the case nearly always. */
export function isUntroubled({ circuit }: Fleet): boolean {
  return circuit.lostInRow === 0 && (circuit.state === 'closed' || circuit.state === 'pausing');
}

/** Lanes in one of these states. */
export function countLanes({ lanes }: Pick<Fleet, 'lanes'>, ...states: Lane['state'][]): number {
  let count = 0;
  for (const lane of lanes) if (lane !== null && states.includes(lane.state)) count += 1;
  return count;
}

/** What follows from an event. Events that no longer concern a lane as it is now change nothing. */
export function step(fleet: Fleet, event: FleetEvent): Step {
  const draft = new Draft(fleet);
  handle(draft, event);
  draft.settle();
  const next = draft.finish();
  assertFleet(next.fleet);
  return next;
}

/** How long to wait after so many failures in a row: not at all after the first. */
function pauseMs(failures: number): number {
  if (failures <= 1) return 0;
  return Math.min(FIRST_PAUSE_MS * 2 ** (failures - 2), LONGEST_PAUSE_MS);
}

function handle(draft: Draft, event: FleetEvent): void {
  switch (event.type) {
    case 'open':
      draft.open(event.lane);
      return;
    case 'loaded':
      // Told to stop meanwhile, they may still have become ready.
      if (draft.phase === 'loading') draft.phase = 'serving';
      return;
    case 'ready':
      draft.becameReady(event.lane);
      return;
    case 'worn':
      draft.markWorn(event.lane, event.reason);
      return;
    case 'callStuck':
      draft.callStuck(event.lane, event.slot);
      return;
    case 'callChecked':
      draft.callChecked(event.lane, event.running);
      return;
    case 'callReturned':
      draft.callReturned(event.lane);
      return;
    case 'answered':
      draft.answered();
      return;
    case 'killFailed':
      draft.couldNotEnd(event.lane);
      return;
    case 'ended':
      draft.ended(event.lane, event.by);
      return;
    case 'reaped':
      draft.reaped(event.lane, event.inCall);
      return;
    case 'due':
      due(draft, event.timer);
      return;
    case 'stop':
      draft.stop((lane) => lane.state === 'starting');
      return;
    case 'killAll':
      draft.stop(() => true);
  }
}

function due(draft: Draft, timer: FleetTimer): void {
  switch (timer.purpose) {
    case 'retry':
      draft.retryDue();
      return;
    case 'spare':
      draft.spares = { state: 'steady', failures: draft.spares.failures };
      return;
    case 'start':
      draft.startOverdue(timer.lane);
      return;
    case 'end':
      draft.endOverdue(timer.lane);
      return;
    case 'age':
      draft.markWorn(timer.lane, 'age');
  }
}

/** The next state while it is being made. */
class Draft {
  readonly #limits: FleetLimits;
  readonly #before: FleetRefusal | null;
  phase: Fleet['phase'];
  spares: Spares;
  #circuit: Circuit;
  #owed: number[];
  readonly #lanes: (Lane | null)[];
  readonly #effects: Effect[] = [];
  /** Reported once it is known whether another lane takes over. */
  #newlyStuck: { lane: number; killed: boolean } | null = null;

  constructor(fleet: Fleet) {
    this.#limits = fleet.limits;
    this.#before = fleet.refusal;
    this.phase = fleet.phase;
    this.spares = fleet.spares;
    this.#circuit = fleet.circuit;
    this.#owed = [...fleet.owed];
    this.#lanes = [...fleet.lanes];
  }

  // ---- One lane --------------------------------------------------------------------------------

  open(place: number): void {
    if (this.phase === 'loading') this.#start(place, null);
  }

  #start(place: number, replaces: Replaced | null): void {
    assert(this.#lanes[place] === null, 'a lane starts at a free place');
    this.#lanes[place] = { state: 'starting', replaces };
    this.#effects.push({ do: 'start', lane: place });
    // Before, the load has a timeout of its own.
    if (this.phase === 'serving') {
      this.#set({ purpose: 'start', lane: place }, this.#limits.loadTimeoutMs);
    }
  }

  becameReady(place: number): void {
    const lane = this.#lanes[place];
    const late = lane?.state === 'stuck' && lane.in === 'load' && !lane.barred;
    if (lane?.state !== 'starting' && !late) return;
    this.#clear({ purpose: 'start', lane: place });
    if (this.#limits.recycleAfterMs !== Number.POSITIVE_INFINITY) {
      this.#set({ purpose: 'age', lane: place }, this.#limits.recycleAfterMs);
    }
    if (lane.state === 'starting' && lane.replaces?.why === 'stuck') {
      this.#report({ what: 'laneReplaced', lane: lane.replaces.lane, by: place });
    } else {
      // It hung in its load, and is back before anyone stood in for it.
      this.#disown(place);
    }
    if (this.spares.state === 'pausing') this.#clear({ purpose: 'spare' });
    this.spares = { state: 'steady', failures: 0 };
    this.#serve(place, null);
  }

  markWorn(place: number, reason: WearReason): void {
    const lane = this.#lanes[place];
    if (lane?.state !== 'serving' && lane?.state !== 'stuck') return;
    this.#lanes[place] = { ...lane, worn: lane.worn ?? reason };
  }

  callStuck(place: number, slot: number): void {
    const lane = this.#lanes[place];
    if (lane?.state !== 'serving' && lane?.state !== 'leaving') return;
    if (!this.#limits.killable) {
      const worn = lane.state === 'serving' ? lane.worn : null;
      this.#becomeStuck(place, { in: 'call', worn, barred: lane.state === 'leaving' });
      this.#newlyStuck = { lane: place, killed: false };
      return;
    }
    // Bar the lane from new requests before its slot is looked at, so that no other request's call
    // is ever killed.
    if (lane.state === 'serving') {
      this.#effects.push({ do: 'dismiss', lane: place });
      this.#owe(place);
    }
    this.#lanes[place] = { state: 'leaving', hurried: true };
    this.#setEnd(place);
    this.#effects.push({ do: 'checkCall', lane: place, slot });
  }

  callChecked(place: number, running: boolean): void {
    if (this.#lanes[place]?.state !== 'leaving') return;
    if (!running) {
      this.#disown(place);
      return;
    }
    this.#kill(place);
    this.#newlyStuck = { lane: place, killed: true };
  }

  callReturned(place: number): void {
    const lane = this.#lanes[place];
    if (lane?.state !== 'stuck' || lane.in !== 'call') return;
    this.#disown(place);
    if (!lane.barred) {
      this.#serve(place, lane.worn);
      return;
    }
    this.#lanes[place] = { state: 'leaving', hurried: this.#limits.killable };
    if (this.#limits.killable) this.#setEnd(place);
  }

  /**
   * A lane can take requests, for the first time or again. If there are enough without it, one
   * leaves: rather a worn one.
   */
  #serve(place: number, worn: WearReason | null): void {
    this.#lanes[place] = { state: 'serving', worn };
    if (this.phase !== 'serving' || this.#count('serving') <= this.#limits.threads) return;
    const tired = this.#wornLane();
    if (tired !== null && tired.place !== place) {
      const { reason } = tired;
      this.#report({ what: 'laneRecycled', lane: tired.place, by: place, reason });
      const circuit = this.#circuit;
      if (circuit.state === 'half-open' && circuit.probe === tired.place) {
        this.#circuit = { ...circuit, probe: place };
      }
    }
    this.#dismiss(tired?.place ?? place);
  }

  #wornLane(): { place: number; reason: WearReason } | null {
    for (const [place, lane] of this.#lanes.entries()) {
      if (lane?.state === 'serving' && lane.worn !== null) return { place, reason: lane.worn };
    }
    return null;
  }

  #dismiss(place: number): void {
    this.#lanes[place] = { state: 'leaving', hurried: false };
    this.#effects.push({ do: 'dismiss', lane: place });
  }

  #kill(place: number): void {
    this.#clear({ purpose: 'start', lane: place });
    this.#clear({ purpose: 'age', lane: place });
    this.#lanes[place] = { state: 'killed' };
    this.#effects.push({ do: 'kill', lane: place });
    this.#owe(place);
    this.#setEnd(place);
  }

  #setEnd(place: number): void {
    if (this.phase === 'serving') {
      this.#set({ purpose: 'end', lane: place }, this.#limits.loadTimeoutMs);
    }
  }

  #becomeStuck(place: number, how: Omit<Extract<Lane, { state: 'stuck' }>, 'state'>): void {
    this.#lanes[place] = { state: 'stuck', ...how };
    this.#owe(place);
  }

  /** The next lane that starts stands in for this one. */
  #owe(place: number): void {
    if (this.phase !== 'serving') return;
    for (const [other, lane] of this.#lanes.entries()) {
      if (lane?.state !== 'starting' || lane.replaces?.lane !== place) continue;
      // Started because it was worn: it comes at the right time.
      this.#lanes[other] = { state: 'starting', replaces: { lane: place, why: 'stuck' } };
      return;
    }
    if (!this.#owed.includes(place)) this.#owed.push(place);
  }

  /** Nothing needs to stand in for this lane: it serves again, or leaves by itself. */
  #disown(place: number): void {
    this.#owed = this.#owed.filter((other) => other !== place);
    for (const [other, lane] of this.#lanes.entries()) {
      if (lane?.state !== 'starting' || lane.replaces?.lane !== place) continue;
      this.#lanes[other] = { state: 'starting', replaces: null };
    }
  }

  startOverdue(place: number): void {
    if (this.#lanes[place]?.state !== 'starting') return;
    if (this.#limits.killable) this.#kill(place);
    else this.#becomeStuck(place, { in: 'load', worn: null, barred: false });
    this.#newlyStuck = { lane: place, killed: this.#limits.killable };
    this.#lose('start');
  }

  /** A lane that was to leave soon has not, or a killed one goes on. */
  endOverdue(place: number): void {
    const lane = this.#lanes[place];
    if (lane?.state === 'leaving' && lane.hurried) this.#kill(place);
    else this.couldNotEnd(place);
  }

  couldNotEnd(place: number): void {
    if (this.#lanes[place]?.state !== 'killed') return;
    this.#clear({ purpose: 'end', lane: place });
    this.#becomeStuck(place, { in: 'call', worn: null, barred: true });
  }

  ended(place: number, by: 'left' | 'died'): void {
    const lane = this.#lanes[place];
    if (lane == null || lane.state === 'dead') return;
    for (const purpose of ['start', 'end', 'age'] as const) this.#clear({ purpose, lane: place });
    const expected = lane.state === 'killed' || (lane.state === 'stuck' && lane.barred);
    this.#lanes[place] = { state: 'dead', expected, loss: lossOf(lane, by) };
    this.#effects.push({ do: 'reap', lane: place, by });
  }

  reaped(place: number, inCall: boolean): void {
    const lane = this.#lanes[place];
    assert(lane?.state === 'dead', 'what is reaped is dead');
    this.#lanes[place] = null;
    if (lane.loss === 'start') this.#lose('start');
    else if (lane.loss === 'service' || (lane.loss === 'if-in-call' && inCall)) {
      this.#lose('service');
    }
  }

  stop(ends: (lane: Lane) => boolean): void {
    if (this.phase === 'serving') {
      if (hasRetry(this.#circuit)) this.#clear({ purpose: 'retry' });
      if (this.spares.state === 'pausing') this.#clear({ purpose: 'spare' });
      for (const [place] of this.#lanes.entries()) {
        for (const purpose of ['start', 'end', 'age'] as const) {
          this.#clear({ purpose, lane: place });
        }
      }
    }
    this.phase = 'stopping';
    this.#circuit = { state: 'closed', lostInRow: 0 };
    this.spares = { state: 'steady', failures: 0 };
    this.#owed = [];
    if (!this.#limits.killable) return;
    for (const [place, lane] of this.#lanes.entries()) {
      if (lane === null || lane.state === 'dead' || lane.state === 'killed' || !ends(lane))
        continue;
      this.#lanes[place] = { state: 'killed' };
      this.#effects.push({ do: 'kill', lane: place });
    }
  }

  // ---- Lanes that are lost -----------------------------------------------------------------------

  #lose(what: 'start' | 'service'): void {
    if (this.phase !== 'serving') return;
    if (what === 'service' || this.#count('serving') === 0) {
      this.#lostOneMore();
      return;
    }
    const failures = this.spares.failures + 1;
    this.spares = { state: 'pausing', failures };
    this.#set({ purpose: 'spare' }, pauseMs(failures + 1));
  }

  #lostOneMore(): void {
    const { state } = this.#circuit;
    const lostInRow = this.#circuit.lostInRow + 1;
    const delayMs = pauseMs(lostInRow);
    const refusing = state === 'open' || state === 'probing' || state === 'half-open';
    if (refusing || lostInRow >= this.#limits.crashLoopAfter) {
      this.#open(lostInRow);
    } else if (state === 'pausing') {
      this.#circuit = { state, lostInRow };
    } else if (delayMs === 0) {
      this.#circuit = { state: 'closed', lostInRow };
    } else {
      this.#circuit = { state: 'pausing', lostInRow };
      this.#set({ purpose: 'retry' }, delayMs);
    }
  }

  #open(lostInRow: number): void {
    const retryMs = Math.max(pauseMs(lostInRow), FIRST_PAUSE_MS);
    this.#circuit = { state: 'open', lostInRow };
    this.#set({ purpose: 'retry' }, retryMs);
    this.#report({ what: 'crashLoop', crashes: lostInRow, retryMs });
  }

  retryDue(): void {
    const { state, lostInRow } = this.#circuit;
    if (state === 'pausing') this.#circuit = { state: 'closed', lostInRow };
    else if (state === 'open') this.#circuit = { state: 'probing', lostInRow };
  }

  answered(): void {
    const { state } = this.#circuit;
    if (state === 'closed' || state === 'pausing') {
      this.#circuit = { state, lostInRow: 0 };
      return;
    }
    if (state === 'open') this.#clear({ purpose: 'retry' });
    this.#circuit = { state: 'closed', lostInRow: 0 };
    this.#report({ what: 'crashLoopEnded' });
  }

  // ---- What follows, whatever happened -----------------------------------------------------------

  /**
   * Brings the number of lanes, the circuit and what is refused in line with the lanes as they are.
   */
  settle(): void {
    // What a dead lane has answered decides what its death means: that is collected first.
    if (this.phase === 'serving' && this.#count('dead') === 0) {
      this.#settleCircuit();
      this.#startMissing();
      this.#recycleNext();
    }
    if (this.#newlyStuck !== null) {
      const { lane, killed } = this.#newlyStuck;
      const replaced = killed || (this.phase === 'serving' && !this.#owed.includes(lane));
      this.#report({ what: 'laneStuck', lane, replaced, killed });
    }
  }

  #settleCircuit(): void {
    const circuit = this.#circuit;
    if (circuit.state === 'half-open' && this.#lanes[circuit.probe]?.state !== 'serving') {
      this.#open(circuit.lostInRow + 1);
    } else if (circuit.state === 'probing') {
      const probe = this.#lanes.findIndex((lane) => lane?.state === 'serving');
      if (probe === -1) return;
      this.#circuit = { state: 'half-open', lostInRow: circuit.lostInRow, probe };
    }
  }

  #startMissing(): void {
    while (this.#isMissing() && this.#mayStart()) {
      const lane = this.#owed.shift();
      const replaces: Replaced | null = lane === undefined ? null : { lane, why: 'stuck' };
      this.#start(this.#lanes.indexOf(null), replaces);
    }
    if (!this.#isMissing()) this.#owed = [];
  }

  #isMissing(): boolean {
    return this.#count('serving', 'starting') < this.#limits.threads;
  }

  /** Whether one more may start now: there is room, and no pause. After failures, one at a time. */
  #mayStart(): boolean {
    const { threads, maxStuckLanes } = this.#limits;
    const present = this.#count('starting', 'serving', 'stuck', 'killed');
    if (!this.#lanes.includes(null) || present >= threads + maxStuckLanes) return false;
    const [serving, starting] = [this.#count('serving'), this.#count('starting')];
    if (serving > 0) {
      if (this.spares.state === 'pausing') return false;
      if (this.spares.failures > 0 && starting > 0) return false;
    }
    return (
      this.#circuit.state === 'closed' || (this.#circuit.state === 'probing' && starting === 0)
    );
  }

  /**
   * Starts one lane more for a worn one, one at a time. If stuck lanes leave no room for it, the
   * worn one leaves first.
   */
  #recycleNext(): void {
    const worn = this.#wornLane();
    if (worn === null || this.#circuit.state !== 'closed' || this.spares.state !== 'steady') return;
    if (this.#count('starting', 'leaving', 'killed') > 0) return;
    const place = this.#lanes.indexOf(null);
    if (place !== -1) this.#start(place, { lane: worn.place, why: 'worn' });
    else if (this.#count('serving') > 1) this.#dismiss(worn.place);
  }

  #refusal(): FleetRefusal | null {
    if (this.phase !== 'serving') return null;
    if (this.#count('dead') > 0) return this.#before;
    const { state, lostInRow } = this.#circuit;
    if (state === 'open' || state === 'probing') return { why: 'crash-loop', crashes: lostInRow };
    if (state === 'pausing' || this.#count('serving', 'starting', 'killed') > 0) return null;
    const stuckLanes = this.#count('stuck');
    return stuckLanes > 0 ? { why: 'stuck', stuckLanes } : null;
  }

  finish(): Step {
    const before = this.#before;
    let refusal = this.#refusal();
    if (sameRefusal(before, refusal)) refusal = before;
    else if (refusal === null) this.#effects.push({ do: 'accept' });
    else this.#effects.push({ do: 'refuse', refusal });
    return {
      fleet: {
        limits: this.#limits,
        phase: this.phase,
        lanes: this.#lanes,
        circuit: this.#circuit,
        spares: this.spares,
        owed: this.#owed,
        refusal,
      },
      effects: this.#effects,
    };
  }

  #count(...states: Lane['state'][]): number {
    return countLanes({ lanes: this.#lanes }, ...states);
  }

  #set(timer: FleetTimer, delayMs: number): void {
    this.#effects.push({ do: 'setTimer', timer, delayMs });
  }

  #clear(timer: FleetTimer): void {
    this.#effects.push({ do: 'clearTimer', timer });
  }

  #report(report: FleetReport): void {
    this.#effects.push({ do: 'report', report });
  }
}

function lossOf(lane: Lane, by: 'left' | 'died'): Loss {
  switch (lane.state) {
    case 'starting':
      return 'start';
    case 'serving':
      return by === 'died' ? 'service' : 'none';
    case 'stuck':
      // What hangs in its load was counted when that was found.
      return by === 'died' && lane.in === 'call' && !lane.barred ? 'service' : 'none';
    case 'leaving':
      return by === 'died' ? 'if-in-call' : 'none';
    default:
      return 'none';
  }
}

function hasRetry({ state }: Circuit): boolean {
  return state === 'pausing' || state === 'open';
}

function sameRefusal(one: FleetRefusal | null, other: FleetRefusal | null): boolean {
  if (one === null || other === null) return one === other;
  if (one.why === 'stuck') return other.why === 'stuck' && one.stuckLanes === other.stuckLanes;
  return other.why === 'crash-loop' && one.crashes === other.crashes;
}

/** Timers that must be running in this state. */
export function timersOf(fleet: Fleet): FleetTimer[] {
  if (fleet.phase !== 'serving') return [];
  const timers: FleetTimer[] = [];
  if (hasRetry(fleet.circuit)) timers.push({ purpose: 'retry' });
  if (fleet.spares.state === 'pausing') timers.push({ purpose: 'spare' });
  for (const [place, lane] of fleet.lanes.entries()) {
    if (lane?.state === 'starting') timers.push({ purpose: 'start', lane: place });
    if (lane?.state === 'killed' || (lane?.state === 'leaving' && lane.hurried)) {
      timers.push({ purpose: 'end', lane: place });
    }
  }
  return timers;
}

/** What holds after each step. */
function assertFleet(fleet: Fleet): void {
  const { phase, circuit, refusal, lanes } = fleet;
  // In between, while what a dead lane has left behind is collected, nothing is decided.
  if (phase !== 'serving' || countLanes(fleet, 'dead') > 0) return;
  const serving = countLanes(fleet, 'serving');
  const starting = countLanes(fleet, 'starting');
  // Something serves, or something that has a time limit will end in a lane that starts.
  if (refusal === null && serving === 0) {
    const ending = lanes.some((lane) => lane?.state === 'leaving' && lane.hurried);
    const killed = countLanes(fleet, 'killed') > 0;
    assert(
      starting > 0 || circuit.state === 'pausing' || killed || ending,
      'requests are taken, no lane serves, and none will',
    );
  }
  const looping = circuit.state === 'open' || circuit.state === 'probing';
  assert(looping === (refusal?.why === 'crash-loop'), 'the circuit refuses requests if it is open');
  if (refusal?.why === 'stuck') {
    assert(countLanes(fleet, 'stuck') > 0, 'a lane that is stuck ends this by returning');
    const coming = serving + starting + countLanes(fleet, 'killed');
    assert(coming === 0, 'requests are refused although a lane serves or will');
  }
  if (circuit.state === 'probing') {
    assert(serving === 0, 'a lane that serves is the probe');
    assert(starting > 0 || !lanes.includes(null) || hasStuck(fleet), 'a probe is started');
  }
  if (circuit.state === 'half-open') {
    assert(
      lanes[circuit.probe]?.state === 'serving',
      'a circuit is half-open as long as its probe serves',
    );
  }
}

function hasStuck(fleet: Fleet): boolean {
  return countLanes(fleet, 'stuck', 'killed') > 0;
}
