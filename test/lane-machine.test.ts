/**
 * The lane machine in every order of events, for fleets of several shapes: what must hold holds
 * after each step, and from every state there is a way back to a version that serves.
 *
 * How many lanes were lost in a row is counted only as far as it decides anything, so that the
 * states are finite.
 */

import { AssertionError, strict as assert } from 'node:assert';
import test from 'ava';
import {
  countLanes,
  type Effect,
  type Fleet,
  type FleetEvent,
  type FleetLimits,
  type FleetTimer,
  type Lane,
  newFleet,
  type Step,
  step,
  timersOf,
} from '../src/lane-machine.js';
import { type Change, changed, compiledSource, runModule } from './support/compiled.js';

const machine = { newFleet, step, timersOf, countLanes };

type Machine = typeof machine;

const base: FleetLimits = {
  threads: 1,
  maxStuckLanes: 1,
  places: 2,
  crashLoopAfter: 2,
  killable: false,
  loadTimeoutMs: 1000,
  recycleAfterMs: Number.POSITIVE_INFINITY,
};

/**
 * The largest shape has some 400,000 states: those are explored that take the fewest events to
 * reach.
 */
const MOST_STATES = 10_000;

/** Small ones first, which notice most mistakes soonest. */
const shapes: Record<string, FleetLimits> = {
  'one thread': base,
  'one thread, no replacements': { ...base, maxStuckLanes: 0, places: 1 },
  'one thread that is recycled': { ...base, maxStuckLanes: 0, recycleAfterMs: 5000 },
  'one thread that is recycled, or replaced': { ...base, places: 3, recycleAfterMs: 5000 },
  'one process': { ...base, killable: true },
  'one process, no replacements': {
    ...base,
    maxStuckLanes: 0,
    places: 1,
    crashLoopAfter: 4,
    killable: true,
  },
  'one process that is recycled': {
    ...base,
    maxStuckLanes: 0,
    killable: true,
    recycleAfterMs: 5000,
  },
  'two processes': { ...base, threads: 2, maxStuckLanes: 0, crashLoopAfter: 1, killable: true },
  'two threads that are recycled': {
    ...base,
    threads: 2,
    maxStuckLanes: 0,
    places: 3,
    crashLoopAfter: 2,
    recycleAfterMs: 5000,
  },
};

/** A fleet, and what its supervisor has to answer before anything else happens. */
interface Scene {
  readonly fleet: Fleet;
  readonly questions: readonly Effect[];
  /** Answers that have been given and that the machine has not heard yet. */
  readonly heard: readonly FleetEvent[];
  readonly timers: ReadonlySet<string>;
}

const key = (timer: FleetTimer) => JSON.stringify(timer);

function begin({ newFleet, step }: Machine, limits: FleetLimits): Scene {
  let fleet = newFleet(limits);
  for (let lane = 0; lane < limits.threads; lane++)
    fleet = step(fleet, { type: 'open', lane }).fleet;
  for (let lane = 0; lane < limits.threads; lane++) {
    fleet = step(fleet, { type: 'ready', lane }).fleet;
  }
  const timers = new Set<string>();
  if (limits.recycleAfterMs !== Number.POSITIVE_INFINITY) {
    for (let lane = 0; lane < limits.threads; lane++) timers.add(key({ purpose: 'age', lane }));
  }
  return { fleet: step(fleet, { type: 'loaded' }).fleet, questions: [], heard: [], timers };
}

/** The scene after an event, with what must hold checked. */
function after(it: Machine, scene: Scene, event: FleetEvent): Scene {
  const { fleet, effects } = it.step(scene.fleet, event);
  const timers = new Set(scene.timers);
  if (event.type === 'due') timers.delete(key(event.timer));
  const questions = [...scene.questions];
  for (const effect of effects) {
    if (effect.do === 'setTimer') {
      assert(effect.delayMs > 0, 'a pause takes time');
      timers.add(key(effect.timer));
    } else if (effect.do === 'clearTimer') timers.delete(key(effect.timer));
    else if (effect.do === 'kill' || effect.do === 'checkCall' || effect.do === 'reap') {
      questions.push(effect);
    }
  }
  const aging = [...timers].filter((timer) => timer.includes('"age"'));
  const wanted = it.timersOf(fleet).map(key);
  const running = [...timers].filter((timer) => !aging.includes(timer));
  assert.equal(`${running.sort()}`, `${wanted.sort()}`, 'the timers are those of the state');
  for (const timer of aging) {
    const { lane } = JSON.parse(timer) as { lane: number };
    assert(fleet.lanes[lane] != null, 'a lane that is gone grows no older');
  }
  checkStep(it, scene.fleet, event, { fleet, effects });
  return { ...scene, fleet, questions, timers };
}

/** What must hold between a state and the next. */
function checkStep(it: Machine, before: Fleet, event: FleetEvent, { fleet, effects }: Step): void {
  const serves = it.countLanes(fleet, 'serving') > 0;
  const wasDead = event.type === 'reaped' ? before.lanes[event.lane] : null;
  const startFailed =
    (wasDead?.state === 'dead' && wasDead.loss === 'start') ||
    (event.type === 'due' && event.timer.purpose === 'start');
  if (startFailed && serves && fleet.phase === 'serving') {
    assert(
      before.refusal !== null || fleet.refusal === null,
      'a start that failed refuses requests while others serve',
    );
    const started = effects.filter((effect) => effect.do === 'start');
    assert.equal(started.length, 0, 'a start that failed is tried again without a pause');
  }
  if (event.type === 'ended') {
    assert.equal(fleet.lanes[event.lane]?.state, 'dead', 'a dead lane is dead at once');
  }
  for (const effect of effects) {
    if (effect.do === 'report' && effect.report.what === 'laneRecycled') {
      assert.equal(fleet.lanes[effect.report.by]?.state, 'serving', 'recycled by one that serves');
    }
    if (effect.do === 'start') {
      assert.equal(fleet.phase, 'serving', 'a lane starts while the version stops');
      const lane = fleet.lanes[effect.lane];
      const surplus = lane?.state === 'starting' && lane.replaces?.why === 'worn' ? 1 : 0;
      const { threads, maxStuckLanes } = fleet.limits;
      const there = it.countLanes(fleet, 'starting', 'serving', 'stuck');
      assert(there <= threads + maxStuckLanes + surplus, 'more lanes than allowed');
    }
    if (effect.do === 'report' && effect.report.what === 'crashLoop') {
      const good = ['ready', 'callReturned', 'answered', 'worn'];
      assert(!good.includes(event.type), `a crash loop because of ${event.type}`);
    }
  }
}

/** What may happen next, by name. */
function choices(it: Machine, scene: Scene): [string, Scene][] {
  const { heard, questions } = scene;
  const [first, ...later] = heard;
  if (first !== undefined) {
    return [[`hears ${first.type}`, after(it, { ...scene, heard: later }, first)]];
  }
  const [question, ...others] = questions;
  if (question !== undefined) {
    return answersTo(question).map((answer): [string, Scene] => [
      `${question.do}: ${answer.map(({ type }) => type).join()}`,
      { ...scene, questions: others, heard: answer },
    ]);
  }
  return eventsFor(it, scene).map((event): [string, Scene] => [
    JSON.stringify(event),
    after(it, scene, event),
  ]);
}

/**
 * What the supervisor may say to an effect that asks it something, in the order in which it says
 * it.
 */
function answersTo(question: Effect): FleetEvent[][] {
  switch (question.do) {
    case 'kill':
      return [[], [{ type: 'killFailed', lane: question.lane }]];
    case 'checkCall': {
      const { lane } = question;
      return [true, false].map((running) => [{ type: 'callChecked', lane, running }]);
    }
    case 'reap': {
      const { lane } = question;
      const [returned, answered]: FleetEvent[] = [
        { type: 'callReturned', lane },
        { type: 'answered' },
      ];
      const before = [[], [answered], [answered, returned], [returned]] as FleetEvent[][];
      return [false, true].flatMap((inCall) =>
        before.map((events) => [...events, { type: 'reaped', lane, inCall } as const]),
      );
    }
    default:
      return [];
  }
}

function eventsFor(it: Machine, { fleet, timers }: Scene): FleetEvent[] {
  const events: FleetEvent[] = [];
  for (const [lane, now] of fleet.lanes.entries()) {
    if (now !== null) events.push(...laneEvents(fleet, lane, now));
  }
  for (const timer of timers) events.push({ type: 'due', timer: JSON.parse(timer) });
  if (it.countLanes(fleet, 'serving', 'leaving', 'stuck') > 0) events.push({ type: 'answered' });
  // A large fleet stops as a small one does.
  const small = fleet.lanes.length < 3;
  if (small && fleet.phase === 'serving') events.push({ type: 'stop' }, { type: 'killAll' });
  return events;
}

function laneEvents({ limits, phase }: Fleet, lane: number, now: Lane): FleetEvent[] {
  const died: FleetEvent = { type: 'ended', lane, by: 'died' };
  const left: FleetEvent = { type: 'ended', lane, by: 'left' };
  switch (now.state) {
    case 'starting':
      return [{ type: 'ready', lane }, left, died];
    case 'serving': {
      const events: FleetEvent[] = [{ type: 'callStuck', lane, slot: 0 }, died];
      const recycles = limits.places > limits.threads + limits.maxStuckLanes;
      if (recycles && now.worn === null) events.push({ type: 'worn', lane, reason: 'requests' });
      if (phase === 'stopping') events.push(left);
      return events;
    }
    case 'stuck':
      if (now.in === 'load') return [{ type: 'ready', lane }, left, died];
      return [{ type: 'callReturned', lane }, died];
    case 'leaving':
      return [{ type: 'callStuck', lane, slot: 0 }, left, died];
    case 'killed':
      // It may have become ready just before.
      return [{ type: 'ready', lane }, left, died];
    default:
      return [];
  }
}

/**
 * All that decides what can happen from here. Which lane is which does not, nor why one is worn.
 */
function fingerprint(scene: Scene): string {
  const [asItIs = [], ...others] = permutations(scene.fleet.lanes.length);
  const text = described(scene, asItIs);
  let print = fingerprints.get(text);
  if (print === undefined) {
    print = [text, ...others.map((places) => described(scene, places))].sort()[0] as string;
    fingerprints.set(text, print);
  }
  return print;
}

/** Of scenes as they are. The same ones are come to again and again. */
const fingerprints = new Map<string, string>();

const permutationsOf = new Map<number, number[][]>();

function permutations(count: number): number[][] {
  let all = permutationsOf.get(count);
  if (all === undefined) {
    all = count === 0 ? [[]] : permutations(count - 1).flatMap((shorter) => insertions(shorter));
    permutationsOf.set(count, all);
  }
  return all;
}

/** The one that changes nothing comes first if it does in the shorter ones. */
function insertions(shorter: number[]): number[][] {
  const last = shorter.length;
  return Array.from({ length: last + 1 }, (_, before) => shorter.toSpliced(last - before, 0, last));
}

/** The scene as it would be if each lane were at the place that `places` has for it. */
function described({ fleet, questions, heard, timers }: Scene, places: readonly number[]): string {
  const { limits, lanes, circuit, spares, refusal, owed, phase } = fleet;
  const placed: string[] = [];
  for (const [index, lane] of lanes.entries()) {
    placed[places[index] as number] = lane === null ? '' : describedLane(lane, places);
  }
  const moved = (things: readonly object[]) => {
    if (things.length === 0) return '';
    const move = (name: string, value: unknown) =>
      name === 'lane' ? places[value as number] : value;
    return JSON.stringify(things, move);
  };
  const running = [...timers].map((timer) => timer.replace(/\d/, (lane) => `${places[+lane]}`));
  return [
    phase,
    ...placed,
    circuit.state,
    Math.min(circuit.lostInRow, limits.crashLoopAfter + 1),
    circuit.state === 'half-open' ? places[circuit.probe] : '',
    spares.state,
    Math.min(spares.failures, 1),
    refusal?.why,
    owed.map((lane) => places[lane]),
    moved(questions),
    moved(heard),
    running.sort(),
  ].join(' ');
}

function describedLane(lane: Lane, places: readonly number[]): string {
  switch (lane.state) {
    case 'starting':
      return lane.replaces === null
        ? 'starting'
        : `for ${lane.replaces.why} ${places[lane.replaces.lane]}`;
    case 'serving':
      return `serving ${lane.worn !== null}`;
    case 'stuck':
      return `stuck ${lane.in} ${lane.worn !== null} ${lane.barred}`;
    case 'leaving':
      return `leaving ${lane.hurried}`;
    case 'killed':
      return 'killed';
    case 'dead':
      return `dead ${lane.expected} ${lane.loss}`;
  }
}

/** Whether the version comes to serve if from now on everything goes well. */
function recovers(it: Machine, scene: Scene, known: Set<string>): boolean {
  let now = scene;
  const way: string[] = [];
  for (let count = 0; count < 100; count++) {
    const { fleet, questions, heard, timers } = now;
    const idle = questions.length === 0 && heard.length === 0;
    const here = fingerprint(now);
    way.push(here);
    const serves = idle && fleet.refusal === null && it.countLanes(fleet, 'serving') > 0;
    if (serves || known.has(here)) {
      for (const state of way) known.add(state);
      return true;
    }
    const wish = idle ? kindest(fleet, timers) : null;
    if (wish !== null) now = after(it, now, wish);
    else if (idle) return false;
    // The first answer to every question is the best one, but for a call that is asked about.
    else now = (choices(it, now).at(0) as [string, Scene])[1];
  }
  return false;
}

/** The best that can happen by itself, within a bounded time unless a call of the handler hangs. */
function kindest({ lanes }: Fleet, timers: ReadonlySet<string>): FleetEvent | null {
  const find = (state: Lane['state']) => lanes.findIndex((lane) => lane?.state === state);
  const [starting, killed, leaving] = [find('starting'), find('killed'), find('leaving')];
  if (starting !== -1) return { type: 'ready', lane: starting };
  if (killed !== -1) return { type: 'ended', lane: killed, by: 'died' };
  const hurried = lanes.findIndex((lane) => lane?.state === 'leaving' && lane.hurried);
  if (hurried !== -1) return { type: 'ended', lane: hurried, by: 'left' };
  for (const timer of timers) {
    if (!timer.includes('"age"')) return { type: 'due', timer: JSON.parse(timer) };
  }
  const stuck = find('stuck');
  if (stuck !== -1) {
    const lane = lanes[stuck];
    if (lane?.state === 'stuck' && lane.in === 'load') return { type: 'ready', lane: stuck };
    return { type: 'callReturned', lane: stuck };
  }
  if (leaving !== -1) return { type: 'ended', lane: leaving, by: 'left' };
  return null;
}

function explore(it: Machine, limits: FleetLimits): string {
  const first = begin(it, limits);
  const cameFrom = new Map<string, { before: string | null; by: string }>();
  cameFrom.set(fingerprint(first), { before: null, by: 'begin' });
  const left: Scene[] = [first];
  const known = new Set<string>();
  let steps = 0;
  const way = (at: string | null): string[] => {
    const names: string[] = [];
    for (let now = at; now !== null; ) {
      const came = cameFrom.get(now);
      if (came === undefined) break;
      names.unshift(came.by);
      now = came.before;
    }
    return names;
  };
  for (let scene = left.shift(); scene !== undefined; scene = left.shift()) {
    const here = fingerprint(scene);
    try {
      if (scene.fleet.phase === 'serving')
        assert(recovers(it, scene, known), 'there is no way back');
      for (const [by, next] of choices(it, scene)) {
        steps += 1;
        const there = fingerprint(next);
        if (cameFrom.has(there)) continue;
        if (cameFrom.size >= MOST_STATES) continue;
        cameFrom.set(there, { before: here, by });
        left.push(next);
      }
    } catch (error) {
      const text = `${(error as Error).message}\n  after: ${way(here).join('\n         ')}\n  in: ${here}`;
      throw new Error(text, { cause: error });
    }
  }
  return `${cameFrom.size} states, ${steps} steps`;
}

for (const [name, limits] of Object.entries(shapes)) {
  test(`every order of events: ${name}`, (t) => {
    t.log(explore(machine, limits));
    t.pass();
  });
}

// ---- Pauses ------------------------------------------------------------------------------------

/** Has the first lane that is in `state` die, and returns the pauses that begin with it. */
function pausesAfterDeath(scene: { fleet: Fleet }, state: Lane['state']): number[] {
  const lane = scene.fleet.lanes.findIndex((now) => now?.state === state);
  const pauses: number[] = [];
  const say = (event: FleetEvent) => {
    const { fleet, effects } = machine.step(scene.fleet, event);
    scene.fleet = fleet;
    for (const effect of effects) {
      if (effect.do !== 'setTimer' || 'lane' in effect.timer) continue;
      pauses.push(effect.delayMs);
      scene.fleet = machine.step(scene.fleet, { type: 'due', timer: effect.timer }).fleet;
    }
  };
  say({ type: 'ended', lane, by: 'died' });
  say({ type: 'reaped', lane, inCall: true });
  return pauses;
}

test('the first lost lane is replaced at once, then it takes twice as long each time, up to a limit', (t) => {
  const scene = { fleet: begin(machine, { ...base, crashLoopAfter: 1000 }).fleet };
  const first = pausesAfterDeath(scene, 'serving');
  const later = Array.from({ length: 9 }, () => pausesAfterDeath(scene, 'starting')).flat();
  t.deepEqual(first, []);
  t.deepEqual(later, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  t.is(scene.fleet.refusal, null);
});

test('an answer in between begins anew', (t) => {
  const scene = { fleet: begin(machine, { ...base, crashLoopAfter: 2 }).fleet };
  for (let round = 0; round < 10; round++) {
    scene.fleet = machine.step(scene.fleet, { type: 'answered' }).fleet;
    t.deepEqual(pausesAfterDeath(scene, 'serving'), []);
    const lane = scene.fleet.lanes.findIndex((now) => now?.state === 'starting');
    scene.fleet = machine.step(scene.fleet, { type: 'ready', lane }).fleet;
    t.deepEqual(scene.fleet.circuit, { state: 'closed', lostInRow: 1 });
  }
});

test('the replacement of a worn lane that fails to start is tried again, with growing pauses', (t) => {
  const recycling = { ...base, places: 3, recycleAfterMs: 5000 };
  const scene = { fleet: begin(machine, recycling).fleet };
  scene.fleet = machine.step(scene.fleet, { type: 'worn', lane: 0, reason: 'age' }).fleet;
  const pauses = Array.from({ length: 9 }, () => {
    // Requests are answered all the time, which changes nothing about it.
    scene.fleet = machine.step(scene.fleet, { type: 'answered' }).fleet;
    return pausesAfterDeath(scene, 'starting');
  });
  t.deepEqual(pauses.flat(), [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  t.is(scene.fleet.refusal, null);
  t.deepEqual(scene.fleet.lanes[0], { state: 'serving', worn: 'age' });
});

// ---- Mistakes ----------------------------------------------------------------------------------

const source = compiledSource('lane-machine.js');

const mutations: Record<string, Change> = {
  'a half-open circuit goes on without its probe': {
    from: `if (circuit.state === 'half-open' && this.#lanes[circuit.probe]?.state !== 'serving')`,
    to: `if (false)`,
  },
  'a circuit that opens sets no timer': {
    from: `this.#set({ purpose: 'retry' }, retryMs);`,
    to: ``,
  },
  'a start that fails opens the circuit while others serve': {
    from: `if (what === 'service' || this.#count('serving') === 0)`,
    to: `if (true)`,
  },
  'a start that fails is tried again at once': {
    from: `if (this.spares.state === 'pausing')
                return false;
            if`,
    to: `if`,
  },
  'a worn lane is replaced without a pause': {
    from: `|| this.spares.state !== 'steady')`,
    to: `)`,
  },
  'a lane that has ended goes on serving until it is reaped': {
    from: `this.#lanes[place] = { state: 'dead', expected, loss: lossOf(lane, by) };`,
    to: ``,
  },
  'a thread that hangs in its load is waited for': {
    from: `this.#becomeStuck(place, { in: 'load', worn: null, barred: false });`,
    to: `return;`,
  },
  'a killed lane is waited for without a limit': {
    from: `this.#owe(place);
        this.#setEnd(place);`,
    to: `this.#owe(place);`,
  },
  'a lane that cannot be killed counts as killed': {
    from: `if (this.#lanes[place]?.state !== 'killed')
            return;`,
    to: `return;`,
  },
  'stuck lanes do not refuse': {
    from: `return stuckLanes > 0 ? { why: 'stuck', stuckLanes } : null;`,
    to: `return null;`,
  },
  'a killed lane that ends refuses until it is gone': {
    from: `this.#count('serving', 'starting', 'killed') > 0`,
    to: `this.#count('serving', 'starting') > 0`,
  },
  'the last lane that serves leaves because it is worn': {
    from: `else if (this.#count('serving') > 1)`,
    to: `else`,
  },
  'a worn probe that is dismissed takes the circuit along': {
    from: `circuit.probe === tired.place`,
    to: `false`,
  },
  'lanes are started while the version stops': {
    from: `if (this.phase === 'serving' && this.#count('dead') === 0)`,
    to: `if (this.#count('dead') === 0)`,
  },
  'a probe that is not there is not started': {
    from: `(this.#circuit.state === 'probing' && starting === 0)`,
    to: `false`,
  },
  'what is stuck does not count': {
    from: `const present = this.#count('starting', 'serving', 'stuck', 'killed');`,
    to: `const present = this.#count('starting', 'serving');`,
  },
  'a pause between lost lanes never ends': {
    from: `this.#set({ purpose: 'retry' }, delayMs);`,
    to: ``,
  },
};

for (const [name, change] of Object.entries(mutations)) {
  test(`noticed: ${name}`, (t) => {
    const mistaken = runModule(changed(source, change), {
      globals: {},
      modules: { 'node:assert': { strict: assert } },
    }) as unknown as Machine;
    for (const [shape, limits] of Object.entries(shapes)) {
      try {
        explore(mistaken, limits);
      } catch (error) {
        const { cause, message } = error as Error;
        // A change that breaks the module notices nothing.
        if (!(cause instanceof AssertionError)) throw error;
        t.log(`${shape}: ${message.split('\n')[0]}`);
        return t.pass();
      }
    }
    return t.fail('nobody noticed');
  });
}
