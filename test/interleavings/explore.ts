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
 * that was wrong. In a run that comes to its end the assumption was right. (Such an access is not preferred if it leads
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
import { StateSet } from './state-set.js';

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

/** Where a thread is: its command and what came of the accesses so far. */
interface Position {
  readonly id: number;
  readonly key: string;
  readonly local: unknown;
  readonly log: readonly number[];
  /** The access it is about to make; null once it has ended or died. */
  readonly operation: Operation | null;
  readonly mortal: boolean;
  readonly stage: number;
  readonly next: Map<number, Position>;
}

interface Move {
  readonly thread: number;
  /** Which of several outcomes; -1 for its death. */
  readonly choice: number;
  /** Whether the state that it leads to has been worked out already, where the next frame's is. */
  workedOut?: boolean;
}

interface Frame {
  readonly state: Uint16Array;
  readonly moves: readonly Move[];
  done: number;
}

const DEATH = -1;
const MOST_STATES = 3_000_000;

/** Explores a program. @throws {Violation} */
export function explore(program: Program): Exploration {
  const sharing = new Sharing(program.threads.length);
  for (;;) {
    const result = new Search(program, sharing).run();
    if (result !== null) return result;
  }
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
        classes.some(
          (words, theirs) => words[word] !== undefined && !commute(how, theirs as Class),
        ),
    );
  }

  /** Whether `thread`, now at `stage`, will yet access a word in a way that does not commute with `how`. */
  mayDisturb(thread: number, stage: number, word: number, how: Class): boolean {
    return CLASSES.some(
      (theirs) => !commute(how, theirs) && (this.#last[thread]?.[theirs]?.[word] ?? -1) >= stage,
    );
  }
}

class Search {
  readonly #program: Program;
  readonly #machine: Machine;
  readonly #sharing: Sharing;
  readonly #count: number;
  /** By thread and number. */
  readonly #positions: Position[][];
  readonly #byKey: Map<string, Position>[];
  readonly #seen = new StateSet();
  readonly #path: Frame[] = [];
  /** The states of the path, used again and again: to allocate one for each step takes longer than all the rest. */
  readonly #rows: Uint16Array[] = [];
  /** Where memory begins in a state: after the positions, who sleeps, and how many may still die. */
  readonly #memoryAt: number;
  #words: number;

  constructor(program: Program, sharing: Sharing) {
    this.#program = program;
    this.#machine = program.machine;
    this.#sharing = sharing;
    this.#count = program.threads.length;
    this.#positions = program.threads.map(() => []);
    this.#byKey = program.threads.map(() => new Map());
    this.#memoryAt = this.#count + 2;
    this.#words = 0;
  }

  /** Null if an assumption about who shares what turned out to be wrong. */
  run(): Exploration | null {
    const { machine, memory, threads, deaths } = this.#program;
    for (const address of memory.keys()) machine.wordAt(address);
    const start = threads.map((thread, index) => this.#positionOf(index, thread.initial, []).id);
    this.#words = machine.size;
    const state = this.#row(0);
    state.set(start);
    state[this.#count + 1] = deaths;
    for (const [address, value] of memory) {
      state[this.#memoryAt + machine.wordAt(address)] = machine.idOf(value);
    }
    let steps = 0;
    let ends = 0;
    const enter = (next: Uint16Array) => {
      const moves = this.#enter(next);
      if (moves.length === 0) ends += 1;
      this.#path.push({ state: next, moves, done: 0 });
    };
    this.#seen.add(state);
    enter(state);
    for (;;) {
      const frame = this.#path.at(-1);
      if (frame === undefined) return { states: this.#seen.size, steps, ends };
      const move = frame.moves[frame.done];
      if (move === undefined) {
        this.#path.pop();
        continue;
      }
      frame.done += 1;
      if (this.#notes(frame.state, move)) return null;
      const next = this.#row(this.#path.length);
      if (move.workedOut !== true) this.#after(frame.state, move, next);
      // A word that was not known when the search began has no place in its states.
      if (machine.size > this.#words) return null;
      steps += 1;
      if (!this.#seen.add(next)) continue;
      if (this.#seen.size > MOST_STATES) this.#fail('there are too many states');
      enter(next);
    }
  }

  /** The state of the path at this depth. */
  #row(depth: number): Uint16Array {
    let row = this.#rows[depth];
    if (row === undefined) {
      row = new Uint16Array(this.#memoryAt + this.#words);
      this.#rows[depth] = row;
    }
    return row;
  }

  // ---- Threads ---------------------------------------------------------------------------------

  #at(state: Uint16Array, thread: number): Position {
    return this.#positions[thread]?.[state[thread] as number] as Position;
  }

  #positionOf(thread: number, local: unknown, log: readonly number[]): Position {
    const json = JSON.stringify(local);
    const key = `${json} ${log}`;
    const byKey = this.#byKey[thread] as Map<string, Position>;
    const known = byKey.get(key);
    if (known !== undefined) return known;
    const { command, mayDie, stage } = this.#program.threads[thread] as Thread;
    if (local === null)
      return this.#add(thread, {
        key,
        local,
        log,
        operation: null,
        mortal: false,
        stage: Number.POSITIVE_INFINITY,
      });
    const own = JSON.parse(json) as unknown;
    const outcome = this.#machine.run(() => command(JSON.parse(json)), log);
    if ('local' in outcome) {
      const next = this.#positionOf(thread, outcome.local, []);
      byKey.set(key, next);
      return next;
    }
    const mortal = mayDie?.(own, outcome.past) ?? false;
    return this.#add(thread, {
      key,
      local: own,
      log,
      operation: outcome.pending,
      mortal,
      stage: stage?.(own) ?? 0,
    });
  }

  #add(thread: number, position: Omit<Position, 'id' | 'next'>): Position {
    const positions = this.#positions[thread] as Position[];
    const added = { ...position, id: positions.length, next: new Map() };
    if (added.id > 0xffff) this.#fail('there are too many positions in a thread');
    positions.push(added);
    this.#byKey[thread]?.set(position.key, added);
    return added;
  }

  #advanced(thread: number, position: Position, result: number): number {
    let next = position.next.get(result);
    if (next === undefined) {
      next = this.#positionOf(thread, position.local, [...position.log, result]);
      position.next.set(result, next);
    }
    return next.id;
  }

  // ---- States ----------------------------------------------------------------------------------

  #sleeps(state: Uint16Array, thread: number): boolean {
    return ((state[this.#count] as number) & (1 << thread)) !== 0;
  }

  #valueAt(state: Uint16Array, word: number): number {
    return this.#machine.valueOf(state[this.#memoryAt + word] ?? 0);
  }

  /** Checks a state and returns what can happen in it. */
  #enter(state: Uint16Array): Move[] {
    const { always, atEnd } = this.#program;
    this.#checkRaces(state);
    const view: View = {
      word: (address) => this.#valueAt(state, this.#machine.wordAt(address)),
      local: (thread) => this.#at(state, thread).local,
      sleeps: (thread) => this.#sleeps(state, thread),
    };
    this.#check(() => always?.(view));
    const all: Move[] = [];
    for (let thread = 0; thread < this.#count; thread++) {
      const moves = this.#movesOf(state, thread);
      const mayDie = this.#at(state, thread).mortal && (state[this.#count + 1] as number) > 0;
      const deaths = mayDie ? [{ thread, choice: DEATH }] : [];
      const only = moves.length > 0 && this.#isPrivate(state, thread);
      if (only && moves.every((move) => this.#isNew(state, move))) {
        const [first] = moves;
        if (first !== undefined && moves.length === 1) first.workedOut = true;
        return [...moves, ...deaths];
      }
      all.push(...moves, ...deaths);
    }
    if (all.length === 0) this.#check(() => atEnd(view));
    return all;
  }

  /** The outcomes of a thread's next access; none while it is blocked. */
  #movesOf(state: Uint16Array, thread: number): Move[] {
    const { operation } = this.#at(state, thread);
    if (operation === null || this.#sleeps(state, thread)) return [];
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
        return [{ thread, choice: 0 }];
    }
  }

  /** Works out the state that a move leads to. */
  #after(before: Uint16Array, { thread, choice }: Move, state: Uint16Array): void {
    state.set(before);
    const position = this.#at(state, thread);
    const operation = position.operation as Operation;
    const set = (word: number, value: number) => {
      state[this.#memoryAt + word] = this.#machine.idOf(value);
    };
    const advance = (who: number, result: number) => {
      state[who] = this.#advanced(who, this.#at(state, who), result);
    };
    if (choice === DEATH) {
      const { deathAt } = this.#program.threads[thread] as Thread;
      state[thread] = this.#positionOf(thread, null, []).id;
      state[this.#count] = (state[this.#count] as number) & ~(1 << thread);
      state[this.#count + 1] = (state[this.#count + 1] as number) - 1;
      if (deathAt !== undefined) set(this.#machine.wordAt(deathAt), 1);
      return;
    }
    switch (operation.kind) {
      case 'choose':
        advance(thread, choice);
        return;
      case 'receive': {
        const source = operation.sources?.[choice] as number;
        set(source, this.#valueAt(state, source) - 1);
        advance(thread, choice);
        return;
      }
      case 'spawn':
        state[operation.value] = this.#positionOf(
          operation.value,
          this.#program.threads[operation.value]?.initial,
          [],
        ).id;
        advance(thread, 0);
        return;
      case 'notify': {
        let woken = 0;
        for (let other = 0; other < this.#count; other++) {
          if (!this.#sleeps(state, other)) continue;
          if (this.#at(state, other).operation?.at !== operation.at) continue;
          state[this.#count] = (state[this.#count] as number) & ~(1 << other);
          advance(other, WAIT_OK);
          woken += 1;
        }
        advance(thread, woken);
        return;
      }
      default: {
        const value = this.#valueAt(state, operation.at);
        const result = resultOf(operation, value);
        if (operation.kind === 'wait' && result === WAIT_OK) {
          state[this.#count] = (state[this.#count] as number) | (1 << thread);
          return;
        }
        const after = valueAfter(operation, value);
        if (after !== undefined) set(operation.at, after);
        advance(thread, result);
        return;
      }
    }
  }

  #isNew(state: Uint16Array, move: Move): boolean {
    // It is about to be the last of the path, so that its row is the next one's.
    const next = this.#row(this.#path.length + 1);
    this.#after(state, move, next);
    return !this.#seen.has(next);
  }

  // ---- Who shares what -----------------------------------------------------------------------------

  #isPrivate(state: Uint16Array, thread: number): boolean {
    const { operation } = this.#at(state, thread);
    if (operation === null || this.#program.everyOrder) return false;
    if (operation.kind === 'choose') return true;
    if (operation.kind === 'spawn' || operation.kind === 'receive') return false;
    if (operation.ghost || (this.#program.plainIsPrivate && isPlain(operation))) return true;
    const how = classOf(operation);
    for (let other = 0; other < this.#count; other++) {
      if (other === thread) continue;
      const { stage } = this.#at(state, other);
      if (this.#sharing.mayDisturb(other, stage, operation.at, how)) return false;
    }
    return true;
  }

  /** Notes what a move touches; true if that makes a word shared that was thought not to be. */
  #notes(state: Uint16Array, { thread, choice }: Move): boolean {
    const { operation, stage } = this.#at(state, thread);
    const note = (word: number, how: Class) => this.#sharing.note(thread, stage, word, how);
    if (choice === DEATH) {
      const { deathAt } = this.#program.threads[thread] as Thread;
      return deathAt !== undefined && note(this.#machine.wordAt(deathAt), WRITES);
    }
    if (operation === null || operation.kind === 'choose' || operation.kind === 'spawn')
      return false;
    if (operation.kind === 'receive') {
      return (operation.sources ?? []).map((word) => note(word, WRITES)).includes(true);
    }
    return note(operation.at, classOf(operation));
  }

  // ---- What must not happen ------------------------------------------------------------------------

  #checkRaces(state: Uint16Array): void {
    for (let one = 0; one < this.#count; one++) {
      const mine = this.#at(state, one).operation;
      if (mine === null || !isAccess(mine) || this.#sleeps(state, one)) continue;
      for (let other = one + 1; other < this.#count; other++) {
        const theirs = this.#at(state, other).operation;
        if (theirs === null || theirs.at !== mine.at || !isAccess(theirs)) continue;
        if (this.#sleeps(state, other)) continue;
        if (!isPlain(mine) && !isPlain(theirs)) continue;
        if (!writes(mine) && !writes(theirs)) continue;
        const [first, second] = [one, other].map((thread) => this.#program.threads[thread]?.name);
        this.#fail(
          `data race: ${first} is about to ${mine.kind} what ${second} is about to ${theirs.kind}`,
        );
      }
    }
  }

  #check(look: () => void): void {
    try {
      look();
    } catch (error) {
      this.#fail((error as Error).message);
    }
  }

  #fail(what: string): never {
    const trace = this.#path.map(({ state, moves, done }) => {
      const move = moves[done - 1] as Move;
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
