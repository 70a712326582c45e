/** Random bytes as requests, random values as metadata and ids: they arrive as they were, or are refused with a typed error. */

import test from 'ava';
import fc from 'fast-check';
import { HandlerError } from '../src/index.js';
import { openRegistry } from './support/registry.js';

const RUNS = Number(process.env['CHANGEOVER_RUNS'] ?? 100);
const SEED = Number(process.env['CHANGEOVER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const parameters = { numRuns: RUNS, seed: SEED };

/** Lone surrogates become the replacement character on the way to UTF-8, as everywhere. */
const wellFormed = (text: string) => Buffer.from(text, 'utf8').toString('utf8');

const anyText = fc.string({ unit: 'binary', maxLength: 300 });
/** An id that is accepted: to a handler in C, one with a NUL would be another. */
const anyId = anyText.map((text) => text.replaceAll('\0', '0'));
const lengths = fc.oneof(fc.nat(64), fc.constantFrom(4087, 4088, 4089, 4095, 4096, 4097, 70_000));
const bytes = lengths.chain((length) => fc.uint8Array({ minLength: length, maxLength: length }));

test('any bytes come back as they were', async (t) => {
  t.log(`CHANGEOVER_SEED=${SEED} CHANGEOVER_RUNS=${RUNS}`);
  const { registry } = await openRegistry(t, { threads: 2 });
  await registry.load('echo');
  await fc.assert(
    fc.asyncProperty(fc.array(bytes, { maxLength: 8 }), anyId, async (requests, requestId) => {
      const context = { requestId };
      const answers = requests.map((request) => registry.execute('echo', context, request));
      for (const [index, answer] of (await Promise.all(answers)).entries()) {
        const same = Buffer.compare(answer.bytes, requests[index] as Uint8Array) === 0;
        if (!same) throw new Error(`request ${index} came back otherwise`);
      }
    }),
    parameters,
  );
  t.pass();
});

test('any metadata and id arrive as they were, or are refused', async (t) => {
  t.log(`CHANGEOVER_SEED=${SEED} CHANGEOVER_RUNS=${RUNS}`);
  const { registry } = await openRegistry(t);
  await registry.load('context');
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.jsonValue(), fc.anything({ withNullPrototype: true, withBigInt: true })),
      anyText,
      async (metadata, requestId) => {
        const context = { metadata, requestId };
        const outcome = await registry.execute('context', context, '').then(
          (response) => response.json() as { metadata: unknown; requestId: string },
          (error: unknown) => error,
        );
        if (outcome instanceof HandlerError) {
          refused += 1;
          if (outcome.code === 'ERR_HANDLER_INVALID_REQUEST') return;
          if (outcome.code === 'ERR_HANDLER_PAYLOAD_TOO_LARGE') return;
        }
        if (outcome instanceof Error) throw outcome;
        const seen = outcome as { metadata: unknown; requestId: string };
        const sent = JSON.stringify(metadata) ?? 'null';
        if (JSON.stringify(seen.metadata) !== sent) {
          throw new Error(`${sent} arrived as ${JSON.stringify(seen.metadata)}`);
        }
        if (seen.requestId !== wellFormed(requestId)) throw new Error(`an id arrived otherwise`);
        if (Object.hasOwn(Object.prototype, 'polluted')) throw new Error('a prototype was changed');
      },
    ),
    parameters,
  );
  t.log(`${refused} refused`);
  t.pass();
});

const tricks = ['__proto__', 'constructor', '../etc', '%s%n', 'a\0b', '', 'x'.repeat(65), 'é', '.'];

for (const id of tricks) {
  test(`an id that is a trick is refused, whatever is asked: ${JSON.stringify(id)}`, async (t) => {
    const { registry } = await openRegistry(t);
    const valid = /^[A-Za-z0-9_-]{1,64}$/.test(id);
    const codes = await Promise.all(
      [registry.load(id), registry.unload(id), registry.execute(id, {}, '')].map((attempt) =>
        attempt.then(
          () => 'done',
          (error: { code: string }) => error.code,
        ),
      ),
    );
    const expected = valid
      ? ['ERR_HANDLER_LIBRARY_NOT_FOUND', 'ERR_HANDLER_NOT_LOADED', 'ERR_HANDLER_NOT_LOADED']
      : Array(3).fill('ERR_HANDLER_INVALID_ID');
    t.deepEqual(codes, expected);
    t.is(registry.get(id), undefined);
  });
}
