/**
 * Compresses a directory at full speed, and deploys the second compressor half-way.
 *
 * The directory is taken in rounds that fit in memory. Each is read, then compressed, then
 * verified, so that the disk and the verifier do not compete with the lanes: the figures are of
 * compressing alone.
 */
import { HandlerRegistry } from '../../src/index.js';
import { DelayMeter } from './delay-meter.js';
import { Deployment } from './deployment.js';
import { type Block, batches, cutIntoBlocks, findFiles, readBlock, spread, sum } from './files.js';
import { buildLibraries, compressors } from './libraries.js';
import { type DemoOptions, UsageError } from './options.js';
import { type Progress, showProgress } from './progress.js';
import { hasPassed, type Report, versionReport } from './report.js';
import { Traffic } from './traffic.js';
import { Verifier } from './verify.js';

/** Bytes read at a time. What they become is kept beside them until it has been verified. */
const ROUND_BYTES = 256 * 1024 * 1024;
const READERS = 8;
/** Version 2 is loaded while everything else keeps the machine busy. */
const LOAD_TIMEOUT_MS = 60_000;

/**
 * Resolves to what was found, also if requests were lost or wrong.
 *
 * @throws UsageError if there is nothing to compress, or no compiler for the compressors
 * @throws the engine's error if a compressor cannot be loaded
 */
export async function run(options: DemoOptions): Promise<Report> {
  const { directory, chunkBytes, threads, inFlight } = options;
  const tree = await findFiles(directory);
  const blocks = spread(cutIntoBlocks(tree.files, chunkBytes));
  if (blocks.length === 0) throw new UsageError(`there are no files to compress in ${directory}`);
  const [fast, chain] = await buildLibraries().catch((cause: Error) => {
    throw new UsageError(cause.message, { cause });
  });

  const progress = nothingDone();
  const registry = new HandlerRegistry({
    threads,
    maxPayloadBytes: largestBlockBytes(chunkBytes),
    loadTimeoutMs: LOAD_TIMEOUT_MS,
  });
  const hideProgress = showProgress(progress, sum(blocks, lengthOf));
  try {
    await registry.loadFrom('compress', fast);
    const deployment = new Deployment(registry, chain);
    const traffic = new Traffic(registry, inFlight, () => deployment.start(), progress);
    const rounds = await runRounds(blocks, traffic, progress);
    const versions = [...traffic.versions.values()].sort((a, b) => a.version - b.version);

    const report = {
      directory,
      files: tree.files.length - rounds.unreadable,
      unreadable: tree.unreadable + rounds.unreadable,
      blocks: rounds.blocks,
      chunkBytes,
      threads,
      inFlight,
      requests: sum(versions, ({ requests }) => requests) + traffic.lost,
      repeats: traffic.repeats,
      bytesIn: sum(versions, ({ bytesIn }) => bytesIn),
      bytesOut: sum(versions, ({ bytesOut }) => bytesOut),
      versions: versions.map((tally) => versionReport(tally, compressors[tally.version - 1] ?? '')),
      lost: traffic.lost,
      firstError: traffic.firstError === undefined ? undefined : String(traffic.firstError),
      wrong: rounds.wrong,
      swapMs: deployment.swapMs,
      pendingAtSwap: deployment.pendingRequests,
      drain: await deployment.drained,
      eventLoopDelayP99Ms: rounds.delay.p99Ms,
      eventLoopDelayMaxMs: rounds.delay.maxMs,
      engineMs: traffic.engineMs,
    };
    return { ...report, passed: hasPassed(report) };
  } finally {
    hideProgress();
    await registry.close();
  }
}

async function runRounds(blocks: readonly Block[], traffic: Traffic, progress: Progress) {
  const verifier = new Verifier();
  const delay = new DelayMeter();
  const halfBytes = sum(blocks, lengthOf) / 2;
  const unreadable = new Set<string>();
  let bytesBefore = 0;
  let blocksRead = 0;
  let wrong = 0;

  try {
    for (const round of batches(blocks, ROUND_BYTES, lengthOf)) {
      progress.phase = 'reading';
      const originals = await readAll(round, unreadable, progress);
      blocksRead += originals.length;
      const deployAtBytes = deploymentPoint(halfBytes - bytesBefore, round, originals);
      bytesBefore += sum(round, lengthOf);

      progress.phase = 'compressing';
      const claims = await delay.during(() => traffic.send(originals, deployAtBytes));

      progress.phase = 'verifying';
      wrong += await verifier.countWrong(claims, (bytes) => {
        progress.doneBytes += bytes;
      });
    }
  } finally {
    await verifier.close();
  }
  return { blocks: blocksRead, unreadable: unreadable.size, wrong, delay };
}

/** After how many bytes of this round half of all have been sent; infinite if that is later. */
function deploymentPoint(
  bytesUntilHalf: number,
  planned: readonly Block[],
  originals: readonly Uint8Array[],
): number {
  if (sum(planned, lengthOf) < bytesUntilHalf) return Number.POSITIVE_INFINITY;
  // There may be less than planned, if files have become shorter or unreadable: then with the last.
  return Math.min(bytesUntilHalf, sum(originals, lengthOf));
}

/** Reads blocks, several at a time. Those of unreadable files are left out and the files noted. */
async function readAll(blocks: readonly Block[], unreadable: Set<string>, progress: Progress) {
  const originals: Uint8Array[] = [];
  const queue = blocks.values();
  const readers = Array.from({ length: READERS }, async () => {
    for (const block of queue) {
      const bytes = await readBlock(block);
      if (bytes === undefined) unreadable.add(block.path);
      else originals.push(bytes);
      progress.doneBytes += block.length;
    }
  });
  await Promise.all(readers);
  return originals;
}

/** Request and response have one limit: incompressible blocks grow by a byte in 255. */
function largestBlockBytes(chunkBytes: number): number {
  return chunkBytes + Math.floor(chunkBytes / 255) + 16;
}

function nothingDone(): Progress {
  return {
    phase: 'reading',
    doneBytes: 0,
    compressedBytes: 0,
    compressingMs: 0,
    version: 1,
    inFlight: 0,
  };
}

const lengthOf = ({ length }: { length: number }) => length;
