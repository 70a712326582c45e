/** The two hashes that dynamic symbols are looked up by. */

/** Of `DT_GNU_HASH`. */
export function gnuHash(name: string): number {
  let hash = 5381;
  for (let at = 0; at < name.length; at++) hash = (Math.imul(hash, 33) + name.charCodeAt(at)) >>> 0;
  return hash;
}

/** The same of a name that stands in a table of names, up to its NUL. */
export function gnuHashAt(names: Uint8Array, start: number): number {
  let hash = 5381;
  for (let at = start; at < names.length; at++) {
    const byte = names[at] as number;
    if (byte === 0) break;
    hash = (Math.imul(hash, 33) + byte) >>> 0;
  }
  return hash;
}

/** Of `DT_HASH`, and of the names of versions: gABI, chapter 5. */
export function sysvHash(name: string): number {
  let hash = 0;
  for (let at = 0; at < name.length; at++) {
    hash = (Math.imul(hash, 16) + name.charCodeAt(at)) >>> 0;
    const high = hash & 0xf0000000;
    hash = (hash ^ (high >>> 24) ^ high) >>> 0;
  }
  return hash;
}
