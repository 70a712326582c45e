/**
 * Checks with a decoder that shares nothing with the compressors (lz4js) that a block decodes to
 * what went in.
 *
 * It decodes at about the speed of the fast compressor. A decoder beside the lanes cost them 25 to
 * 30 % of their throughput on two cores (measured), so it works in a pool of its own, in the time
 * between the compressing of one round and the reading of the next.
 */
import { Piscina } from 'piscina';
import { batches, sum } from './files.js';

/** That `compressed` is an LZ4 block of `original`. */
export interface Claim {
  original: Uint8Array;
  compressed: Uint8Array;
}

/** Enough that the cost of a task does not matter, small enough for all threads to have work. */
const BATCH_BYTES = 4 * 1024 * 1024;

export class Verifier {
  #pool: Piscina | undefined;

  /** Resolves to how many claims are wrong. `onChecked` is told the bytes of each batch. */
  async countWrong(claims: readonly Claim[], onChecked: (bytes: number) => void): Promise<number> {
    // Created here, so that its threads start outside the measured part of the run.
    this.#pool ??= new Piscina({ filename: new URL('./verify-worker.js', import.meta.url).href });
    const pool = this.#pool;

    const tasks = [...batches(claims, BATCH_BYTES, bytesOf)].map(async (batch) => {
      const wrong: number = await pool.run(batch.map(detached));
      onChecked(sum(batch, bytesOf));
      return wrong;
    });
    return sum(await Promise.all(tasks), (wrong) => wrong);
  }

  async close(): Promise<void> {
    await this.#pool?.close();
  }
}

const bytesOf = (claim: Claim) => claim.original.length;

/** A view is sent to a thread with all of the memory it is a view of: copy what is only a part. */
function detached({ original, compressed }: Claim): Claim {
  return { original: ownMemory(original), compressed: ownMemory(compressed) };
}

function ownMemory(bytes: Uint8Array): Uint8Array {
  return bytes.length === bytes.buffer.byteLength ? bytes : bytes.slice();
}
