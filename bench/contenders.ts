/** Everyone who is measured: the same native function behind different ways of calling it. */

import koffi from 'koffi';
import { Piscina } from 'piscina';
import { HandlerRegistry } from '../src/index.js';
import { buildNative, echoLibrary } from './native.js';

/** A way to have a request echoed. */
export interface Contender {
  readonly name: string;
  call(request: Uint8Array): Promise<Uint8Array> | Uint8Array;
  close(): Promise<unknown>;
}

/** The timeout of the contender that gives one to each request: never reached. */
const TIMEOUT_MS = 10_000;

/** Starts a contender, with one thread each. */
export const contenders = {
  changeover: () => startEngine('changeover', undefined),
  'changeover with a timeout': () => startEngine('changeover with a timeout', TIMEOUT_MS),
  'piscina, default': async () => startPiscina(),
  'direct call': async () => directCall(),
} satisfies Record<string, () => Promise<Contender>>;

export type ContenderName = keyof typeof contenders;

async function startEngine(name: string, timeoutMs: number | undefined): Promise<Contender> {
  await buildNative();
  const registry = new HandlerRegistry({ threads: 1, defaultTimeoutMs: Number.POSITIVE_INFINITY });
  await registry.loadFrom('echo', echoLibrary);
  const call = async (request: Uint8Array) =>
    (
      await (timeoutMs === undefined
        ? registry.execute('echo', undefined, request)
        : registry.executeWithTimeout('echo', undefined, request, timeoutMs))
    ).bytes;
  return { name, call, close: () => registry.close() };
}

async function startPiscina(): Promise<Contender> {
  await buildNative();
  const pool = new Piscina({
    filename: new URL('./peer-worker.js', import.meta.url).href,
    minThreads: 1,
    maxThreads: 1,
  });
  return {
    name: 'piscina, default',
    call: (request) => pool.run(request),
    close: () => pool.close(),
  };
}

/** The limit: the native function called on the spot, which blocks the main thread. */
async function directCall(): Promise<Contender> {
  await buildNative();
  const echo = koffi
    .load(echoLibrary)
    .func('echo', 'uint64_t', ['const uint8_t *', 'uint64_t', 'uint8_t *']);
  const call = (request: Uint8Array) => {
    const response = new Uint8Array(request.length);
    echo(request, request.length, response);
    return response;
  };
  return { name: 'direct call', call, close: async () => undefined };
}
