/**
 * Runs one request at a time on one lane: from a slot of the ring through a call of the handler and back.
 *
 * A response that fits is copied into its slot, a larger one into the lane's outbox; one that is larger still goes to the host in a
 * buffer of its own, which is handed over, not copied again.
 */

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { BufferPool } from '../src/buffer-pool.js';
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
import { NO_PLACE, Outbox, PLACE_BYTES } from '../src/ring/outbox.js';
import type { Call } from './call.js';
import type { NativeMemory } from './native-library.js';

const encoder = new TextEncoder();

/** Memory that is kept for responses, once callers give it back. */
const POOL_BYTES = 64 * 1024 * 1024;

export class Server {
  readonly #memory: NativeMemory;
  readonly #call: Call;
  readonly #ring: RingConsumer;
  readonly #port: MessagePort;
  readonly #ringAddress: number;
  readonly #outbox: Outbox;
  readonly #outboxAddress: number;
  /** Request memory outside the ring, by region id. The buffer is kept so that its address stays valid. */
  readonly #regions = new Map<number, { memory: SharedArrayBuffer; address: number }>();
  readonly #pool = new BufferPool(POOL_BYTES);
  #mailRead: number;

  constructor(
    memory: NativeMemory,
    call: Call,
    ring: RingConsumer,
    task: Pick<LaneTask, 'port' | 'regions' | 'mail' | 'outbox'>,
  ) {
    this.#memory = memory;
    this.#call = call;
    this.#ring = ring;
    this.#port = task.port;
    this.#ringAddress = memory.addressOf(ring.bytes);
    this.#outbox = new Outbox(task.outbox);
    this.#outboxAddress = memory.addressOf(this.#outbox.bytes);
    this.#mailRead = task.mail;
    for (const region of task.regions) this.#addRegion(region.id, region.memory);
  }

  /** How much of the ring's mail this lane has read. */
  get mailRead(): number {
    return this.#mailRead;
  }

  /** Runs the request in `slot`, which this lane has taken, and completes it. Throws what the call throws. */
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
      this.#run(slot);
      doubles[timesAt + SLOT_DOUBLE.FINISHED_MS] = monotonicMs();
      this.#respond(slot);
    }
    this.#ring.complete(slot);
  }

  #run(slot: number): void {
    const { words, layout } = this.#ring;
    const at = slotAt(layout, slot);
    const requestIdLength = words[at + SLOT.REQUEST_ID_LENGTH] ?? 0;
    const metadataLength = words[at + SLOT.METADATA_LENGTH] ?? 0;
    const room = this.#ringAddress + requestRoomAt(layout, slot);
    const region = words[at + SLOT.REGION] ?? 0;
    this.#call.run(
      slot,
      room,
      requestIdLength,
      metadataLength,
      this.#ring.deadlineMs(slot),
      this.#ringAddress + (at + SLOT.CANCEL) * Int32Array.BYTES_PER_ELEMENT,
      region === 0
        ? room + contextBytes(requestIdLength, metadataLength)
        : this.#regionAddress(region) + ((words[at + SLOT.REQUEST_OFFSET] ?? 0) >>> 0),
      (words[at + SLOT.REQUEST_LENGTH] ?? 0) >>> 0,
    );
  }

  /** Takes the response over into the slot. */
  #respond(slot: number): void {
    const { words, layout } = this.#ring;
    const call = this.#call;
    switch (call.status) {
      case STATUS.OK:
        if (call.length > ROOM_BYTES) {
          this.#handOver(slot);
          break;
        }
        this.#finish(slot, STATUS.OK, call.length);
        call.copyResponse(this.#responseRoom(slot));
        break;
      case STATUS.HANDLER_FAILED:
        words[slotAt(layout, slot) + SLOT.HANDLER_CODE] = call.code;
        this.#finish(slot, STATUS.HANDLER_FAILED, call.length);
        call.copyResponse(this.#responseRoom(slot));
        break;
      case STATUS.INVALID_RESPONSE:
        this.#finish(slot, STATUS.INVALID_RESPONSE, this.#writeToRoom(slot, call.defect));
        break;
      default:
        this.#finish(slot, STATUS.RESPONSE_TOO_LARGE, call.length);
    }
    call.release();
  }

  #responseRoom(slot: number): number {
    return this.#ringAddress + responseRoomAt(this.#ring.layout, slot);
  }

  #writeToRoom(slot: number, text: string): number {
    const at = responseRoomAt(this.#ring.layout, slot);
    const bytes = encoder.encode(text);
    this.#ring.bytes.set(bytes, at);
    return bytes.length;
  }

  /** Leaves a response that does not fit its slot in the outbox, or sends it if it does not fit there either. */
  #handOver(slot: number): void {
    const { length } = this.#call;
    const place = length <= PLACE_BYTES ? this.#outbox.take() : NO_PLACE;
    if (place === NO_PLACE) {
      this.#finish(slot, STATUS.OK_POSTED, length);
      this.#post(slot);
      return;
    }
    const { words, layout } = this.#ring;
    words[slotAt(layout, slot) + SLOT.OUTBOX_PLACE] = place;
    this.#finish(slot, STATUS.OK_IN_OUTBOX, length);
    this.#call.copyResponse(this.#outboxAddress + this.#outbox.at(place));
  }

  /** Sends a large response in a buffer of its own. Must come before `complete`. */
  #post(slot: number): void {
    // What callers have given back is not announced, so that nobody has to be woken for it.
    this.#readPort();
    const bytes = this.#pool.take(this.#call.length);
    this.#call.copyResponse(this.#memory.addressOf(new Uint8Array(bytes)));
    const message: LaneMessage = { type: 'response', slot, bytes };
    this.#port.postMessage(message, [bytes]);
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
    this.#readPort();
    this.#mailRead = announced;
  }

  #readPort(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.#port);
      if (received === undefined) return;
      this.#read(received.message as HostMessage);
    }
  }

  #read(message: HostMessage): void {
    switch (message.type) {
      case 'region':
        this.#addRegion(message.region.id, message.region.memory);
        return;
      case 'forget':
        this.#regions.delete(message.id);
        return;
      case 'recycled':
        this.#pool.put(message.memory);
        return;
      case 'trim':
        this.#trim();
    }
  }

  /** To the host, which is not asleep: a thread that sleeps collects nothing. */
  #trim(): void {
    const buffers = this.#pool.empty();
    const message: LaneMessage = { type: 'trimmed' };
    if (buffers.length > 0) this.#port.postMessage(message, buffers);
  }

  #addRegion(id: number, memory: SharedArrayBuffer): void {
    const address = this.#memory.addressOf(new Uint8Array(memory, 0, memory.byteLength));
    this.#regions.set(id, { memory, address });
  }

  #regionAddress(id: number): number {
    // A region is posted before the first request that names it is submitted; its number may have been another's.
    this.readMail();
    const region = this.#regions.get(id);
    if (region === undefined) throw new Error(`region ${id} was not announced`);
    return region.address;
  }
}
