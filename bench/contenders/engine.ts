/** The engine, as a caller uses it. */

import { type EndpointOptions, HandlerRegistry, type HandlerResponse } from '../../src/index.js';
import { workLibrary } from '../native/library.js';
import type { Contender, Setting } from './contender.js';

export async function startEngine(
  setting: Setting,
  options: EndpointOptions = {},
): Promise<Contender & { registry: HandlerRegistry }> {
  const { threads, maxPayloadBytes = 65_536, maxQueue } = setting;
  const registry = new HandlerRegistry({
    threads,
    maxPayloadBytes,
    ...(maxQueue === undefined ? {} : { maxQueue }),
    ...options,
  });
  await registry.loadFrom('work', workLibrary);
  return {
    registry,
    call: async (request, { timeoutMs } = {}) =>
      (
        await (timeoutMs === undefined
          ? registry.execute('work', undefined, request)
          : registry.executeWithTimeout('work', undefined, request, timeoutMs))
      ).bytes,
    close: () => registry.close(),
  };
}

/** The engine, as a caller uses it who gives each response back once it has been read. */
export async function startReleasing(setting: Setting): Promise<Contender> {
  const { registry, close } = await startEngine(setting);
  const responses = new WeakMap<Uint8Array, HandlerResponse>();
  return {
    call: async (request) => {
      const response = await registry.execute('work', undefined, request);
      responses.set(response.bytes, response);
      return response.bytes;
    },
    release: (bytes) => responses.get(bytes)?.release(),
    close,
  };
}
