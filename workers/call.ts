/** A call of `handler_entry`, wherever the library is: in this thread, or in a process of its own. */
export interface Call {
  /**
   * Runs one request and sets the fields below. `strings` is the address of request id and metadata with their NULs.
   * Throws only if the library is gone, with the process it was in.
   */
  run(
    slot: number,
    strings: number,
    requestIdLength: number,
    metadataLength: number,
    deadlineMs: number,
    cancelFlag: number,
    request: number,
    requestLength: number,
  ): void;
  /** One of STATUS: OK, HANDLER_FAILED, RESPONSE_TOO_LARGE or INVALID_RESPONSE. */
  readonly status: number;
  /** What `handler_entry` returned. */
  readonly code: number;
  /** Bytes of the response, or of the message with HANDLER_FAILED. */
  readonly length: number;
  /** With INVALID_RESPONSE: what is wrong with it. */
  readonly defect: string;
  /** Copies the response or message to an address with room for `length` bytes. */
  copyResponse(to: number): void;
  /** Gives the response's memory back. The last thing that is done with it. */
  release(): void;
}
