/**
 * The life of versions and of their lanes in every order of events: requests come and leave, lanes become ready, are refused, hang,
 * die, are killed and leave, callers give up, timers fire, and someone swaps, unloads and closes meanwhile.
 *
 * A path is a sequence of events from the start. Each new state's other events are tried in runs of their own, from
 * the start again; a state that was met before is not followed further.
 */

import { AssertionError } from 'node:assert';
import test from 'ava';
import { Code, type Mutation, type Scenario, settle, World } from './world.js';

/** Those with few states first, which notice most mistakes soonest. */
const all: readonly Scenario[] = [
  { name: 'an unload while a call hangs', operations: ['unload'], requests: 1, hangs: true },
  {
    name: 'a process that cannot be killed',
    operations: [],
    requests: 1,
    givesUp: true,
    isProcess: true,
    unkillable: true,
    maxStuckLanes: 1,
  },
  {
    name: 'a thread whose calls hang',
    operations: [],
    requests: 2,
    givesUp: true,
    hangs: true,
    maxStuckLanes: 1,
  },
  { name: 'an unload at once', operations: ['unload'], requests: 2 },
  { name: 'a swap that may fail', operations: ['swapGraceful'], requests: 1, failures: true },
  { name: 'an unload while a lane dies', operations: ['unload'], requests: 1, deaths: 1 },
  {
    name: 'two threads, of which one dies and does not come up again',
    operations: [],
    requests: 1,
    deaths: 1,
    refusals: 2,
    threads: 2,
    crashLoopAfter: 2,
  },
  {
    name: 'a process whose calls hang',
    operations: [],
    requests: 2,
    givesUp: true,
    hangs: true,
    deaths: 1,
    isProcess: true,
    crashLoopAfter: 1,
  },
  { name: 'a swap at once', operations: ['swap'], requests: 2 },
  { name: 'threads that die in a row', operations: [], requests: 2, deaths: 3, crashLoopAfter: 2 },
  { name: 'a graceful swap', operations: ['swapGraceful'], requests: 2 },
  {
    name: 'a process that dies while everything is closed',
    operations: ['close'],
    requests: 1,
    givesUp: true,
    deaths: 1,
    isProcess: true,
  },
  { name: 'a swap and an unload', operations: ['swapGraceful', 'unloadGraceful'], requests: 1 },
  { name: 'two swaps', operations: ['swapGraceful', 'swap'], requests: 1 },
  {
    name: 'a thread that grows old, with calls that are given up',
    operations: [],
    requests: 1,
    givesUp: true,
    refusals: 1,
    recycles: true,
  },
  {
    name: 'a process whose calls hang, and a swap',
    operations: ['swap'],
    requests: 1,
    hangs: true,
    givesUp: true,
    deaths: 1,
    isProcess: true,
  },
  { name: 'a swap, and closing', operations: ['swapGraceful', 'close'], requests: 1 },
  {
    name: 'a swap that may fail, and closing',
    operations: ['swap', 'close'],
    requests: 1,
    failures: true,
  },
  {
    name: 'a process that takes too long to come up or to end',
    operations: [],
    requests: 1,
    deaths: 2,
    slow: true,
    isProcess: true,
    maxStuckLanes: 1,
    crashLoopAfter: 2,
  },
  {
    name: 'a thread that takes too long to come up, and a swap',
    operations: ['swapGraceful'],
    requests: 0,
    deaths: 1,
    slow: true,
    maxStuckLanes: 1,
    crashLoopAfter: 1,
  },
  {
    name: 'a thread whose calls are given up',
    operations: [],
    requests: 2,
    givesUp: true,
    deaths: 1,
    maxStuckLanes: 1,
    crashLoopAfter: 1,
  },
  {
    name: 'two processes that die in a row',
    operations: [],
    requests: 1,
    deaths: 2,
    isProcess: true,
    threads: 2,
    crashLoopAfter: 2,
  },
  { name: 'a swap while a lane dies', operations: ['swapGraceful'], requests: 2, deaths: 1 },
];

/** Lanes can be processes only on Linux. */
const scenarios = all.filter(({ isProcess }) => !isProcess || process.platform === 'linux');

async function explore(scenario: Scenario, mutation?: Mutation): Promise<string> {
  const code = new Code(mutation);
  const seen = new Set<string>();
  const left: string[][] = [[]];
  let [paths, ends] = [0, 0];
  for (let path = left.pop(); path !== undefined; path = left.pop()) {
    paths += 1;
    const world = new World(scenario, code);
    await world.begin();
    const happened: string[] = [];
    try {
      for (;;) {
        const planned = path[happened.length];
        const events = world.events();
        if (planned === undefined) {
          const fingerprint = world.fingerprint();
          if (seen.has(fingerprint)) break;
          seen.add(fingerprint);
          if (events.length === 0) {
            world.checkEnd();
            ends += 1;
            break;
          }
          for (const { name } of events.slice(1)) left.push([...happened, name]);
        }
        const next =
          planned === undefined ? events[0] : events.find(({ name }) => name === planned);
        if (next === undefined) throw new Error(`'${planned}' cannot happen this time`);
        happened.push(next.name);
        next.happen();
        await settle();
        world.check(next.name);
      }
    } catch (error) {
      throw new Error(`${(error as Error).message}\n  after: ${happened.join(', ')}`, {
        cause: error,
      });
    }
  }
  return `${seen.size} states, ${paths} runs, ${ends} ends`;
}

for (const scenario of scenarios) {
  test(`every order of events: ${scenario.name}`, async (t) => {
    t.log(await explore(scenario));
    t.pass();
  });
}

// ---- Mistakes ------------------------------------------------------------------------------------------

const mutations: Record<string, Mutation> = {
  'a version is active before its lanes are ready': {
    module: 'version',
    from: `const { loadTimeoutMs } = this.options;
        try {`,
    to: `const { loadTimeoutMs } = this.options; return void (this.#state = step(this.#state, 'active'));
        try {`,
  },
  'a version drains without looking at what is in flight': {
    module: 'version',
    from: `if (this.#state !== 'draining' || !this.#dispatcher.idle)`,
    to: `if (this.#state !== 'draining')`,
  },
  'an idle version does not notice that it has drained': {
    module: 'version',
    from: `        this.#requestLeft();
        return settled;`,
    to: `        return settled;`,
  },
  'a report that came early comes again': {
    module: 'version',
    from: `if (drain.reported)
            return;`,
    to: ``,
  },
  'a report does not come while a call hangs': {
    module: 'version',
    from: `this.#settleReport(drain, 'resident', this.#whatRuns());`,
    to: ``,
  },
  'threads are ended before their lanes have left': {
    module: 'version',
    from: `await this.#lanes.stop();`,
    to: `void this.#lanes.stop();`,
  },
  'the copy is removed while its lanes are there': {
    module: 'version',
    from: `await this.#lanes.destroy();`,
    to: `void Promise.resolve().then(() => this.#lanes.destroy());`,
  },
  'the copy of a failed load stays': {
    module: 'version',
    from: `await this.#undo();`,
    to: ``,
  },
  'the thread that looks into libraries is kept for a version that is loaded': {
    module: 'endpoint',
    from: `letPrepareThreadEnd();`,
    to: ``,
  },
  'a graceful swap drops at once': {
    module: 'endpoint',
    from: `graceful ? (drainTimeoutMs ?? previous.options.drainTimeoutMs) : 0`,
    to: `0`,
  },
  'what becomes ready while it closes stays': {
    module: 'endpoint',
    from: `if (signal.aborted) {`,
    to: `if (false) {`,
  },
  'the old version retires before the new one is ready': {
    module: 'endpoint',
    from: `next = await this.#load(identity, path, rules, options, signal);`,
    to: `if (this.#active !== null) void this.#startDrain(this.#active, 'swap', 0);
            next = await this.#load(identity, path, rules, options, signal);`,
  },
  'the old version is forgotten and not drained': {
    module: 'endpoint',
    from: `result.drained = this.#startDrain(previous, 'swap',`,
    to: `result.drained = void (previous, 'swap',`,
  },
  'what a dead lane has completed is collected before it is dead': {
    module: 'lanes',
    from: `this.#hear({ type: 'ended', lane: index, by });`,
    to: `this.#parts.hooks.collect();
            this.#hear({ type: 'ended', lane: index, by });`,
  },
  'a dead lane is not reaped': {
    module: 'lanes',
    from: `this.#reap(effect.lane, effect.by);`,
    to: ``,
  },
  'the call of a dead lane is forgotten': {
    module: 'lanes',
    from: `const slot = this.#ring.bury(index);`,
    to: `const slot = NO_SLOT;`,
  },
  'a process that is to be killed is not': {
    module: 'lanes',
    from: `endLaneProcess(this.#ring, index);`,
    to: ``,
  },
  'that a process cannot be killed is not said': {
    module: 'lanes',
    from: `if (!this.#killProcess(effect.lane))
                    this.#hear({ type: 'killFailed', lane: effect.lane });`,
    to: `this.#killProcess(effect.lane);`,
  },
  'a timer fires and nobody hears of it': {
    module: 'lanes',
    from: `this.#hear({ type: 'due', timer });`,
    to: ``,
  },
  'a call is looked for in another slot': {
    module: 'lanes',
    from: `this.#hear({ type: 'callChecked', lane, running });`,
    to: `this.#hear({ type: 'callChecked', lane, running: !running });`,
  },
  'lanes are not waited for': {
    module: 'lanes',
    from: `await Promise.all(this.#present().map((lane) => lane.gone));`,
    to: ``,
  },
  'a call that goes on too long is not found': {
    module: 'dispatcher',
    from: `this.#hooks.callStuck(this.#ring.laneOf(pending.slot), pending.slot);`,
    to: `;`,
  },
  'nobody hears that a call has come back after all': {
    module: 'dispatcher',
    from: `this.#hooks.callReturned(this.#ring.laneOf(pending.slot));`,
    to: ``,
  },
  'the failure of a lane that others can do without refuses requests': {
    module: 'lane-machine',
    from: `if (what === 'service' || this.#count('serving') === 0)`,
    to: `if (true)`,
  },
  'nothing ends a refusal': {
    module: 'lane-machine',
    from: `this.#set({ purpose: 'retry' }, retryMs);`,
    to: ``,
  },
  'a half-open circuit goes on without its lane': {
    module: 'lane-machine',
    from: `if (circuit.state === 'half-open' && this.#lanes[circuit.probe]?.state !== 'serving')`,
    to: `if (false)`,
  },
  'a lane that is lost is not missed': {
    module: 'lane-machine',
    from: `this.#count('serving', 'starting') < this.#limits.threads`,
    to: `false`,
  },
  'operations do not wait for each other': {
    module: 'endpoint',
    from: `const result = this.#operations.then(operation)`,
    to: `const result = Promise.resolve().then(operation)`,
  },
};

for (const [name, mutation] of Object.entries(mutations)) {
  test(`noticed: ${name}`, async (t) => {
    for (const scenario of scenarios) {
      try {
        await explore(scenario, mutation);
      } catch (error) {
        // A world that does not fit the module notices nothing.
        const { cause } = error as Error;
        if (!(cause instanceof AssertionError)) throw error;
        t.log(`${scenario.name}: ${(error as Error).message.split('\n')[0]}`);
        return t.pass();
      }
    }
    return t.fail('nobody noticed');
  });
}
