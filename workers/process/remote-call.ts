/** A call of `handler_entry` in the lane's process. */

import { ROOM_BYTES, STATUS } from '../../src/ring/layout.js';
import type { Call } from '../call.js';
import type { NativeMemory } from '../native-library.js';
import { DOUBLE, TURN, WORD } from './lane-memory.js';
import { type LaneProcess, ProtocolError } from './lane-process.js';

/** Ours have fewer characters; a process that lies must not fill a slot's room and more. */
const LONGEST_DEFECT = 200;

export class RemoteCall implements Call {
  status: number = STATUS.OK;
  code = 0;
  length = 0;
  defect = '';
  readonly #native: NativeMemory;
  readonly #process: LaneProcess;

  constructor(native: NativeMemory, process: LaneProcess) {
    this.#native = native;
    this.#process = process;
  }

  /**
   * @throws {PeerGone} if the process has ended. `begun` then says whether it had begun with the request.
   * @throws {ProtocolError} if what it answered makes no sense.
   */
  run(
    slot: number,
    strings: number,
    requestIdLength: number,
    metadataLength: number,
    deadlineMs: number,
    _cancelFlag: number,
    request: number,
    requestLength: number,
  ): void {
    const { memory, channel } = this.#process;
    const { words, doubles, layout, address } = memory;
    const stringsLength = requestIdLength + metadataLength;
    // With their NULs, one of which is there also if one of them is empty.
    if (stringsLength > 0) {
      this.#native.copy(address + layout.contextAt, strings, stringsLength + 2);
    }
    if (requestLength > 0) this.#native.copy(address + layout.requestAt, request, requestLength);
    words[WORD.SLOT] = slot;
    words[WORD.REQUEST_ID_LENGTH] = requestIdLength;
    words[WORD.METADATA_LENGTH] = metadataLength;
    words[WORD.REQUEST_LENGTH] = requestLength;
    doubles[DOUBLE.DEADLINE_MS] = deadlineMs;
    channel.pass(TURN.CALL);
    const turn = channel.take();
    if (turn !== TURN.ANSWERED) throw new ProtocolError(`it answered a request with turn ${turn}`);
    this.#read();
  }

  /** Takes over what the process says, once, and believes none of it. */
  #read(): void {
    const { words, doubles, layout } = this.#process.memory;
    const status = words[WORD.STATUS] ?? STATUS.OK;
    const length = doubles[DOUBLE.RESPONSE_LENGTH] ?? 0;
    this.status = status;
    this.length = length;
    this.code = words[WORD.CODE] ?? 0;
    switch (status) {
      case STATUS.OK:
      case STATUS.HANDLER_FAILED: {
        const limit = status === STATUS.OK ? layout.responseBytes : ROOM_BYTES;
        if (Number.isInteger(length) && length >= 0 && length <= limit) return;
        throw new ProtocolError(`it says that its response has ${length} bytes`);
      }
      case STATUS.INVALID_RESPONSE:
        this.defect = this.#process.readText().slice(0, LONGEST_DEFECT);
        return;
      case STATUS.RESPONSE_TOO_LARGE:
        return;
      default:
        throw new ProtocolError(`it answered with status ${status}`);
    }
  }

  /** Whether the process has begun with the request it was given last. */
  get begun(): boolean {
    return this.#process.channel.turn !== TURN.CALL;
  }

  copyResponse(to: number): void {
    const { address, layout } = this.#process.memory;
    if (this.length > 0) this.#native.copy(to, address + layout.responseAt, this.length);
  }

  /** The memory is the lane's own, and the next response may have it. */
  release(): void {}
}
