/**
 * Runs a program of a few threads through every interleaving of their accesses to shared memory, and finds what
 * none of them may lead to: a broken invariant, a deadlock, a data race, a thread that goes round for ever.
 *
 * A state is the memory and, for each thread, which command it is in and what its accesses have returned so far. States that were
 * met before are not entered again, so the search ends although threads have loops, and two orders that lead to the same
 * state count once.
 *
 * Sequential consistency is all that has to be looked at: Atomics are sequentially consistent, and a program whose
 * sequentially consistent executions have no data race has no others (ECMA-262, "Data Race Freedom"). Races are looked
 * for in every state: two threads that are about to access the same word, one of them plainly and one of them to write.
 *
 * An access that nobody else can notice (a word no other thread ever touches, or one that no other thread ever
 * writes) is made at once, without trying what the others could do before: it commutes with all of that. Which words these are is found
 * by exploring: the search starts with the assumption that all are, and starts again whenever a thread touches a word for which
 * that was wrong. In a run that comes to its end the assumption was right. A few walks at random before the first search find most of
 * these words, so that few searches have to start again: what they note was accessed, and so leaves out nothing. (Such an access is not preferred if it leads
 * to a state that is known already, or a thread that goes round could keep the others from their turn for ever.)
 */

import {
  type Access,
  type Machine,
  type Operation,
  resultOf,
  valueAfter,
  WAIT_OK,
} from './machine.js';
import { MOST_IDS, State, StateSet } from './state-set.js';

/** One thread: a machine whose commands access the shared memory. `L` is its own memory, as JSON. */
export interface Thread<L = unknown> {
  readonly name: string;
  readonly initial: L;
  /** Runs one command; returns the thread's own memory after it, or null at its end. */
  command(local: L): L | null;
  /** Whether it may die before its next access; `past` are those of this command so far. Default: it never dies. */
  mayDie?(local: L, past: readonly Access[]): boolean;
  /** A number that never falls; what it does in one stage and not in later ones it will not do again. Default: always 0. */
  stage?(local: L): number;
  /** The word that is set when it has died. */
  readonly deathAt?: number;
}

/** What invariants look at. */
export interface View {
  word(address: number): number;
  /** A thread's own memory at the start of its command; null once it has ended or died. */
  local(thread: number): unknown;
  /** Whether it sleeps in `Atomics.wait`. */
  sleeps(thread: number): boolean;
}

export interface Program {
  readonly name: string;
  readonly machine: Machine;
  readonly threads: readonly Thread[];
  /** Words that are not 0 at the start. */
  readonly memory: ReadonlyMap<number, number>;
  /** How many threads may die in all. */
  readonly deaths: number;
  /**
   * Whether plain accesses are made at once, which is right if there are no data races. Those are then not looked for.
   */
  readonly plainIsPrivate?: boolean;
  /** Tries every order, also of accesses that nobody else can notice. */
  readonly everyOrder?: boolean;
  /** Throws if something is wrong in a state. */
  always?(view: View): void;
  /** Throws if something is wrong where nothing more can happen. */
  atEnd(view: View): void;
}

export interface Exploration {
  states: number;
  steps: number;
  /** States in which nothing more can happen. */
  ends: number;
}

/** Something that must not happen, and how it came about. */
export class Violation extends Error {
  constructor(
    what: string,
    readonly trace: readonly string[],
  ) {
    super(`${what}\n  after ${trace.length} steps: ${trace.slice(-40).join('; ')}`);
  }
}

/**
 * Where a thread is: its command and what came of the accesses so far. What is asked of its operation in every state is worked out
 * once.
 */
interface Position {
  readonly id: number;
  readonly local: unknown;
  readonly log: readonly number[];
  /** The access it is about to make; null once it has ended or died. */
  readonly operation: Operation | null;
  readonly how: Class;
  readonly isAccess: boolean;
  readonly isPlain: boolean;
  readonly mortal: boolean;
  readonly stage: number;
  readonly next: Map<number, Position>;
}

interface Move {
  readonly thread: number;
  /** Which of several outcomes; -1 for its death. */
  readonly choice: number;
}

/** What there is in a state of the path yet to do. Used again and again, as the states are. */
interface Frame {
  readonly state: State;
  moves: readonly Move[];
  done: number;
  /** Whether the state that its only access leads to has been worked out already, where the next frame's is. */
  workedOut: boolean;
}

const NO_MOVES: readonly Move[] = [];
const DEATH = -1;
const MOST_STATES = 3_000_000;
/** Walks before the first search, and the most steps of one. */
const WALKS = 60;
const LONGEST_WALK = 150;

/** Explores a program. @throws {Violation} */
export function explore(program: Program): Exploration {
  const sharing = new Sharing(program.threads.length);
  // What a thread does next depends on nothing but its own past: it is the same in every search.
  const positions = new Positions(program);
  if (!program.everyOrder) {
    const random = randomNumbers();
    for (let walk = 0; walk < WALKS; walk++) new Search(program, sharing, positions).walk(random);
  }
  for (;;) {
    const result = new Search(program, sharing, positions).run();
    if (result !== null) return result;
  }
}

/** The same whole numbers from 0 to below a limit each time (xorshift32). */
function randomNumbers(): (below: number) => number {
  let state = 0x9e3779b9;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** How an access to a word gets on with other threads' accesses to it. */
const READS = 0;
const WRITES = 1;
/** Additions whose result nobody looks at can be made in any order, and so can ORs. */
const ADDS = 2;
const ORS = 3;
type Class = typeof READS | typeof WRITES | typeof ADDS | typeof ORS;
const CLASSES = [READS, WRITES, ADDS, ORS] as const;

function classOf({ kind, ignored }: Operation): Class {
  if (kind === 'read' || kind === 'load') return READS;
  if (!ignored) return WRITES;
  return kind === 'add' || kind === 'sub' ? ADDS : kind === 'or' ? ORS : WRITES;
}

function commute(one: Class, other: Class): boolean {
  return one === other && one !== WRITES;
}

/** Which classes do not commute with each. */
const DISTURBING: readonly (readonly Class[])[] = CLASSES.map((how) =>
  CLASSES.filter((theirs) => !commute(how, theirs)),
);

/** What has been seen of who accesses each word, in which way, and until which stage of its life. */
class Sharing {
  /** By thread, class and word: the last stage in which it does, or undefined. */
  readonly #last: number[][][];

  constructor(threads: number) {
    this.#last = Array.from({ length: threads }, () => CLASSES.map(() => []));
  }

  /** Notes an access; true if another thread's accesses may have been thought to be private because it was not known. */
  note(thread: number, stage: number, word: number, how: Class): boolean {
    const last = this.#last[thread]?.[how] as number[];
    if ((last[word] ?? -1) >= stage) return false;
    last[word] = stage;
    return this.#last.some(
      (classes, other) =>
        other !== thread &&
        (DISTURBING[how] as readonly Class[]).some(
          (theirs) => classes[theirs]?.[word] !== undefined,
        ),
    );
  }

  /** Whether `thread`, now at `stage`, will yet access a word in a way that does not commute with `how`. */
  mayDisturb(thread: number, stage: number, word: number, how: Class): boolean {
    const last = this.#last[thread] as number[][];
    for (const theirs of DISTURBING[how] as readonly Class[]) {
      if ((last[theirs]?.[word] ?? -1) >= stage) return true;
    }
    return false;
  }
}

/** All positions of threads that have been met. */
class Positions {
  readonly #program: Program;
  /** By thread and number. */
  readonly #all: Position[][];
  readonly #byKey: Map<string, Position>[];

  constructor(program: Program) {
    this.#program = program;
    this.#all = program.threads.map(() => []);
    this.#byKey = program.threads.map(() => new Map());
  }

  at(thread: number, id: number): Position {
    return (this.#all[thread] as Position[])[id] as Position;
  }

  of(thread: number, local: unknown, log: readonly number[]): Position {
    const json = JSON.stringify(local);
    const key = `${json} ${log}`;
    const byKey = this.#byKey[thread] as Map<string, Position>;
    const known = byKey.get(key);
    if (known !== undefined) return known;
    const { command, mayDie, stage } = this.#program.threads[thread] as Thread;
    if (local === null)
      return this.#add(thread, key, local, log, null, false, Number.POSITIVE_INFINITY);
    const own = JSON.parse(json) as unknown;
    const outcome = this.#program.machine.run(() => command(JSON.parse(json)), log);
    if ('local' in outcome) {
      const next = this.of(thread, outcome.local, []);
      byKey.set(key, next);
      return next;
    }
    const mortal = mayDie?.(own, outcome.past) ?? false;
    return this.#add(thread, key, own, log, outcome.pending, mortal, stage?.(own) ?? 0);
  }

  #add(
    thread: number,
    key: string,
    local: unknown,
    log: readonly number[],
    operation: Operation | null,
    mortal: boolean,
    stage: number,
  ): Position {
    const positions = this.#all[thread] as Position[];
    const added: Position = {
      id: positions.length,
      local,
      log,
      operation,
      how: operation === null ? READS : classOf(operation),
      isAccess: operation !== null && isAccess(operation),
      isPlain: operation !== null && isPlain(operation),
      mortal,
      stage,
      next: new Map(),
    };
    if (added.id > MOST_IDS) throw new Error('there are too many positions in a thread');
    positions.push(added);
    this.#byKey[thread]?.set(key, added);
    return added;
  }

  /** The number of the position after an access. */
  advanced(thread: number, position: Position, result: number): number {
    let next = position.next.get(result);
    if (next === undefined) {
      next = this.of(thread, position.local, [...position.log, result]);
      position.next.set(result, next);
    }
    return next.id;
  }
}

class Search {
  readonly #program: Program;
  readonly #machine: Machine;
  readonly #sharing: Sharing;
  readonly #positions: Positions;
  readonly #count: number;
  readonly #seen = new StateSet();
  /** The path, of which `#depth` frames are in use: to allocate one for each step takes longer than all the rest. */
  readonly #path: Frame[] = [];
  #depth = 0;
  /** Where memory begins in a state: after the positions, who sleeps, and how many may still die. */
  readonly #memoryAt: number;
  /** By thread: the move of an access that has one outcome. */
  readonly #only: readonly (readonly Move[])[];
  readonly #deaths: readonly Move[];
  readonly #view: View;
  /** What the view looks at. */
  #viewed: State | null = null;
  #words = 0;

  constructor(program: Program, sharing: Sharing, positions: Positions) {
    this.#program = program;
    this.#machine = program.machine;
    this.#sharing = sharing;
    this.#positions = positions;
    this.#count = program.threads.length;
    this.#memoryAt = this.#count + 2;
    this.#only = program.threads.map((_, thread) => [{ thread, choice: 0 }]);
    this.#deaths = program.threads.map((_, thread) => ({ thread, choice: DEATH }));
    const viewed = () => this.#viewed as State;
    this.#view = {
      word: (address) => this.#valueAt(viewed(), this.#machine.wordAt(address)),
      local: (thread) => this.#at(viewed(), thread).local,
      sleeps: (thread) => this.#sleeps(viewed(), thread),
    };
  }

  /** Null if an assumption about who shares what turned out to be wrong. */
  run(): Exploration | null {
    this.#begin();
    let steps = 0;
    let ends = 0;
    let frame = this.#frame(0);
    this.#seen.add(frame.state);
    this.#enter(frame);
    if (frame.moves.length === 0) ends += 1;
    while (this.#depth > 0) {
      const move = frame.moves[frame.done];
      if (move === undefined) {
        this.#depth -= 1;
        if (this.#depth > 0) frame = this.#frame(this.#depth - 1);
        continue;
      }
      frame.done += 1;
      if (this.#notes(frame.state, move)) return null;
      const next = this.#frame(this.#depth);
      if (frame.workedOut && frame.done === 1) frame.workedOut = false;
      else this.#after(frame.state, move, next.state);
      // A word that was not known when the search began has no place in its states.
      if (this.#machine.size > this.#words) return null;
      steps += 1;
      if (!this.#seen.add(next.state)) continue;
      if (this.#seen.size > MOST_STATES) this.#fail('there are too many states');
      this.#enter(next);
      if (next.moves.length === 0) ends += 1;
      frame = next;
    }
    return { states: this.#seen.size, steps, ends };
  }

  /** Goes one way at random, only to note who accesses what. */
  walk(random: (below: number) => number): void {
    this.#begin();
    for (let step = 0; step < LONGEST_WALK; step++) {
      const { state } = this.#frame(step);
      const moves: Move[] = [];
      for (let thread = 0; thread < this.#count; thread++) {
        const position = this.#at(state, thread);
        // What has failed is for a search to tell of.
        if (position.operation?.kind === 'fail') return;
        moves.push(...this.#movesOf(state, thread));
        if (this.#mayDie(state, position)) moves.push(this.#deaths[thread] as Move);
      }
      if (moves.length === 0) return;
      const move = moves[random(moves.length)] as Move;
      this.#notes(state, move);
      this.#after(state, move, this.#frame(step + 1).state);
      if (this.#machine.size > this.#words) return;
    }
  }

  /** Makes the first frame's state the one at the start. */
  #begin(): void {
    const { machine, memory, threads, deaths } = this.#program;
    for (const address of memory.keys()) machine.wordAt(address);
    const start = threads.map((thread, index) => this.#positions.of(index, thread.initial, []).id);
    this.#words = machine.size;
    const { state } = this.#frame(0);
    for (const [thread, id] of start.entries()) state.set(thread, id);
    state.set(this.#count + 1, deaths);
    for (const [address, value] of memory) {
      state.set(this.#memoryAt + machine.wordAt(address), machine.idOf(value));
    }
  }

  #frame(depth: number): Frame {
    let frame = this.#path[depth];
    if (frame === undefined) {
      const state = new State(this.#memoryAt + this.#words);
      frame = { state, moves: NO_MOVES, done: 0, workedOut: false };
      this.#path[depth] = frame;
    }
    return frame;
  }

  // ---- States ----------------------------------------------------------------------------------

  #at(state: State, thread: number): Position {
    return this.#positions.at(thread, state.get(thread));
  }

  #sleeps(state: State, thread: number): boolean {
    return (state.get(this.#count) & (1 << thread)) !== 0;
  }

  #valueAt(state: State, word: number): number {
    return this.#machine.valueOf(word < this.#words ? state.get(this.#memoryAt + word) : 0);
  }

  #mayDie(state: State, { mortal }: Position): boolean {
    return mortal && state.get(this.#count + 1) > 0;
  }

  /** Checks a state that the path has come to, and finds what can happen in it. */
  #enter(frame: Frame): void {
    const { state } = frame;
    this.#checkRaces(state);
    this.#check(state, this.#program.always);
    frame.moves = NO_MOVES;
    frame.done = 0;
    frame.workedOut = false;
    this.#depth += 1;
    const all: Move[] = [];
    for (let thread = 0; thread < this.#count; thread++) {
      const moves = this.#movesOf(state, thread);
      const position = this.#at(state, thread);
      const mayDie = this.#mayDie(state, position);
      if (moves.length > 0 && this.#isPrivate(state, thread, position)) {
        if (this.#areNew(state, moves)) {
          frame.moves = mayDie ? [...moves, this.#deaths[thread] as Move] : moves;
          frame.workedOut = moves.length === 1;
          return;
        }
      }
      for (const move of moves) all.push(move);
      if (mayDie) all.push(this.#deaths[thread] as Move);
    }
    frame.moves = all;
    if (all.length === 0) this.#check(state, this.#program.atEnd);
  }

  /** The outcomes of a thread's next access; none while it is blocked. */
  #movesOf(state: State, thread: number): readonly Move[] {
    const { operation } = this.#at(state, thread);
    if (operation === null || this.#sleeps(state, thread)) return NO_MOVES;
    const { kind, value, sources = [], message } = operation;
    switch (kind) {
      case 'fail':
        return this.#fail(`${this.#program.threads[thread]?.name}: ${message}`);
      case 'choose':
        return Array.from({ length: value }, (_, choice) => ({ thread, choice }));
      case 'receive':
        return sources.flatMap((source, choice) =>
          this.#valueAt(state, source) > 0 ? [{ thread, choice }] : [],
        );
      default:
        return this.#only[thread] as readonly Move[];
    }
  }

  /** Works out the state that a move leads to. */
  #after(before: State, { thread, choice }: Move, state: State): void {
    state.copy(before);
    const position = this.#at(state, thread);
    const operation = position.operation as Operation;
    if (choice === DEATH) {
      const { deathAt } = this.#program.threads[thread] as Thread;
      state.set(thread, this.#positions.of(thread, null, []).id);
      state.set(this.#count, state.get(this.#count) & ~(1 << thread));
      state.set(this.#count + 1, state.get(this.#count + 1) - 1);
      if (deathAt !== undefined) this.#write(state, this.#machine.wordAt(deathAt), 1);
      return;
    }
    switch (operation.kind) {
      case 'choose':
        break;
      case 'receive': {
        const source = operation.sources?.[choice] as number;
        this.#write(state, source, this.#valueAt(state, source) - 1);
        break;
      }
      case 'spawn': {
        const spawned = operation.value;
        const { initial } = this.#program.threads[spawned] as Thread;
        state.set(spawned, this.#positions.of(spawned, initial, []).id);
        break;
      }
      case 'notify': {
        let woken = 0;
        for (let other = 0; other < this.#count; other++) {
          if (!this.#sleeps(state, other)) continue;
          const sleeper = this.#at(state, other);
          if (sleeper.operation?.at !== operation.at) continue;
          state.set(this.#count, state.get(this.#count) & ~(1 << other));
          state.set(other, this.#positions.advanced(other, sleeper, WAIT_OK));
          woken += 1;
        }
        state.set(thread, this.#positions.advanced(thread, position, woken));
        return;
      }
      default: {
        const value = this.#valueAt(state, operation.at);
        const result = resultOf(operation, value);
        if (operation.kind === 'wait' && result === WAIT_OK) {
          state.set(this.#count, state.get(this.#count) | (1 << thread));
          return;
        }
        const after = valueAfter(operation, value);
        if (after !== undefined) this.#write(state, operation.at, after);
        state.set(thread, this.#positions.advanced(thread, position, result));
        return;
      }
    }
    state.set(thread, this.#positions.advanced(thread, position, choice));
  }

  #write(state: State, word: number, value: number): void {
    // A word that has only just been met has no place: this search is about to end.
    if (word < this.#words) state.set(this.#memoryAt + word, this.#machine.idOf(value));
  }

  #areNew(state: State, moves: readonly Move[]): boolean {
    // The state is the last of the path, so that the row after it is the next one's.
    const next = this.#frame(this.#depth).state;
    for (const move of moves) {
      this.#after(state, move, next);
      if (this.#seen.has(next)) return false;
    }
    return true;
  }

  // ---- Who shares what -----------------------------------------------------------------------------

  #isPrivate(state: State, thread: number, { operation, isPlain, how }: Position): boolean {
    if (operation === null || this.#program.everyOrder) return false;
    if (operation.kind === 'choose') return true;
    if (operation.kind === 'spawn' || operation.kind === 'receive') return false;
    if (operation.ghost || (this.#program.plainIsPrivate && isPlain)) return true;
    for (let other = 0; other < this.#count; other++) {
      if (other === thread) continue;
      const { stage } = this.#at(state, other);
      if (this.#sharing.mayDisturb(other, stage, operation.at, how)) return false;
    }
    return true;
  }

  /** Notes what a move touches; true if that makes a word shared that was thought not to be. */
  #notes(state: State, { thread, choice }: Move): boolean {
    const { operation, stage, how } = this.#at(state, thread);
    if (choice === DEATH) {
      const { deathAt } = this.#program.threads[thread] as Thread;
      if (deathAt === undefined) return false;
      return this.#sharing.note(thread, stage, this.#machine.wordAt(deathAt), WRITES);
    }
    if (operation === null || operation.kind === 'choose' || operation.kind === 'spawn')
      return false;
    if (operation.kind === 'receive') {
      const found = (operation.sources ?? []).map((word) =>
        this.#sharing.note(thread, stage, word, WRITES),
      );
      return found.includes(true);
    }
    return this.#sharing.note(thread, stage, operation.at, how);
  }

  // ---- What must not happen ------------------------------------------------------------------------

  #checkRaces(state: State): void {
    for (let one = 0; one < this.#count; one++) {
      const mine = this.#at(state, one);
      if (!mine.isAccess || this.#sleeps(state, one)) continue;
      for (let other = one + 1; other < this.#count; other++) {
        const theirs = this.#at(state, other);
        if (!theirs.isAccess || theirs.operation?.at !== mine.operation?.at) continue;
        if (this.#sleeps(state, other)) continue;
        if (!mine.isPlain && !theirs.isPlain) continue;
        const [access, their] = [mine.operation as Operation, theirs.operation as Operation];
        if (!writes(access) && !writes(their)) continue;
        const [first, second] = [one, other].map((thread) => this.#program.threads[thread]?.name);
        this.#fail(
          `data race: ${first} is about to ${access.kind} what ${second} is about to ${their.kind}`,
        );
      }
    }
  }

  #check(state: State, look: ((view: View) => void) | undefined): void {
    this.#viewed = state;
    try {
      look?.(this.#view);
    } catch (error) {
      this.#fail((error as Error).message);
    }
  }

  #fail(what: string): never {
    const trace = this.#path.slice(0, this.#depth).flatMap(({ state, moves, done }) => {
      const move = moves[done - 1];
      // The last one's moves are still being looked for.
      if (move === undefined) return [];
      const { name } = this.#program.threads[move.thread] as Thread;
      if (move.choice === DEATH) return `${name} dies`;
      const { operation } = this.#at(state, move.thread);
      if (operation === null) return name;
      const { kind, at, value, expected } = operation;
      const was = isAccess(operation) ? ` (was ${this.#valueAt(state, at)})` : '';
      const operands = kind === 'compareExchange' ? ` ${expected} to ${value}` : ` ${value}`;
      return `${name} ${kind} ${this.#machine.nameOf(at)}${operands}${was}`;
    });
    throw new Violation(`${this.#program.name}: ${what}`, trace);
  }
}

function isAccess({ kind }: Operation): boolean {
  return kind !== 'choose' && kind !== 'receive' && kind !== 'spawn' && kind !== 'fail';
}

function isPlain({ kind }: Operation): boolean {
  return kind === 'read' || kind === 'write';
}

function writes({ kind }: Operation): boolean {
  return kind !== 'read' && kind !== 'load';
}
