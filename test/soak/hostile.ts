/**
 * Requests that are a mistake, or an attack: each is refused with its own error, nothing is taken for it, and nobody
 * else notices.
 */

import type { Call } from './handlers.js';
import type { Random } from './random.js';

const REFUSED = { code: 'ERR_HANDLER_INVALID_REQUEST' };

/** As polyfills and other DOMs have them: no `EventTarget` of Node's. */
export class ForeignSignal {
  aborted = false;
  reason: unknown;
  readonly #listeners = new Set<() => void>();

  addEventListener(_type: string, listener: () => void): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_type: string, listener: () => void): void {
    this.#listeners.delete(listener);
  }

  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Listeners that nobody has taken off. */
  get listening(): number {
    return this.#listeners.size;
  }
}

function detach(view: ArrayBufferView): void {
  structuredClone(view.buffer, { transfer: [view.buffer as ArrayBuffer] });
}

type View = new (buffer: ArrayBuffer, byteOffset?: number, length?: number) => ArrayBufferView;

const VIEWS: readonly View[] = [Uint8Array, Int32Array, Float64Array, BigInt64Array, DataView];

const calls: readonly ((random: Random) => Call)[] = [
  () => ({ request: Promise.resolve('not awaited'), error: REFUSED }),
  (random) => {
    const view = new (random.pick(VIEWS))(new ArrayBuffer(8 * random.int(1, 4096)));
    detach(view);
    return { request: view, error: REFUSED };
  },
  (random) => {
    const buffer = new ArrayBuffer(64, { maxByteLength: 64 });
    const view = new (random.pick(VIEWS))(buffer, 8, 2);
    buffer.resize(4);
    return { request: view, error: REFUSED };
  },
  (random) => {
    const lost = [new Map([[1, 2]]), new Set([1]), () => 1, Number.NaN, 1n, new Blob(['x']), /x/];
    return { request: { deep: [random.pick(lost)] }, error: REFUSED };
  },
  () => {
    const request = new Uint8Array(5000);
    const toJSON = () => detach(request);
    return { request, context: { metadata: { toJSON } }, error: REFUSED };
  },
  () => ({
    request: 'x',
    context: {
      get requestId(): string {
        throw Object.assign(new Error('no id today'), { code: 'MINE' });
      },
    },
    error: { code: 'MINE' },
  }),
  () => ({
    request: 'x',
    signal: { aborted: 'perhaps' } as never,
    error: { code: 'ERR_HANDLER_INVALID_OPTION' },
  }),
  () => {
    const refusal = Object.assign(new Error('nobody may listen'), { code: 'NO_LISTENERS' });
    const signal = Object.assign(new ForeignSignal(), {
      addEventListener: () => {
        throw refusal;
      },
    });
    return { request: 'x', signal: signal as never, error: { code: 'NO_LISTENERS' } };
  },
  () => {
    const request = new Uint8Array(5000);
    const signal = Object.assign(new ForeignSignal(), { addEventListener: () => detach(request) });
    return { request, signal: signal as never, error: REFUSED };
  },
];

export function hostileCall(random: Random): Call {
  return random.pick(calls)(random);
}
