/** What a contender is: a way of having a request answered by the native function. */

/** A contender that has started. */
export interface Contender {
  /** Answers with the request's bytes. Rejects, or throws, if it is shed or failed. */
  call(request: Uint8Array, options?: CallOptions): Promise<Uint8Array> | Uint8Array;
  /** Gives a response back once it has been read, where there is such a thing. */
  release?(response: Uint8Array): void;
  close(): Promise<unknown>;
}

export interface CallOptions {
  /** Gives the request up after so long, in the contender's own way. */
  timeoutMs?: number;
}

/** What a question asks a contender to be. */
export interface Setting {
  threads: number;
  /** Most bytes of a request. Default 64 KiB. */
  maxPayloadBytes?: number;
  /**
   * Tasks that a configured pool may hand a worker at once. More is faster for short tasks, and lets short ones wait
   * behind long ones. Default 64.
   */
  tasksPerThread?: number;
  /** Most requests a pool holds before it sheds. Default: the contender's. */
  maxQueue?: number;
}

export interface ContenderKind {
  /** What a reader sees. */
  readonly label: string;
  readonly role: 'engine' | 'peer' | 'koffi' | 'limit';
  /** How it is set up, in a few words. */
  readonly setup: string;
  start(setting: Setting): Promise<Contender>;
}

/** The signal that most pools want for a timeout. */
export function signalOf({ timeoutMs }: CallOptions = {}): { signal?: AbortSignal } {
  return timeoutMs === undefined ? {} : { signal: AbortSignal.timeout(timeoutMs) };
}

/** From here on, a buffer costs more to copy than to hand over. Measured: they meet between 8 and 32 KiB. */
export const TRANSFER_FROM_BYTES = 16_384;

/** A pool in the manner of Piscina, whose tasks have names and may hand buffers over. */
interface NamingPool {
  run(
    task: Uint8Array,
    options: { name: string; transferList?: ArrayBuffer[]; signal?: AbortSignal },
  ): Promise<Uint8Array>;
}

/** Calls the worker's `moving`, and hands it a large request instead of having it copied. The caller keeps its own. */
export function callMoving(pool: NamingPool): Contender['call'] {
  return (request, options) => {
    const task = { name: 'moving', ...signalOf(options) };
    if (request.length < TRANSFER_FROM_BYTES) return pool.run(request, task);
    const own = request.slice();
    return pool.run(own, { ...task, transferList: [own.buffer] });
  };
}
