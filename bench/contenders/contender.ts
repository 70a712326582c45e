/** What a contender is: a way of having a request answered by the native function. */

/** A contender that has started. */
export interface Contender {
  /** Answers with the request's bytes. Rejects, or throws, if it is shed or failed. */
  call(request: Uint8Array, options?: CallOptions): Promise<Uint8Array> | Uint8Array;
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

/** From here on, a buffer costs more to copy than to hand over. Measured: they meet between 8 and 32 KiB. */
export const TRANSFER_FROM_BYTES = 16_384;
