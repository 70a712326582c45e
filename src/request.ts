/**
 * What a caller sends: checked, measured and written into shared memory.
 *
 * The bytes are taken at the call: a caller may use its buffer again as soon as `execute` has returned.
 * The exception is memory that is shared already, which is passed on as it is, without a copy, if it begins at a
 * multiple of 8 bytes.
 */

import { types } from 'node:util';
import { InvalidRequestError, PayloadTooLargeError } from './errors.js';
import { toJson } from './json-value.js';
import { copyInto } from './native-copy.js';
import type { RegionTable } from './regions.js';
import { ALIGNMENT, contextBytes, ROOM_BYTES, requestRoomAt, SLOT, slotAt } from './ring/layout.js';
import type { RingProducer } from './ring/producer.js';
import { show } from './show.js';

/**
 * A request: bytes (any `ArrayBuffer` or `SharedArrayBuffer`, or any view of one), a string (sent as UTF-8), or
 * a JSON value (sent as UTF-8 JSON).
 */
export type RequestPayload = string | number | boolean | null | object;

/** What travels beside a request. The handler sees both. Together at most 4,088 bytes of UTF-8. */
export interface RequestContext {
  /** The caller's name for the request, for logs and traces. */
  requestId?: string;
  /** Any JSON value, such as `{ traceparent }`. */
  metadata?: unknown;
}

/** A request that has been checked and measured. */
export interface EncodedRequest {
  readonly body: Uint8Array | string;
  readonly byteLength: number;
  /**
   * The memory that the bytes are in, if it is shared. Asking a view for its memory takes 30 ns, so
   * it is done once.
   */
  readonly shared: SharedArrayBuffer | null;
  readonly requestId: string;
  readonly requestIdLength: number;
  /** JSON text; empty if there is none. */
  readonly metadata: string;
  readonly metadataLength: number;
}

/** Both strings with their NULs fit a slot's room. */
const MAX_CONTEXT_BYTES = ROOM_BYTES - 8;

/**
 * Checks and measures a request.
 *
 * @throws {InvalidRequestError} if it is nothing that can be sent.
 * @throws {PayloadTooLargeError} if it has more than `maxPayloadBytes`, or its context is too large.
 */
export function encodeRequest(
  context: RequestContext | undefined,
  request: RequestPayload,
  maxPayloadBytes: number,
): EncodedRequest {
  checkContext(context);
  const requestId = context?.requestId ?? '';
  if (typeof requestId !== 'string') {
    throw new InvalidRequestError(`requestId must be a string; got ${show(requestId)}`);
  }
  // To a handler in C the string would end there, and be another request's id.
  if (requestId.includes('\0')) throw new InvalidRequestError('requestId must not contain a NUL');
  const metadata = context?.metadata === undefined ? '' : toJson(context.metadata, 'metadata');
  const requestIdLength = requestId === '' ? 0 : Buffer.byteLength(requestId);
  const metadataLength = metadata === '' ? 0 : Buffer.byteLength(metadata);
  const contextLength = requestIdLength + metadataLength;
  if (contextLength > MAX_CONTEXT_BYTES) {
    throw new PayloadTooLargeError(
      { limitBytes: MAX_CONTEXT_BYTES, actualBytes: contextLength },
      `requestId and metadata have ${contextLength} bytes of UTF-8 and may have ${MAX_CONTEXT_BYTES}; send large data in the request`,
    );
  }
  // Last: a toJSON or a getter above may have changed what there is to send, and nothing of the caller's runs after this.
  const memory = typeof request === 'string' ? null : memoryOf(request);
  const body = encodeBody(request, memory);
  const byteLength = typeof body === 'string' ? Buffer.byteLength(body) : body.byteLength;
  if (byteLength > maxPayloadBytes) {
    throw new PayloadTooLargeError(
      { limitBytes: maxPayloadBytes, actualBytes: byteLength },
      `the request has ${byteLength} bytes, and maxPayloadBytes is ${maxPayloadBytes}; send less or raise maxPayloadBytes`,
    );
  }
  const shared = memory instanceof SharedArrayBuffer ? memory : null;
  return { body, byteLength, shared, requestId, requestIdLength, metadata, metadataLength };
}

/**
 * Checks that the bytes are still those that were measured, after code of the caller's has run.
 *
 * @throws {InvalidRequestError} if their buffer was transferred meanwhile.
 */
export function requireUnchanged({ body, byteLength }: EncodedRequest): void {
  if (typeof body !== 'string' && body.byteLength !== byteLength) throw bytesGone();
}

function checkContext(context: unknown): void {
  if (context === undefined) return;
  const fits =
    typeof context === 'object' &&
    context !== null &&
    !Array.isArray(context) &&
    !ArrayBuffer.isView(context);
  if (fits) {
    if (!('signal' in context)) return;
    throw new InvalidRequestError(
      'the context has no signal; give { signal } after the request, or after the timeout of executeWithTimeout',
    );
  }
  throw new InvalidRequestError(
    `the context comes before the request and must be { requestId?, metadata? } or undefined; got ${show(context)}`,
  );
}

/** The same request with bytes of its own, for one that has to wait before it can be written. */
export function detachRequest(request: EncodedRequest): EncodedRequest {
  const { body, shared } = request;
  if (typeof body === 'string' || shared !== null) return request;
  return { ...request, body: new Uint8Array(body) };
}

/** Memory that a request holds while it waits. Shared bytes are the caller's. */
export function ownBytes({
  byteLength,
  shared,
  requestIdLength,
  metadataLength,
}: EncodedRequest): number {
  const context = requestIdLength + metadataLength;
  return shared === null ? context + byteLength : context;
}

/** Bytes of a region of the engine's own that a request needs; 0 if it needs none. */
export function borrowedBytes(request: EncodedRequest): number {
  const { body, byteLength, shared, requestIdLength, metadataLength } = request;
  if (contextBytes(requestIdLength, metadataLength) + byteLength <= ROOM_BYTES) return 0;
  return shared !== null && typeof body !== 'string' && isAddressable(body) ? 0 : byteLength;
}

/** Writes a request into a slot that the host holds. Returns the region it borrowed or adopted, or 0. */
export function writeRequest(
  ring: RingProducer,
  room: Buffer,
  regions: RegionTable,
  slot: number,
  request: EncodedRequest,
): number {
  const { words, layout } = ring;
  const { body, byteLength, shared } = request;
  const at = slotAt(layout, slot);
  const roomAt = requestRoomAt(layout, slot);
  const context = writeContext(room, roomAt, request);
  let region = 0;
  let offset = 0;
  if (byteLength > 0 && shared !== null && typeof body !== 'string' && isAddressable(body)) {
    region = regions.adopt(shared);
    offset = body.byteOffset;
  } else if (context + byteLength <= ROOM_BYTES) {
    writeBody(room, roomAt + context, body);
  } else {
    const borrowed = regions.borrow(byteLength);
    region = borrowed.id;
    writeBody(Buffer.from(borrowed.memory, 0, borrowed.memory.byteLength), 0, body);
  }
  words[at + SLOT.REGION] = region;
  words[at + SLOT.REQUEST_OFFSET] = offset;
  words[at + SLOT.REQUEST_LENGTH] = byteLength;
  words[at + SLOT.REQUEST_ID_LENGTH] = request.requestIdLength;
  words[at + SLOT.METADATA_LENGTH] = request.metadataLength;
  return region;
}

function writeContext(room: Buffer, at: number, request: EncodedRequest): number {
  const { requestIdLength, metadataLength } = request;
  const length = contextBytes(requestIdLength, metadataLength);
  if (length === 0) return 0;
  room.write(request.requestId, at, 'utf8');
  room[at + requestIdLength] = 0;
  room.write(request.metadata, at + requestIdLength + 1, 'utf8');
  room[at + requestIdLength + 1 + metadataLength] = 0;
  return length;
}

function writeBody(target: Buffer, at: number, body: Uint8Array | string): void {
  if (typeof body === 'string') target.write(body, at, 'utf8');
  else copyInto(target, at, body);
}

/** The memory of a request of bytes; null for any other request. */
function memoryOf(request: RequestPayload): ArrayBufferLike | null {
  if (ArrayBuffer.isView(request)) return request.buffer;
  return types.isAnyArrayBuffer(request) ? request : null;
}

function encodeBody(request: RequestPayload, memory: ArrayBufferLike | null): Uint8Array | string {
  if (typeof request === 'string') return request;
  if (memory !== null) {
    return ArrayBuffer.isView(request) ? bytesOf(request, memory) : bytesIn(memory);
  }
  if (typeof request === 'object' && request !== null && 'then' in request) {
    throw new InvalidRequestError('the request must not be a promise; await it first');
  }
  return toJson(request, 'the request');
}

/** Every typed array has it, and it throws for one whose memory is gone. */
const requireUsable = Object.getPrototypeOf(Uint8Array.prototype).keys as (this: object) => unknown;

/**
 * The bytes of a view, as many as it has now: a buffer that grows or shrinks later must not change what was checked.
 *
 * A view whose memory was transferred, or that a shrunk buffer has no room for any more, looks as if it were empty.
 */
function bytesOf(view: ArrayBufferView, memory: ArrayBufferLike): Uint8Array {
  // Nearly always: nothing can be wrong with it, and a view more would cost as much as the rest of this file.
  if (view instanceof Uint8Array && view.byteLength > 0 && !isResizable(memory)) return view;
  return fixedBytesOf(view, memory);
}

/** Apart from `bytesOf`, which would allocate what the closure captures on every call. */
function fixedBytesOf(view: ArrayBufferView, memory: ArrayBufferLike): Uint8Array {
  return fixed(() => {
    // A DataView throws by itself where its length is asked for.
    if (!types.isDataView(view) && view.byteLength === 0) requireUsable.call(view);
    return new Uint8Array(memory, view.byteOffset, view.byteLength);
  });
}

/** A buffer that was transferred elsewhere would be taken for an empty one, or throw. */
function bytesIn(memory: ArrayBufferLike): Uint8Array {
  return fixed(() => new Uint8Array(memory, 0, memory.byteLength));
}

/** In any realm, so no class is asked for. */
function isResizable(buffer: { growable?: boolean; resizable?: boolean }): boolean {
  return buffer.growable === true || buffer.resizable === true;
}

function fixed(take: () => Uint8Array): Uint8Array {
  try {
    return take();
  } catch (cause) {
    throw bytesGone(cause);
  }
}

function bytesGone(cause?: unknown): InvalidRequestError {
  return new InvalidRequestError(
    'the bytes of the request are gone: their buffer was transferred elsewhere, or has become smaller than the view; send them before, or a copy',
    { cause },
  );
}

/** Whether the handler can read it in place: an offset has 32 bits, and requests are aligned. */
function isAddressable(shared: Uint8Array): boolean {
  return shared.byteOffset < 2 ** 32 && shared.byteOffset % ALIGNMENT === 0;
}
