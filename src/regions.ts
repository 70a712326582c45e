/**
 * Request memory outside the ring, for requests that do not fit a slot's room.
 *
 * A region is a shared buffer that the lanes know by a number. A caller's own `SharedArrayBuffer` becomes a
 * region the first time it is used, and is never copied. Other large requests are copied into regions of
 * this table's own, by powers of two, which are used again.
 */

import { strict as assert } from 'node:assert';
import type { HostMessage, Region } from './lane-protocol.js';
import { reserveShared } from './shared-memory.js';

/** Idle regions are kept up to this many bytes in all; beyond that they are given back. */
const MAX_IDLE_BYTES = 64 * 1024 * 1024;
const SMALLEST_BYTES = 8192;

export class RegionTable {
  readonly #announce: (message: HostMessage) => void;
  /** Regions of our own, lent or idle. */
  readonly #own = new Map<number, SharedArrayBuffer>();
  /** Idle regions of our own by size: the one used last is on top. */
  readonly #idle = new Map<number, number[]>();
  #idleBytes = 0;
  readonly #adopted = new WeakMap<SharedArrayBuffer, number>();
  readonly #adoptedById = new Map<number, WeakRef<SharedArrayBuffer>>();
  readonly #collected = new FinalizationRegistry<number>((id) => {
    this.#adoptedById.delete(id);
    this.#announce({ type: 'forget', id });
  });
  #lastId = 0;

  /** `announce` posts to every lane, before any request that is submitted later. */
  constructor(announce: (message: HostMessage) => void) {
    this.#announce = announce;
  }

  /** All regions there are, for a lane that starts now. */
  list(): Region[] {
    const regions = [...this.#own].map(([id, memory]) => ({ id, memory }));
    for (const [id, reference] of this.#adoptedById) {
      const memory = reference.deref();
      if (memory !== undefined) regions.push({ id, memory });
    }
    return regions;
  }

  /** The region of a caller's own buffer. The caller must keep the buffer until the request is done. */
  adopt(memory: SharedArrayBuffer): number {
    const known = this.#adopted.get(memory);
    if (known !== undefined) return known;
    const id = this.#create(memory);
    this.#adopted.set(memory, id);
    this.#adoptedById.set(id, new WeakRef(memory));
    this.#collected.register(memory, id);
    return id;
  }

  /** A region with room for `byteLength` bytes. It is the caller's until `giveBack`. */
  borrow(byteLength: number): Region {
    const size = 2 ** Math.ceil(Math.log2(Math.max(byteLength, SMALLEST_BYTES)));
    const idle = this.#idle.get(size)?.pop();
    if (idle !== undefined) {
      this.#idleBytes -= size;
      const memory = this.#own.get(idle);
      assert(memory !== undefined, 'an idle region is in the table');
      return { id: idle, memory };
    }
    const memory = reserveShared(size);
    const id = this.#create(memory);
    this.#own.set(id, memory);
    return { id, memory };
  }

  /** Ends a loan. A caller's own region is left alone. */
  giveBack(id: number): void {
    const memory = this.#own.get(id);
    if (memory === undefined) return;
    const size = memory.byteLength;
    if (this.#idleBytes + size > MAX_IDLE_BYTES) {
      this.#own.delete(id);
      this.#announce({ type: 'forget', id });
      return;
    }
    this.#idleBytes += size;
    const sameSize = this.#idle.get(size);
    if (sameSize === undefined) this.#idle.set(size, [id]);
    else sameSize.push(id);
  }

  #create(memory: SharedArrayBuffer): number {
    this.#lastId += 1;
    this.#announce({ type: 'region', region: { id: this.#lastId, memory } });
    return this.#lastId;
  }
}
