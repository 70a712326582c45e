/** The two versions of the compressor, compiled when they are needed. */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { compileLibrary } from '../../fixtures/compile.js';
import { packageRoot } from '../../fixtures/paths.js';

const sourcesDir = join(packageRoot, 'examples', 'compress');
const librariesDir = join(packageRoot, 'dist', 'examples', 'compress', 'lib');
const sharedHeader = join(sourcesDir, 'lz4_block.h');

/** The compressor's versions, in the order in which the demo deploys them. */
export const compressors = ['lz4_fast', 'lz4_chain'] as const;

/**
 * The paths of both libraries, after compiling those that are older than their sources.
 *
 * @throws if there is no C compiler, or it fails; the message says what to do
 */
export async function buildLibraries(): Promise<[first: string, second: string]> {
  return [await build(compressors[0]), await build(compressors[1])];
}

async function build(name: string): Promise<string> {
  const source = join(sourcesDir, `${name}.c`);
  const output = join(librariesDir, `${name}.so`);
  await removeIfOlder(output, sharedHeader);
  await compileLibrary({ source, output });
  return output;
}

/** compileLibrary knows the source and handler.h, not another header that the source includes. */
async function removeIfOlder(output: string, header: string): Promise<void> {
  const built = await stat(output).catch(() => undefined);
  if (built === undefined) return;
  const { mtimeMs } = await stat(header);
  if (built.mtimeMs < mtimeMs) await rm(output, { force: true });
}
