/** The native code that is measured: how it is built, and how it is called in the plain way. */

import { join } from 'node:path';
import koffi from 'koffi';
import { compileLibrary } from '../../fixtures/compile.js';
import { packageRoot } from '../../fixtures/paths.js';

export const workLibrary = join(packageRoot, 'dist/bench/native/libhandler_work.so');

export async function buildNative(): Promise<void> {
  await compileLibrary({ source: join(packageRoot, 'bench/native/work.c'), output: workLibrary });
}

/** The most that koffi allows at once; its default is 256. */
const MAX_ASYNC_CALLS = 4096;

/** Binds the native function to this thread, as one would without the engine. */
export function bindWork(): (request: Uint8Array) => Uint8Array<ArrayBuffer> {
  const work = bind();
  return (request) => {
    const response = new Uint8Array(request.length);
    work(request, request.length, response);
    return response;
  };
}

/** The same on koffi's own threads (libuv's pool). */
export function bindWorkAsync(): (request: Uint8Array) => Promise<Uint8Array> {
  koffi.config({ max_async_calls: MAX_ASYNC_CALLS });
  const work = bind();
  return (request) => {
    const response = new Uint8Array(request.length);
    return new Promise((resolve, reject) => {
      work.async(request, request.length, response, (error: Error | null) => {
        if (error === null) resolve(response);
        else reject(error);
      });
    });
  };
}

function bind() {
  const parameters = ['const uint8_t *', 'uint64_t', 'uint8_t *'];
  return koffi.load(workLibrary).func('work', 'uint64_t', parameters);
}
