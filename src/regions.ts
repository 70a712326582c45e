/**
 * Request memory outside the ring, for requests that do not fit a slot's room.
 *
 * A region is a shared buffer that the lanes know by a number. A caller's own `SharedArrayBuffer` becomes a
 * region the first time it is used, and is never copied. Other large requests are copied into regions of
 * the engine's own, by powers of two, which are used again.
 *
 * The engine's own come out of one budget for all versions of a registry. A request that finds it used up waits
 * in its version's queue. Each version may exceed it by one request, so that one whose calls never return
 * cannot keep all others waiting.
 */

import { strict as assert } from 'node:assert';
import { monotonicMs } from './clock.js';
import type { HostMessage, Region } from './lane-protocol.js';
import { discardPages, reserveShared } from './shared-memory.js';

/** A region that nobody has used for so long is given back to the system. */
const IDLE_MS = 2000;
const SMALLEST_BYTES = 8192;

/** A region of the engine's own. */
interface OwnRegion extends Region {
  readonly table: RegionTable;
  readonly byteLength: number;
  isLent: boolean;
  /** When it was given back, unless it is lent. */
  idleSinceMs: number;
}

/** How much memory the regions of a registry may have, lent and idle. */
export class RegionBudget {
  readonly limitBytes: number;
  #usedBytes = 0;
  /** The one that has been idle longest is first. */
  readonly #idle = new Set<OwnRegion>();
  #idleBytes = 0;
  /** Whom to tell when there may be room. */
  readonly #waiting = new Set<() => void>();
  #isTelling = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  /** Bytes of all regions, lent and idle. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Whether so much can be lent within the limit, at the cost of idle regions. */
  hasRoomFor(byteLength: number): boolean {
    return this.#usedBytes - this.#idleBytes + byteLength <= this.limitBytes;
  }

  /** Calls `told` once, in a later turn of the event loop, when something has been given back. */
  awaitRoom(told: () => void): void {
    this.#waiting.add(told);
  }

  /** Takes `byteLength` out of the budget, whether or not there is room. Idle regions go first. */
  take(byteLength: number): void {
    for (const oldest of this.#idle) {
      if (this.#usedBytes + byteLength <= this.limitBytes) break;
      this.#evict(oldest);
    }
    this.#usedBytes += byteLength;
  }

  /** Gives back what `take` took. */
  release(byteLength: number): void {
    this.#usedBytes -= byteLength;
    this.#tell();
  }

  /** Keeps a region for later, as long as nobody else needs its memory. */
  park(region: OwnRegion): void {
    region.idleSinceMs = monotonicMs();
    this.#idle.add(region);
    this.#idleBytes += region.byteLength;
    this.#timer ??= setTimeout(this.#evictOld, IDLE_MS).unref();
    this.#tell();
  }

  /** The region is lent again, or is no more. */
  unpark(region: OwnRegion): void {
    assert(this.#idle.delete(region), 'a region is idle before it is lent');
    this.#idleBytes -= region.byteLength;
  }

  #evict(region: OwnRegion): void {
    this.unpark(region);
    this.#usedBytes -= region.byteLength;
    region.table.forget(region);
  }

  readonly #evictOld = (): void => {
    this.#timer = null;
    const nowMs = monotonicMs();
    for (const oldest of this.#idle) {
      const leftMs = oldest.idleSinceMs + IDLE_MS - nowMs;
      if (leftMs > 0) {
        this.#timer = setTimeout(this.#evictOld, Math.ceil(leftMs)).unref();
        return;
      }
      this.#evict(oldest);
    }
  };

  #tell(): void {
    if (this.#isTelling || this.#waiting.size === 0) return;
    this.#isTelling = true;
    setImmediate(() => {
      this.#isTelling = false;
      const waiting = [...this.#waiting];
      this.#waiting.clear();
      for (const told of waiting) told();
    });
  }
}

/** The regions of one version. */
export class RegionTable {
  readonly #announce: (message: HostMessage) => void;
  readonly #budget: RegionBudget;
  /** Regions of our own, lent or idle. */
  readonly #own = new Map<number, OwnRegion>();
  /** Idle regions of our own by size: the one used last is on top. */
  readonly #idle = new Map<number, OwnRegion[]>();
  #lent = 0;
  readonly #adopted = new WeakMap<SharedArrayBuffer, number>();
  readonly #adoptedById = new Map<number, WeakRef<SharedArrayBuffer>>();
  readonly #collected = new FinalizationRegistry<number>((id) => {
    this.#adoptedById.delete(id);
    this.#retire(id);
  });
  /** Numbers that are free again. Without them, the numbers of a busy service would not last. */
  readonly #freeIds: number[] = [];
  #lastId = 0;

  /** `announce` posts to every lane, before any request that is submitted later. */
  constructor(announce: (message: HostMessage) => void, budget: RegionBudget) {
    this.#announce = announce;
    this.#budget = budget;
  }

  /** All regions there are, for a lane that starts now. */
  list(): Region[] {
    const regions: Region[] = [...this.#own.values()].map(({ id, memory }) => ({ id, memory }));
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
    const id = this.#introduce(memory);
    this.#adopted.set(memory, id);
    this.#adoptedById.set(id, new WeakRef(memory));
    this.#collected.register(memory, id);
    return id;
  }

  /** Whether `borrow` may be called now: there is room, or nothing is lent to this version. */
  hasRoomFor(byteLength: number): boolean {
    return (
      byteLength === 0 || this.#lent === 0 || this.#budget.hasRoomFor(sizeOfRegion(byteLength))
    );
  }

  /** Calls `told` once, when it is worth another look at `hasRoomFor`. */
  awaitRoom(told: () => void): void {
    this.#budget.awaitRoom(told);
  }

  /**
   * A region with room for `byteLength` bytes. It is the caller's until `giveBack`.
   *
   * @throws {RangeError} if there is no memory.
   */
  borrow(byteLength: number): Region {
    const size = sizeOfRegion(byteLength);
    const idle = this.#idle.get(size)?.pop();
    if (idle !== undefined) this.#budget.unpark(idle);
    const region = idle ?? this.#create(size);
    region.isLent = true;
    this.#lent += 1;
    return region;
  }

  #create(byteLength: number): OwnRegion {
    this.#budget.take(byteLength);
    let memory: SharedArrayBuffer;
    try {
      memory = reserveShared(byteLength);
    } catch (error) {
      this.#budget.release(byteLength);
      throw error;
    }
    const id = this.#introduce(memory);
    const region = { id, memory, table: this, byteLength, isLent: true, idleSinceMs: 0 };
    this.#own.set(id, region);
    return region;
  }

  /** Ends a loan. A caller's own region is left alone. */
  giveBack(id: number): void {
    const region = this.#own.get(id);
    if (region === undefined) return;
    this.#lent -= 1;
    region.isLent = false;
    const sameSize = this.#idle.get(region.byteLength);
    if (sameSize === undefined) this.#idle.set(region.byteLength, [region]);
    else sameSize.push(region);
    this.#budget.park(region);
  }

  /** For the budget: the memory of an idle region goes back to the system. */
  forget(region: OwnRegion): void {
    const sameSize = this.#idle.get(region.byteLength);
    const at = sameSize?.indexOf(region) ?? -1;
    assert(sameSize !== undefined && at !== -1, 'what is forgotten is idle');
    sameSize.splice(at, 1);
    this.#own.delete(region.id);
    this.#retire(region.id);
    // At once: until all threads have collected the buffer, it may be minutes.
    discardPages(region.memory);
  }

  /** Gives everything back. No lane may be left, though one may have left before it passed over a withdrawn request. */
  dispose(): void {
    for (const region of this.#own.values()) {
      if (!region.isLent) this.#budget.unpark(region);
      this.#budget.release(region.byteLength);
      discardPages(region.memory);
    }
    this.#own.clear();
    this.#idle.clear();
    this.#lent = 0;
  }

  #introduce(memory: SharedArrayBuffer): number {
    const id = this.#freeIds.pop() ?? ++this.#lastId;
    this.#announce({ type: 'region', region: { id, memory } });
    return id;
  }

  #retire(id: number): void {
    this.#announce({ type: 'forget', id });
    this.#freeIds.push(id);
  }
}

/** A power of two, so that regions fit more than one request. */
function sizeOfRegion(byteLength: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(byteLength, SMALLEST_BYTES)));
}
