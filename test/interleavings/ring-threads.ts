/**
 * The threads that use a ring: the host, which follows a script, and lanes, which serve until they are told to leave. They do
 * what `src/dispatcher.ts`, `src/lanes.ts` and `workers/lane.ts` do with the ring, with numbers for payloads, and notice if
 * a request is run twice, answered twice, or answered with another's response.
 */

import type { NOTHING as Nothing } from '../../src/ring/consumer.js';
import { ROOM_BYTES, requestRoomAt, SLOT, STATUS, slotAt } from '../../src/ring/layout.js';
import type { RingProducer } from '../../src/ring/producer.js';
import type { Thread } from './explore.js';
import type { Machine } from './machine.js';
import type { ConsumerState, ProducerState, RingClasses } from './ring-source.js';

/** What the host does, in this order. Requests have numbers from 0. */
export type HostCommand =
  /** Waits for a free slot if there is none. */
  | { readonly submit: number }
  /** A timeout or an abort: withdrawn, or, if it runs, cancelled and abandoned. */
  | { readonly giveUp: number }
  | { readonly dismiss: number }
  | 'collect'
  | 'hush'
  | 'mail'
  | 'closeLedger'
  | 'stop'
  /** Waits until every slot is free. */
  | 'settle'
  /** Waits until every lane has left or died. */
  | 'join';

export type RequestOutcome = 'completed' | 'withdrawn' | 'abandoned' | 'lost';

export interface HostMemory {
  step: number;
  free: number[];
  freeCount: number;
  /** A slot that is taken and not yet submitted. */
  filling: number | null;
  /** Requests by slot. */
  bySlot: (number | null)[];
  outcomes: (RequestOutcome | null)[];
  present: boolean[];
}

export interface LaneMemory {
  phase: 'look' | 'take' | 'serve' | 'complete' | 'read' | 'park' | 'leave';
  slot: number;
  watches: boolean;
  mailRead: number;
}

/** Words that stand for what the ports between the threads carry. */
export const MESSAGE = {
  /** Doorbell messages of a lane. */
  bell: (lane: number) => -1 - 8 * lane,
  /** The lane's thread has ended without leaving. */
  died: (lane: number) => -2 - 8 * lane,
  /** The lane has left its loop. */
  left: (lane: number) => -3 - 8 * lane,
  /** The request has been run. */
  ran: (request: number) => -2000 - request,
} as const;

/** Words that are only there to be checked. */
const GHOST = {
  /** How often a request has been run. */
  runs: (request: number) => -1000 - 8 * request,
  /** 1 once the host may raise the request's cancel flag. */
  givenUp: (request: number) => -1001 - 8 * request,
  /** Which lane ran it, plus 1. */
  runBy: (request: number) => -1002 - 8 * request,
} as const;

export interface RingScene {
  readonly machine: Machine;
  readonly classes: RingClasses;
  readonly lanes: number;
  /** Slots that may be taken at once. */
  readonly limit: number;
  /** A request that returns only once the one after it has run. */
  readonly waitsForNext?: number | undefined;
}

const SHAPE_SLOTS = 32;
const NOTHING: typeof Nothing = -1;
const NO_SLOT = -1;
const responseOf = (request: number) => 100 + request;

export function hostThread(
  scene: RingScene,
  script: readonly HostCommand[],
  replacesDead: boolean,
): Thread<HostMemory> {
  const { machine, classes, lanes, limit } = scene;
  const ring = new classes.RingProducer({ slots: SHAPE_SLOTS, lanes }, limit);
  const requests = script.filter((command) => typeof command === 'object' && 'submit' in command);
  const initial: HostMemory = {
    step: 0,
    free: [...ring.$free],
    freeCount: ring.$freeCount,
    filling: null,
    bySlot: Array(limit).fill(null),
    outcomes: requests.map(() => null),
    present: Array(lanes).fill(true),
  };
  const command = (own: HostMemory): HostMemory | null => {
    ring.$free.set(own.free);
    ring.$freeCount = own.freeCount;
    const next = script[own.step];
    if (next === undefined) return null;
    const done = new Host(machine, ring, own, replacesDead).follow(next);
    if (done) own.step += 1;
    own.free = [...ring.$free].map((slot, index) => (index < ring.$freeCount ? slot : 0));
    own.freeCount = ring.$freeCount;
    return own;
  };
  return { name: 'host', initial, command, stage: ({ step }) => step };
}

/** One command of the host's. */
class Host {
  readonly #machine: Machine;
  readonly #ring: RingProducer & ProducerState;
  readonly #own: HostMemory;
  readonly #replacesDead: boolean;

  constructor(
    machine: Machine,
    ring: RingProducer & ProducerState,
    own: HostMemory,
    replacesDead: boolean,
  ) {
    this.#machine = machine;
    this.#ring = ring;
    this.#own = own;
    this.#replacesDead = replacesDead;
  }

  /** Returns whether the script goes on to the next command. */
  follow(command: HostCommand): boolean {
    const ring = this.#ring;
    const own = this.#own;
    if (typeof command === 'object') {
      if ('submit' in command) return this.#submit(command.submit);
      if ('giveUp' in command) this.#giveUp(command.giveUp);
      else ring.dismiss(command.dismiss);
      return true;
    }
    switch (command) {
      case 'collect':
        this.#collect();
        return true;
      case 'hush':
        ring.hush();
        return true;
      case 'mail':
        ring.announceMail();
        return true;
      case 'closeLedger':
        ring.closeLedger();
        if (ring.acquire()) throw new Error('a closed ledger took a request');
        return true;
      case 'stop':
        if (ring.inFlight !== 0) throw new Error('lanes are stopped when nothing is in flight');
        ring.stop();
        return true;
      case 'settle':
        if (ring.taken === 0) return true;
        this.#receive();
        return false;
      case 'join':
        if (!own.present.includes(true)) return true;
        this.#receive();
        return false;
    }
  }

  #submit(request: number): boolean {
    const ring = this.#ring;
    const { filling } = this.#own;
    if (filling !== null) {
      this.#own.filling = null;
      ring.words[requestWord(ring, filling)] = request;
      ring.submit(filling, Number.POSITIVE_INFINITY);
      return true;
    }
    if (!ring.hasFreeSlot) {
      this.#receive();
      return false;
    }
    const slot = ring.takeSlot();
    if (this.#own.bySlot[slot] !== null) throw new Error(`slot ${slot} is in two places`);
    if (!ring.acquire()) throw new Error('an open ledger refused a request');
    this.#own.bySlot[slot] = request;
    this.#own.filling = slot;
    return false;
  }

  #giveUp(request: number): void {
    const ring = this.#ring;
    const own = this.#own;
    const slot = own.bySlot.indexOf(request);
    if (slot === -1 || own.outcomes[request] !== null) return;
    this.#machine.ghost(GHOST.givenUp(request), 1);
    if (ring.withdraw(slot)) {
      own.outcomes[request] = 'withdrawn';
    } else {
      ring.cancel(slot);
      own.outcomes[request] = 'abandoned';
      const lane = ring.laneOf(slot);
      const runBy = this.#machine.ghost(GHOST.runBy(request));
      if (runBy !== 0 && runBy !== lane + 1) throw new Error(`${request} does not run on ${lane}`);
    }
  }

  /** Waits for a message and does what it asks for. */
  #receive(): void {
    const lanes = this.#own.present.flatMap((present, lane) => (present ? [lane] : []));
    const kinds = ['bell', 'died', 'left'] as const;
    const messages = lanes.flatMap((lane) => kinds.map((kind) => ({ lane, kind })));
    const which = this.#machine.receive(messages.map(({ kind, lane }) => MESSAGE[kind](lane)));
    const { lane, kind } = messages[which] ?? { lane: 0, kind: 'bell' };
    if (kind === 'bell') this.#collect();
    else if (kind === 'died') this.#bury(lane);
    else {
      // What it posted before it left has come before.
      if (this.#machine.takeAll(MESSAGE.bell(lane)) > 0) this.#collect();
      this.#own.present[lane] = false;
    }
  }

  #bury(lane: number): void {
    const ring = this.#ring;
    const own = this.#own;
    this.#collect();
    const slot = ring.bury(lane);
    this.#collect();
    if (slot !== NO_SLOT) {
      const request = own.bySlot[slot] ?? null;
      if (request === null) throw new Error(`slot ${slot} died and has no request`);
      own.outcomes[request] ??= 'lost';
      this.#vacate(slot);
    }
    if (this.#replacesDead) {
      ring.prepareLane(lane);
      ring.guardLane(lane);
      this.#machine.spawn(1 + lane);
    } else {
      own.present[lane] = false;
    }
  }

  #collect(): void {
    this.#ring.collect((slot) => this.#settle(slot));
  }

  #settle(slot: number): void {
    const { words, layout } = this.#ring;
    const own = this.#own;
    const request = own.bySlot[slot] ?? null;
    if (request === null) throw new Error(`slot ${slot} is done and has no request`);
    const status = words[slotAt(layout, slot) + SLOT.STATUS];
    const withdrawn = own.outcomes[request] === 'withdrawn';
    if (withdrawn !== (status === STATUS.WITHDRAWN)) {
      throw new Error(`request ${request} was ${own.outcomes[request]} and has status ${status}`);
    }
    if (!withdrawn) {
      const response = words[responseWord(this.#ring, slot)];
      if (response !== responseOf(request)) {
        throw new Error(`request ${request} was answered with ${response}`);
      }
      const runBy = this.#machine.ghost(GHOST.runBy(request));
      if (this.#ring.laneOf(slot) !== runBy - 1) throw new Error(`${request} ran on ${runBy - 1}`);
      own.outcomes[request] ??= 'completed';
    }
    this.#vacate(slot);
  }

  #vacate(slot: number): void {
    this.#own.bySlot[slot] = null;
    this.#ring.freeSlot(slot);
  }
}

export interface LaneOptions {
  /** Whether its waits may be short, so that it looks for work before it sleeps; it begins with that. */
  readonly watches: boolean;
  readonly mortal: boolean;
}

export function laneThread(
  scene: RingScene,
  lane: number,
  { watches, mortal }: LaneOptions,
): Thread<LaneMemory> {
  const { machine, classes, lanes } = scene;
  const ring = new classes.RingConsumer(
    null as unknown as SharedArrayBuffer,
    { slots: SHAPE_SLOTS, lanes },
    lane,
    () => machine.post(MESSAGE.bell(lane)),
  );
  return {
    name: `lane ${lane}`,
    initial: { phase: 'look', slot: NOTHING, watches, mailRead: 0 },
    deathAt: MESSAGE.died(lane),
    command(own) {
      machine.shortTimes = watches;
      ring.$watches = own.watches;
      if (own.phase === 'leave') return null;
      own.phase = nextPhase(scene, ring, lane, own);
      own.watches = ring.$watches;
      return own;
    },
    mayDie: ({ phase }) => mortal && phase !== 'leave',
  };
}

/** The loop of workers/lane.ts, one call a command. */
function nextPhase(
  scene: RingScene,
  ring: RingClasses['RingConsumer']['prototype'] & ConsumerState,
  lane: number,
  own: LaneMemory,
): LaneMemory['phase'] {
  switch (own.phase) {
    case 'look':
      if (!ring.leaving) return 'take';
      scene.machine.post(MESSAGE.left(lane));
      return 'leave';
    case 'take':
      own.slot = ring.take();
      return own.slot === NOTHING ? 'read' : 'serve';
    case 'serve':
      serve(scene, ring, lane, own.slot);
      return 'complete';
    case 'complete':
      ring.complete(own.slot);
      own.slot = NOTHING;
      return 'look';
    case 'read':
      own.mailRead = ring.mail;
      return 'park';
    default:
      ring.park(own.mailRead);
      return 'look';
  }
}

function serve(
  { machine, waitsForNext }: RingScene,
  ring: RingClasses['RingConsumer']['prototype'],
  lane: number,
  slot: number,
): void {
  const { words, layout } = ring;
  ring.deadlineMs(slot);
  const request = words[requestWord(ring, slot)] ?? 0;
  if (machine.ghost(GHOST.runs(request), 1) !== 0) throw new Error(`request ${request} runs twice`);
  machine.ghost(GHOST.runBy(request), lane + 1);
  const cancelled = machine.atomics.load(words as never, slotAt(layout, slot) + SLOT.CANCEL);
  if (cancelled !== 0 && machine.ghost(GHOST.givenUp(request)) === 0) {
    throw new Error(`request ${request} is told that it is cancelled, and is not`);
  }
  if (waitsForNext === request) machine.receive([MESSAGE.ran(request + 1)]);
  else if (waitsForNext === request - 1) machine.post(MESSAGE.ran(request));
  words[responseWord(ring, slot)] = responseOf(request);
  words[slotAt(layout, slot) + SLOT.STATUS] = STATUS.OK;
}

type Ring = Pick<RingProducer, 'layout'>;
const requestWord = ({ layout }: Ring, slot: number) => requestRoomAt(layout, slot) / 4;
const responseWord = (ring: Ring, slot: number) => requestWord(ring, slot) + ROOM_BYTES / 4;
