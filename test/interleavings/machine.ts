/**
 * Shared memory that is not shared: an `Atomics`, a clock and typed-array views that hand each access to a scheduler
 * instead of doing it.
 *
 * A thread's code is ordinary synchronous JavaScript and cannot be paused in the middle. So it is run again from the start of its
 * current command each time: accesses whose results are known already return them from a log, and the first one that is not
 * known throws. What was thrown is the access that the thread is about to make; `explore.ts` chooses when it happens. This was
 * preferred to turning the code into generators, because a generator cannot be copied at a fork, and to real threads in lock step,
 * which are thousands of times slower.
 */

/** What a thread can do to the world. `read` and `write` are plain, not atomic. */
export type Kind =
  | 'load'
  | 'store'
  | 'add'
  | 'sub'
  | 'or'
  | 'exchange'
  | 'compareExchange'
  | 'wait'
  | 'notify'
  | 'read'
  | 'write'
  /** One of `value` outcomes, any of which may happen: time, mostly. */
  | 'choose'
  /** Blocks until one of the words `sources` is not 0, and takes 1 off it. */
  | 'receive'
  /** Starts thread `value` from its beginning. It must have ended or died. */
  | 'spawn'
  /** The thread has found that something is wrong. */
  | 'fail';

export interface Operation {
  readonly kind: Kind;
  /** Which word: an index into the explorer's memory. */
  readonly at: number;
  readonly value: number;
  readonly expected: number;
  readonly sources?: readonly number[];
  readonly message?: string;
  /** Nobody looks at what it returns. */
  readonly ignored?: boolean;
  /** Only there to be checked: no part of what is explored. */
  readonly ghost?: boolean;
}

/** An access that was made, and what it returned. */
export interface Access extends Operation {
  readonly result: number;
}

/** How `Atomics.wait` ended. */
export const WAIT_OK = 0;
const WAIT_NOT_EQUAL = 1;

const LONGEST_COMMAND = 400;
const LONG_MS = 1e6;

/** Thrown where a thread stops to wait for its turn. */
class Pending {
  constructor(readonly operation: Operation) {}
}

/** A view onto simulated memory, by word. */
interface View {
  addressOf(index: number): number;
}

/** Where a run of a command has come to. */
export type Outcome<L> =
  | { readonly pending: Operation; readonly past: readonly Access[] }
  | { readonly local: L | null };

export class Machine {
  /** Whether little time may pass between two looks at the clock, or always much. A thread sets it for itself. */
  shortTimes = true;
  readonly #addresses: number[] = [];
  readonly #nameOf: (address: number) => string;
  readonly #words = new Map<number, number>();
  readonly #values: number[] = [0];
  readonly #valueIds = new Map<number, number>([[0, 0]]);
  #log: readonly number[] = [];
  #past: Access[] = [];
  #shortAnswers = 0;
  #clockMs = 0;
  #clockAsked = false;

  /** `nameOf` is for messages. */
  constructor(nameOf: (address: number) => string = String) {
    this.#nameOf = nameOf;
  }

  /** How many words have been met. */
  get size(): number {
    return this.#words.size;
  }

  /** The explorer's index for a word: words are numbered as they are met. */
  wordAt(address: number): number {
    let word = this.#words.get(address);
    if (word === undefined) {
      word = this.#words.size;
      this.#words.set(address, word);
      this.#addresses.push(address);
    }
    return word;
  }

  nameOf(word: number): string {
    return this.#nameOf(this.#addresses[word] ?? 0);
  }

  /** A small number that stands for a value, so that a state is a short string. */
  idOf(value: number): number {
    let id = this.#valueIds.get(value);
    if (id === undefined) {
      id = this.#values.length;
      this.#values.push(value);
      this.#valueIds.set(value, id);
    }
    return id;
  }

  valueOf(id: number): number {
    return this.#values[id] as number;
  }

  /** Runs a command as far as its log of results goes. */
  run<L>(command: () => L | null, log: readonly number[]): Outcome<L> {
    this.#log = log;
    this.#past = [];
    this.#shortAnswers = 0;
    this.#clockMs = 0;
    this.#clockAsked = false;
    try {
      return { local: command() };
    } catch (thrown) {
      if (thrown instanceof Pending) return { pending: thrown.operation, past: this.#past };
      const message = thrown instanceof Error ? thrown.message : String(thrown);
      return { pending: operation('fail', 0, 0, 0, { message }), past: this.#past };
    }
  }

  /** Makes an access and returns its result, or stops here. */
  perform(next: Operation): number {
    const result = this.#log[this.#past.length];
    if (result === undefined) {
      if (this.#past.length > LONGEST_COMMAND) throw new Error('it goes round for ever');
      throw new Pending(next);
    }
    this.#past.push({ ...next, result });
    return result;
  }

  #access(kind: Kind, address: number, value = 0, expected = 0): number {
    return this.perform(operation(kind, this.wordAt(address), value, expected));
  }

  // ---- What threads see ------------------------------------------------------------------------

  /** Instead of the global `Atomics`. */
  readonly atomics = this.#atomics(false);
  /** The same, for calls whose result is not looked at. It is forgotten, so that it does not tell states apart. */
  readonly ignoringAtomics = this.#atomics(true);

  #atomics(ignored: boolean) {
    const access = (kind: Kind, view: View, index: number, value = 0, expected = 0) => {
      const at = this.wordAt(view.addressOf(index));
      return this.perform(operation(kind, at, value, expected, { ignored }));
    };
    return {
      load: (view: View, index: number) => access('load', view, index),
      store: (view: View, index: number, value: number) => {
        access('store', view, index, value);
        return value;
      },
      add: (view: View, index: number, value: number) => access('add', view, index, value),
      sub: (view: View, index: number, value: number) => access('sub', view, index, value),
      or: (view: View, index: number, value: number) => access('or', view, index, value),
      exchange: (view: View, index: number, value: number) =>
        access('exchange', view, index, value),
      compareExchange: (view: View, index: number, expected: number, value: number) =>
        access('compareExchange', view, index, value, expected),
      wait: (view: View, index: number, expected: number) =>
        access('wait', view, index, 0, expected) === WAIT_OK ? 'ok' : 'not-equal',
      notify: (view: View, index: number) => access('notify', view, index),
    };
  }

  /**
   * Instead of the global `performance`. A moment passes or a long time does. One turn of a loop that looks at the clock is
   * enough: a turn that changes nothing is as if it had not been.
   */
  readonly performance = {
    now: (): number => {
      if (!this.#clockAsked) {
        this.#clockAsked = true;
      } else if (this.#clockMs === 0) {
        const mayBeShort = this.shortTimes && this.#shortAnswers === 0;
        const long = mayBeShort ? this.perform(operation('choose', 0, 2)) === 1 : true;
        if (long) this.#clockMs = LONG_MS;
        else this.#shortAnswers += 1;
      }
      return this.#clockMs;
    },
  };

  /** A view whose plain accesses are seen too. `wordsEach` is 1 for 32-bit elements, 2 for 64-bit ones. */
  view(wordsEach: number): View & Record<number, number> {
    const addressOf = (index: number) => index * wordsEach;
    return new Proxy({ addressOf } as View & Record<number, number>, {
      get: (target, name) =>
        isIndex(name)
          ? this.#access('read', addressOf(Number(name)))
          : Reflect.get(target, name as string),
      set: (_target, name, value: number) => {
        this.#access('write', addressOf(Number(name)), value);
        return true;
      },
    });
  }

  // ---- What threads' scripts do besides ----------------------------------------------------------

  /** Posts a message. */
  post(address: number): void {
    this.perform(operation('add', this.wordAt(address), 1, 0, { ignored: true }));
  }

  /** Adds to a word of the world around the threads, and returns what it was. */
  fetchAdd(address: number, value: number): number {
    return this.#access('add', address, value);
  }

  /** Adds to a word that is only there to be checked, and returns what it was. */
  ghost(address: number, value = 0): number {
    return this.perform(operation('add', this.wordAt(address), value, 0, { ghost: true }));
  }

  /** Which of the words `addresses` was not 0. */
  receive(addresses: readonly number[]): number {
    const sources = addresses.map((address) => this.wordAt(address));
    return this.perform(operation('receive', 0, 0, 0, { sources }));
  }

  /** Takes every message that is there; returns how many. */
  takeAll(address: number): number {
    return this.perform(operation('exchange', this.wordAt(address), 0));
  }

  spawn(thread: number): void {
    this.perform(operation('spawn', 0, thread));
  }
}

function operation(
  kind: Kind,
  at: number,
  value = 0,
  expected = 0,
  more: Pick<Operation, 'sources' | 'message' | 'ghost' | 'ignored'> = {},
): Operation {
  return { kind, at, value, expected, ...more };
}

function isIndex(name: string | symbol): boolean {
  return typeof name === 'string' && /^\d+$/.test(name);
}

/** The word's value after an atomic access, given the value before; undefined if it is left alone. */
export function valueAfter(
  { kind, value, expected }: Operation,
  before: number,
): number | undefined {
  switch (kind) {
    case 'store':
    case 'write':
    case 'exchange':
      return value;
    case 'add':
      return (before + value) | 0;
    case 'sub':
      return (before - value) | 0;
    case 'or':
      return before | value;
    case 'compareExchange':
      return before === expected ? value : undefined;
    default:
      return undefined;
  }
}

/** What an access that blocks nobody returns, given the value before. */
export function resultOf({ kind, expected, ignored }: Operation, before: number): number {
  if (kind === 'wait') return before === expected ? WAIT_OK : WAIT_NOT_EQUAL;
  return ignored || kind === 'store' || kind === 'write' ? 0 : before;
}
