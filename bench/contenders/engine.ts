/** The engine, as a caller uses it. */

import { type EndpointOptions, HandlerRegistry } from '../../src/index.js';
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
