/**
 * Runs one request at a time on one lane: from a slot of the ring through `handler_entry` and back.
 *
 * The handler writes its response into this lane's window. A response that fits is then copied into its slot; a larger one
 * goes to the host in a buffer of its own, which is handed over, not copied again.
 */

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { monotonicMs } from '../src/clock.js';
import type { HostMessage, LaneMessage, LaneTask } from '../src/lane-protocol.js';
import type { RingConsumer } from '../src/ring/consumer.js';
import {
  contextBytes,
  ROOM_BYTES,
  requestRoomAt,
  responseRoomAt,
  SLOT,
  SLOT_DOUBLE,
  STATUS,
  slotAt,
  slotDoubleAt,
} from '../src/ring/layout.js';
import type { CallFrame } from './call-frame.js';
import type { NativeLibrary, NativeMemory } from './native-library.js';
import { ResponseWindow } from './response-window.js';

/** HANDLER_RESPONSE_TOO_LARGE in include/handler.h. */
const RESPONSE_TOO_LARGE_CODE = -2147483001;

const encoder = new TextEncoder();

export class Server {
  readonly #memory: NativeMemory;
  readonly #library: NativeLibrary;
  readonly #frame: CallFrame;
  readonly #ring: RingConsumer;
  readonly #port: MessagePort;
  readonly #ringAddress: number;
  readonly #maxPayloadBytes: number;
  readonly #window: ResponseWindow;
  /** Request memory outside the ring, by region id. The buffer is kept so that its address stays valid. */
  readonly #regions = new Map<number, { memory: SharedArrayBuffer; address: number }>();
  #mailRead: number;

  constructor(
    memory: NativeMemory,
    library: NativeLibrary,
    frame: CallFrame,
    ring: RingConsumer,
    task: Pick<LaneTask, 'port' | 'maxPayloadBytes' | 'regions' | 'mail'>,
  ) {
    this.#memory = memory;
    this.#library = library;
    this.#frame = frame;
    this.#ring = ring;
    this.#port = task.port;
    this.#ringAddress = memory.addressOf(ring.bytes);
    this.#maxPayloadBytes = task.maxPayloadBytes;
    this.#window = new ResponseWindow(memory, frame, task.maxPayloadBytes);
    this.#mailRead = task.mail;
    for (const region of task.regions) this.#addRegion(region.id, region.memory);
  }

  /** How much of the ring's mail this lane has read. */
  get mailRead(): number {
    return this.#mailRead;
  }

  /** Runs the request in `slot`, which this lane has taken, and completes it. */
  serve(slot: number): void {
    const { doubles, layout } = this.#ring;
    const timesAt = slotDoubleAt(layout, slot);
    const startedMs = monotonicMs();
    doubles[timesAt + SLOT_DOUBLE.STARTED_MS] = startedMs;
    // The host withdraws what is late, but it may be late itself: what is past its deadline never runs.
    if (this.#ring.deadlineMs(slot) <= startedMs) {
      doubles[timesAt + SLOT_DOUBLE.FINISHED_MS] = startedMs;
      this.#finish(slot, STATUS.EXPIRED, 0);
    } else {
      const code = this.#call(slot);
      doubles[timesAt + SLOT_DOUBLE.FINISHED_MS] = monotonicMs();
      this.#respond(slot, code);
    }
    this.#ring.complete(slot);
  }

  #call(slot: number): number {
    const { words, layout } = this.#ring;
    const at = slotAt(layout, slot);
    const requestIdLength = words[at + SLOT.REQUEST_ID_LENGTH] ?? 0;
    const metadataLength = words[at + SLOT.METADATA_LENGTH] ?? 0;
    const room = this.#ringAddress + requestRoomAt(layout, slot);
    this.#frame.setContext(
      room,
      requestIdLength,
      metadataLength,
      this.#ring.deadlineMs(slot),
      this.#ringAddress + (at + SLOT.CANCEL) * Int32Array.BYTES_PER_ELEMENT,
    );
    const region = words[at + SLOT.REGION] ?? 0;
    this.#frame.setRequest(
      region === 0
        ? room + contextBytes(requestIdLength, metadataLength)
        : this.#regionAddress(region) + ((words[at + SLOT.REQUEST_OFFSET] ?? 0) >>> 0),
      (words[at + SLOT.REQUEST_LENGTH] ?? 0) >>> 0,
    );
    this.offerResponse();
    return this.#library.call(this.#frame.context, this.#frame.request, this.#frame.response);
  }

  /** Offers the window for a response. */
  offerResponse(): void {
    this.#window.offer();
  }

  /** The message that the handler left with an error code. */
  readMessage(): string {
    return this.#window.readMessage();
  }

  /** Takes the response over into the slot. */
  #respond(slot: number, code: number): void {
    const { words, layout } = this.#ring;
    const frame = this.#frame;
    const length = frame.responseLength;
    const address = frame.responseAddress;
    let isThere = true;
    if (code === RESPONSE_TOO_LARGE_CODE) {
      this.#finish(slot, STATUS.RESPONSE_TOO_LARGE, length);
    } else if (code !== 0) {
      words[slotAt(layout, slot) + SLOT.HANDLER_CODE] = code;
      const messageLength = Math.min(length, ROOM_BYTES);
      isThere = this.#window.defect(messageLength) === null;
      this.#finish(slot, STATUS.HANDLER_FAILED, isThere ? messageLength : 0);
      if (isThere) this.#copyToRoom(slot, address, messageLength);
    } else {
      const defect = this.#window.defect(length);
      isThere = defect === null;
      if (defect !== null) {
        this.#finish(slot, STATUS.INVALID_RESPONSE, this.#writeToRoom(slot, defect));
      } else if (length > this.#maxPayloadBytes) {
        this.#finish(slot, STATUS.RESPONSE_TOO_LARGE, length);
      } else if (length <= ROOM_BYTES) {
        this.#finish(slot, STATUS.OK, length);
        this.#copyToRoom(slot, address, length);
      } else {
        this.#finish(slot, STATUS.OK_POSTED, length);
        this.#post(slot, length);
      }
    }
    // What is not there cannot be given back either.
    if (isThere && this.#window.isOwn()) this.#library.release?.(frame.response);
  }

  #copyToRoom(slot: number, address: number, length: number): void {
    if (length === 0) return;
    const room = this.#ringAddress + responseRoomAt(this.#ring.layout, slot);
    this.#memory.copy(room, address, length);
  }

  #writeToRoom(slot: number, text: string): number {
    const at = responseRoomAt(this.#ring.layout, slot);
    const bytes = encoder.encode(text);
    this.#ring.bytes.set(bytes, at);
    return bytes.length;
  }

  /** Sends a large response in a buffer of its own. Must come before `complete`. */
  #post(slot: number, length: number): void {
    const bytes = this.#window.read(length);
    const message: LaneMessage = { type: 'response', slot, bytes: bytes.buffer };
    this.#port.postMessage(message, [bytes.buffer]);
  }

  #finish(slot: number, status: number, responseLength: number): void {
    const { words, doubles, layout } = this.#ring;
    words[slotAt(layout, slot) + SLOT.STATUS] = status;
    doubles[slotDoubleAt(layout, slot) + SLOT_DOUBLE.RESPONSE_LENGTH] = responseLength;
  }

  /** Reads what the host has posted. */
  readMail(): void {
    const announced = this.#ring.mail;
    if (announced === this.#mailRead) return;
    for (;;) {
      const received = receiveMessageOnPort(this.#port);
      if (received === undefined) break;
      const message = received.message as HostMessage;
      if (message.type === 'region') this.#addRegion(message.region.id, message.region.memory);
      else this.#regions.delete(message.id);
    }
    this.#mailRead = announced;
  }

  #addRegion(id: number, memory: SharedArrayBuffer): void {
    const address = this.#memory.addressOf(new Uint8Array(memory, 0, memory.byteLength));
    this.#regions.set(id, { memory, address });
  }

  #regionAddress(id: number): number {
    // A region is posted before the first request that names it is submitted.
    if (!this.#regions.has(id)) this.readMail();
    const region = this.#regions.get(id);
    if (region === undefined) throw new Error(`region ${id} was not announced`);
    return region.address;
  }
}
