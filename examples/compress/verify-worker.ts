/** Checks compressed blocks in a thread of the verifier's pool. */
import { decompressBlock } from 'lz4js';
import type { Claim } from './verify.js';

let decoded = new Uint8Array(0);

/** How many of the claims are wrong. */
export default function countWrong(claims: readonly Claim[]): number {
  return claims.filter((claim) => !isTrue(claim)).length;
}

function isTrue({ original, compressed }: Claim): boolean {
  if (decoded.length < original.length) decoded = new Uint8Array(original.length);
  try {
    const end = decompressBlock(compressed, decoded, 0, compressed.length, 0);
    return end === original.length && Buffer.compare(decoded.subarray(0, end), original) === 0;
  } catch {
    return false;
  }
}
