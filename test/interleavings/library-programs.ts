/**
 * Two lanes that load, initialise, use, shut down and unload one library, as `workers/lane.ts` does, while the host stops them or
 * the process ends.
 */

import {
  CONTROL,
  holdersIn,
  LANE,
  LIBRARY,
  laneAt,
  libraryIn,
  ringLayout,
} from '../../src/ring/layout.js';
import type { Program, Thread, View } from './explore.js';
import { type Access, Machine } from './machine.js';
import { type Mutation, type RingClasses, ringClasses } from './ring-source.js';

type LaneRing = RingClasses['RingConsumer']['prototype'];
type HostRing = RingClasses['RingProducer']['prototype'];

/** What becomes of the lanes at any moment. */
export type Ending = 'stop' | 'exit' | 'dismissal' | 'dismissal and exit' | 'death in handler_init';

export const endings: readonly Ending[] = [
  'stop',
  'exit',
  'dismissal',
  'dismissal and exit',
  'death in handler_init',
];

const LANES = 2;
const SHAPE = { slots: 32, lanes: LANES };
const layout = ringLayout(SHAPE);

/** Words that stand for the library and what is done with it. */
const WORLD = {
  /** Calls of handler_init less calls of handler_shutdown. */
  initialised: -1,
  /** Calls of either that are going on. */
  busy: -2,
  died: (lane: number) => -3 - 8 * lane,
  left: (lane: number) => -4 - 8 * lane,
  ready: (lane: number) => -6 - 8 * lane,
  /** 1 while the lane is inside koffi. */
  inside: (lane: number) => -5 - 8 * lane,
} as const;

const PHASES = ['enter', 'hold', 'initialise', 'use', 'leave', 'letGo', 'shutDown', 'out'] as const;
interface LaneMemory {
  phase: (typeof PHASES)[number] | 'end';
}

export function libraryProgram(ending: Ending, mutation?: Mutation): Program {
  const machine = new Machine();
  const classes = ringClasses(machine, 4, mutation);
  const lanes = Array.from({ length: LANES }, (_, lane) => {
    const ring = new classes.RingConsumer(null as never, SHAPE, lane, () => undefined);
    return laneThread(machine, ring, lane, ending === 'death in handler_init');
  });
  const host = hostThread(machine, new classes.RingProducer(SHAPE), ending);
  return {
    name: `a library, and then ${ending}`,
    machine,
    threads: [host, ...lanes] as Program['threads'],
    memory: new Map(
      Array.from({ length: LANES }, (_, lane) => [laneAt(layout, lane) + LANE.CRITICAL, 1]),
    ),
    deaths: ending === 'death in handler_init' ? 1 : 0,
    atEnd: (view) => checkEnd(view, ending),
  };
}

interface HostMemory {
  step: number;
  /** Lanes that have left or died. */
  gone: number;
}

function hostThread(machine: Machine, ring: HostRing, ending: Ending): Thread<HostMemory> {
  machine.shortTimes = false;
  const exit = (own: HostMemory): HostMemory | null => {
    own.step += 1;
    // A lane is only dismissed when there is another.
    if (own.step <= 2 && ending === 'exit') return own;
    if (own.step === 1) machine.receive([WORLD.ready(1)]);
    else if (own.step === 2) ring.dismiss(0);
    else if (own.step === 3) ring.freeze();
    else if (own.step === 4) ring.awaitFrozen(1000);
    else {
      // Here the process ends its threads.
      for (let lane = 0; lane < LANES; lane++) {
        if (machine.fetchAdd(WORLD.inside(lane), 0) !== 0) throw new Error('ended inside koffi');
      }
      return null;
    }
    return own;
  };
  const stop = (own: HostMemory): HostMemory | null => {
    own.step = 1;
    ring.stop();
    return own;
  };
  const wait = (own: HostMemory): HostMemory | null => {
    if (own.gone === LANES) return null;
    const lanes = Array.from({ length: LANES }, (_, lane) => lane);
    const messages = [WORLD.left, WORLD.died, WORLD.ready];
    const which = machine.receive(messages.flatMap((message) => lanes.map(message)));
    const message = messages[Math.floor(which / LANES)];
    if (message !== WORLD.ready) own.gone += 1;
    if (message === WORLD.died) ring.bury(which % LANES);
    return own;
  };
  /** One lane leaves while the other loads or serves; then that one is stopped. */
  const dismissal = (own: HostMemory): HostMemory | null => {
    own.step += 1;
    if (own.step === 1) machine.receive([WORLD.ready(0)]);
    else if (own.step === 2) ring.dismiss(0);
    else if (own.step === 3) {
      machine.receive([WORLD.left(0)]);
      own.gone = 1;
    } else if (own.step === 4) machine.receive([WORLD.ready(1)]);
    else if (own.step === 5) ring.stop();
    else return wait(own);
    return own;
  };
  const command = (own: HostMemory): HostMemory | null => {
    if (ending === 'dismissal') return dismissal(own);
    if (ending === 'exit' || ending === 'dismissal and exit') return exit(own);
    // Without a reason to stop them, they are stopped at the first message: one is ready or one has died.
    if (own.step === 0 && ending === 'stop') return stop(own);
    if (own.step === 0) {
      own.step = 2;
      return wait(own);
    }
    return own.step === 2 ? stop(own) : wait(own);
  };
  return { name: 'host', initial: { step: 0, gone: 0 }, command };
}

function laneThread(
  machine: Machine,
  ring: LaneRing,
  lane: number,
  mortal: boolean,
): Thread<LaneMemory> {
  return {
    name: `lane ${lane}`,
    initial: { phase: 'enter' },
    deathAt: WORLD.died(lane),
    command(own) {
      if (own.phase === 'end') return null;
      own.phase = next(machine, ring, lane, own.phase, mortal);
      return own;
    },
    mayDie: ({ phase }, past) => mortal && phase === 'initialise' && isInside(past),
  };
}

function next(
  machine: Machine,
  ring: LaneRing,
  lane: number,
  phase: (typeof PHASES)[number],
  mortal: boolean,
): LaneMemory['phase'] {
  const inside = (value: number) => machine.fetchAdd(WORLD.inside(lane), value);
  switch (phase) {
    case 'enter':
      ring.enterCritical();
      inside(1);
      return 'hold';
    case 'hold':
      ring.hold();
      return 'initialise';
    case 'initialise': {
      const initialise = () => {
        // If a lane has died in here and nobody else held the library, it is another one now.
        if (mortal) machine.fetchAdd(WORLD.initialised, 1);
        else alone(machine, () => machine.fetchAdd(WORLD.initialised, 1), 0);
        return true;
      };
      const wanted = !ring.leaving;
      const ready = wanted && ring.initialiseOnce(initialise);
      if (wanted && !ready && !mortal) throw new Error('it is initialised, and not ready');
      inside(-1);
      ring.leaveCritical();
      if (ready) machine.post(WORLD.ready(lane));
      return ready ? 'use' : 'leave';
    }
    case 'use':
      if (machine.fetchAdd(WORLD.initialised, 0) < 1) throw new Error('used, not initialised');
      if (!ring.leaving) ring.park(0);
      return ring.leaving ? 'leave' : 'use';
    case 'leave':
      ring.enterCritical();
      inside(1);
      return 'letGo';
    case 'letGo':
      return ring.letGo() ? 'shutDown' : 'out';
    case 'shutDown':
      if (!mortal) alone(machine, () => machine.fetchAdd(WORLD.initialised, -1), 1);
      ring.closed();
      return 'out';
    case 'out':
      inside(-1);
      ring.leaveCritical();
      machine.post(WORLD.left(lane));
      return 'end';
  }
}

/** Whether a lane is in handler_init: it has won, and has not said how it ended. */
function isInside(past: readonly Access[]): boolean {
  const changes = past.filter(
    ({ kind, result, expected }) => kind === 'compareExchange' && result === expected,
  );
  return changes.length === 1 && libraryIn(changes[0]?.value ?? 0) === LIBRARY.INITIALISING;
}

/** One call of handler_init or handler_shutdown, which no other may overlap. */
function alone(machine: Machine, call: () => number, before: number): void {
  if (machine.fetchAdd(WORLD.busy, 1) !== 0) throw new Error('init and shutdown overlap');
  if (call() !== before) throw new Error('initialised or shut down twice');
  machine.fetchAdd(WORLD.busy, -1);
}

function checkEnd(view: View, ending: Ending): void {
  if (view.local(0) !== null) throw new Error('deadlock: the host waits for ever');
  if (ending !== 'stop' && ending !== 'dismissal') return;
  const initialised = view.word(WORLD.initialised);
  if (initialised !== 0) throw new Error(`at the end initialised is ${initialised}`);
  const word = view.word(CONTROL.LIBRARY);
  if (holdersIn(word) !== 0) throw new Error(`at the end holders are ${holdersIn(word)}`);
  if (libraryIn(word) !== LIBRARY.NEW) throw new Error('the library is not new again');
}
