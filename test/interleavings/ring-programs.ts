/** Short scripts for a ring with two lanes, and what must hold in every state and at every end of them. */

import {
  CONTROL,
  LANE,
  LEDGER_ONE,
  laneAt,
  ringLayout,
  SLOT,
  STATE,
  slotAt,
} from '../../src/ring/layout.js';
import type { Program, View } from './explore.js';
import { Machine } from './machine.js';
import { type Mutation, ringClasses } from './ring-source.js';
import {
  type HostCommand,
  type HostMemory,
  hostThread,
  type LaneMemory,
  laneThread,
  MESSAGE,
} from './ring-threads.js';

export interface RingScript {
  readonly name: string;
  readonly host: readonly HostCommand[];
  /** Default: 2. */
  readonly limit?: number;
  /** Lanes that may die in all. Default: 0. */
  readonly deaths?: number;
  /** Which lanes may. Default: both. */
  readonly mortal?: readonly number[];
  /** Whether lanes that died are replaced. Default: yes. */
  readonly replacesDead?: boolean;
  /** Which lanes look for work before they sleep, to begin with. Default: none. */
  readonly watching?: readonly number[];
  /** A request that returns only once the one after it has run: nobody may wait behind it while a lane is idle. */
  readonly waitsForNext?: number;
  /** Whether it takes long, and is only explored with `CHANGEOVER_THOROUGH=1`. Default: no. */
  readonly thorough?: boolean;
  /** Whether data races are left to be found by smaller scripts. Default: no. */
  readonly large?: boolean;
  /** Requests ever submitted before, modulo 2^32. */
  readonly count?: number;
}

const LANES = 2;
const layout = ringLayout({ slots: 32, lanes: LANES });

export const ringScripts: readonly RingScript[] = [
  { name: 'one request', host: [{ submit: 0 }, 'settle'] },
  { name: 'one given up', host: [{ submit: 0 }, { giveUp: 0 }, 'settle'] },
  { name: 'looked for unasked', host: [{ submit: 0 }, 'collect', 'settle'] },
  {
    name: 'looked for with the doorbell silent',
    host: [{ submit: 0 }, 'hush', 'collect', 'settle'],
  },
  { name: 'a closed ledger', host: [{ submit: 0 }, 'closeLedger', 'settle', 'stop', 'join'] },
  { name: 'stopped after an answer', host: [{ submit: 0 }, 'settle', 'stop', 'join'] },
  {
    name: 'stopped after giving up',
    host: [{ submit: 0 }, { giveUp: 0 }, 'settle', 'stop', 'join'],
  },
  { name: 'mail', host: ['mail', { submit: 0 }, 'mail', 'settle'] },
  { name: 'one request, a lane watches', host: [{ submit: 0 }, 'settle'], watching: [0] },
  { name: 'a lane dies', host: [{ submit: 0 }, 'settle'], deaths: 1 },
  { name: 'a lane dies, one given up', host: [{ submit: 0 }, { giveUp: 0 }, 'settle'], deaths: 1 },
  {
    name: 'both lanes die',
    host: [{ submit: 0 }, 'settle'],
    deaths: 2,
    thorough: true,
    large: true,
  },
  {
    name: 'a watching lane dies',
    host: [{ submit: 0 }, 'settle'],
    deaths: 1,
    mortal: [1],
    watching: [1],
    replacesDead: false,
  },
  { name: 'two requests', host: [{ submit: 0 }, { submit: 1 }, 'settle'], large: true },
  {
    name: 'two requests, the first waits for the second',
    host: [{ submit: 0 }, { submit: 1 }, 'settle'],
    waitsForNext: 0,
    large: true,
  },
  {
    name: 'the second of two given up',
    host: [{ submit: 0 }, { submit: 1 }, { giveUp: 1 }, 'settle'],
    thorough: true,
    large: true,
  },
  {
    name: 'given up, and its slot used again',
    host: [{ submit: 0 }, { giveUp: 0 }, { submit: 1 }, 'settle'],
    limit: 1,
    large: true,
  },
  {
    name: 'round the queue, past the end of the count',
    host: [{ submit: 0 }, { submit: 1 }, { submit: 2 }, 'settle'],
    limit: 1,
    count: 2 ** 31 - 1,
    thorough: true,
    large: true,
  },
  {
    name: 'a lane dismissed',
    host: [{ submit: 0 }, { dismiss: 0 }, { submit: 1 }, 'settle'],
    large: true,
  },
  {
    name: 'a watching lane dismissed',
    host: [{ submit: 0 }, { dismiss: 0 }, 'settle'],
    watching: [0],
    large: true,
  },
  {
    name: 'a lane dies and is not replaced',
    host: [{ submit: 0 }, { submit: 1 }, 'settle'],
    deaths: 1,
    mortal: [1],
    replacesDead: false,
    thorough: true,
    large: true,
  },
  {
    name: 'a lane dies, its slot is used again',
    host: [{ submit: 0 }, { submit: 1 }, 'settle'],
    deaths: 1,
    mortal: [1],
    limit: 1,
    thorough: true,
    large: true,
  },
];

export function ringProgram(script: RingScript, mutation?: Mutation): Program {
  const { limit = 2, watching = [], mortal = [0, 1] } = script;
  const machine = new Machine(nameOf);
  const classes = ringClasses(machine, 2 * limit, mutation);
  const scene = { machine, classes, lanes: LANES, limit, waitsForNext: script.waitsForNext };
  const count = script.count ?? 0;
  return {
    name: script.name,
    machine,
    threads: [
      hostThread(scene, script.host, script.replacesDead ?? true),
      ...Array.from({ length: LANES }, (_, lane) =>
        laneThread(scene, lane, {
          watches: watching.includes(lane),
          mortal: mortal.includes(lane),
        }),
      ),
    ] as Program['threads'],
    memory: new Map([
      [CONTROL.HEAD, count],
      [CONTROL.TAIL, count],
    ]),
    deaths: script.deaths ?? 0,
    plainIsPrivate: script.large ?? false,
    always: checkRunning,
    atEnd: (view) => checkEnd(view, script, limit),
  };
}

const laneOf = (view: View, lane: number) => view.local(1 + lane) as LaneMemory | null;
const inFlight = (view: View) => Math.floor(view.word(CONTROL.LEDGER) / LEDGER_ONE);

/** What runs is in flight, and no slot is in two places. */
function checkRunning(view: View): void {
  const running: number[] = [];
  for (let lane = 0; lane < LANES; lane++) {
    const own = laneOf(view, lane);
    if (own?.phase === 'serve') running.push(own.slot);
  }
  if (running.length > inFlight(view))
    throw new Error(`${running.length} run, ${inFlight(view)} in flight`);
  if (new Set(running).size < running.length) throw new Error(`slot ${running[0]} runs twice`);
}

/** Nothing more can happen: everything has been answered, everything is free, and whoever sleeps has nothing to do. */
function checkEnd(view: View, { host }: RingScript, limit: number): void {
  const own = view.local(0) as HostMemory | null;
  if (own !== null) {
    throw new Error(`deadlock: the host waits at '${JSON.stringify(host[own.step])}' for ever`);
  }
  const expect = (what: string, is: unknown, wanted: unknown) => {
    if (is !== wanted) throw new Error(`at the end ${what} is ${is}, not ${wanted}`);
  };
  expect('in flight', inFlight(view), 0);
  expect('the queue', view.word(CONTROL.TAIL) - view.word(CONTROL.HEAD), 0);
  expect('the bitmap', view.word(layout.bitmapWords), 0);
  for (let slot = 0; slot < limit; slot++) {
    expect(`slot ${slot}`, view.word(slotAt(layout, slot) + SLOT.STATE), STATE.FREE);
  }
  for (let lane = 0; lane < LANES; lane++) {
    const lanes = laneOf(view, lane);
    if (lanes === null) continue;
    const dismissed = view.word(laneAt(layout, lane) + LANE.DISMISSED) !== 0;
    expect(`lane ${lane} dismissed and asleep`, dismissed, false);
    expect(`mail read by lane ${lane}`, lanes.mailRead, view.word(CONTROL.MAIL));
  }
}

/** Names of words, for traces. */
function nameOf(address: number): string {
  for (const [name, at] of Object.entries(CONTROL)) if (at === address) return name;
  for (let lane = 0; lane < LANES; lane++) {
    for (const [name, at] of Object.entries(LANE)) {
      if (laneAt(layout, lane) + at === address) return `lane ${lane}.${name}`;
    }
    for (const kind of ['bell', 'died', 'left'] as const) {
      if (MESSAGE[kind](lane) === address) return `${kind} ${lane}`;
    }
  }
  for (let slot = 0; slot < 2; slot++) {
    for (const [name, at] of Object.entries(SLOT)) {
      if (slotAt(layout, slot) + at === address) return `slot ${slot}.${name}`;
    }
  }
  if (address === layout.bitmapWords) return 'bitmap';
  if (address >= layout.queueWords && address < layout.slotWords)
    return `queue ${address - layout.queueWords}`;
  return String(address);
}
