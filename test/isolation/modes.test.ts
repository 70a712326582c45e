/** What does not depend on where the handler runs: each test once with lanes that are threads, once with processes. */

import test, { type ExecutionContext } from 'ava';
import { fixture } from '../../fixtures/paths.js';
import type { RegistryOptions } from '../../src/index.js';
import { failure, outcome } from '../support/outcomes.js';
import { eventually } from '../support/polling.js';
import { activeStats, openRegistry } from '../support/registry.js';
import { fileGate, MODES } from './helpers.js';

const KIB = 1024;
const MIB = 1024 * KIB;
/** Of responses and requests: nothing, what fits a slot, and what goes another way. */
const SIZES = [0, 1, 4096, 4097, 64 * KIB, MIB, 16 * MIB];
const CALLERS = 16;
const SWAPS = 6;

function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) bytes[at] = (at * 31 + (at >> 8)) & 255;
  return bytes;
}

for (const isolation of MODES) {
  const open = async (t: ExecutionContext, options: RegistryOptions = {}) =>
    (await openRegistry(t, { isolation, ...options })).registry;

  test(`${isolation}: it says where it runs`, async (t) => {
    const registry = await open(t, { threads: 2 });
    const handler = await registry.load('own_process');
    const { processIds, ...stats } = activeStats(registry, 'own_process');
    t.is(handler.isolation, isolation);
    t.is(stats.isolation, isolation);
    t.is(stats.refusing, null);
    t.is(processIds.length, isolation === 'process' ? 2 : 0);
    const pid = Number((await registry.execute('own_process', {}, 'pid')).text());
    t.true(isolation === 'process' ? processIds.includes(pid) : pid === process.pid);
  });

  test(`${isolation}: payloads of every size, copied and shared`, async (t) => {
    const registry = await open(t);
    await registry.load('echo');
    for (const size of SIZES) {
      const bytes = pattern(size);
      const shared = new Uint8Array(new SharedArrayBuffer(size));
      shared.set(bytes);
      for (const request of [bytes, shared]) {
        const { bytes: answer } = await registry.execute('echo', {}, request);
        t.is(Buffer.compare(answer, bytes), 0, `${size} bytes`);
      }
    }
  });

  test(`${isolation}: the context arrives`, async (t) => {
    const registry = await open(t);
    await registry.load('context');
    const said = async (context: { requestId?: string; metadata?: unknown }) =>
      (await registry.execute('context', context, '')).json<Record<string, unknown>>();
    t.like(await said({ requestId: 'naïve', metadata: { a: ['ü'] } }), {
      requestId: 'naïve',
      metadata: { a: ['ü'] },
      abiVersion: 1,
    });
    t.like(await said({ requestId: 'alone' }), { requestId: 'alone', metadata: null });
    t.like(await said({ metadata: 7 }), { requestId: '', metadata: 7 });
    t.like(await said({}), { requestId: '', metadata: null, metadataLength: 0 });
  });

  test(`${isolation}: errors and responses that are none`, async (t) => {
    const registry = await open(t, { maxPayloadBytes: 100_000 });
    const ids = ['fails', 'null_response', 'lying_length', 'in_place', 'large_response'];
    for (const id of ids) await registry.load(id);
    const fails = await failure(
      registry.execute('fails', {}, 'wörds'),
      'handlerCode',
      'handlerMessage',
    );
    t.deepEqual(fails, { code: 'ERR_HANDLER_FAILED', handlerCode: 42, handlerMessage: 'wörds' });
    t.is(await outcome(registry.execute('null_response', {}, '')), 'ERR_HANDLER_INVALID_RESPONSE');
    t.is(await outcome(registry.execute('lying_length', {}, '')), 'ERR_HANDLER_INVALID_RESPONSE');
    for (const id of ['in_place', 'large_response']) {
      const large = await failure(registry.execute(id, {}, '100001'), 'limitBytes', 'actualBytes');
      const limitBytes = 100_000;
      t.deepEqual(large, {
        code: 'ERR_HANDLER_RESPONSE_TOO_LARGE',
        limitBytes,
        actualBytes: limitBytes + 1,
      });
      t.is((await registry.execute(id, {}, `${limitBytes}`)).bytes.length, limitBytes);
    }
    // All that was the handler's own was given back.
    t.is((await registry.execute('large_response', {}, 'live')).text(), '0');
  });

  test(`${isolation}: a deadline while it is queued, and one while it runs`, async (t) => {
    const registry = await open(t);
    await registry.load('cooperative');
    const running = failure(
      registry.executeWithTimeout('cooperative', {}, '60000', 3000),
      'phase',
      'cpuReclaimed',
    );
    const queued = failure(
      registry.executeWithTimeout('cooperative', {}, '60000', 50),
      'phase',
      'cpuReclaimed',
    );
    const code = 'ERR_HANDLER_TIMEOUT';
    t.deepEqual(await queued, { code, phase: 'queued', cpuReclaimed: true });
    t.deepEqual(await running, { code, phase: 'running', cpuReclaimed: isolation === 'process' });
    // It sees its cancel flag and returns: nothing is stuck, nothing is killed.
    await eventually(
      () => registry.stats().activeRequests,
      (active) => active === 0,
    );
    t.is(activeStats(registry, 'cooperative').lanes.stuck, 0);
    t.is(await outcome(registry.execute('cooperative', {}, '0')), 'finished');
    t.is(activeStats(registry, 'cooperative').totals.laneExited, 0);
  });

  test(`${isolation}: an abort is seen by the handler, and by no other request`, async (t) => {
    const registry = await open(t, { threads: 2 });
    await registry.load('cooperative');
    for (let round = 0; round < 20; round++) {
      const controller = new AbortController();
      const aborted = outcome(
        registry.execute('cooperative', {}, '60000', { signal: controller.signal }),
      );
      const other = outcome(registry.execute('cooperative', {}, '5'));
      await eventually(
        () => activeStats(registry, 'cooperative').running,
        (running) => running > 0,
      );
      controller.abort(new Error('given up'));
      t.regex(await aborted, /given up/);
      t.is(await other, 'finished');
    }
  });

  test(`${isolation}: graceful swaps under load lose nothing`, async (t) => {
    const registry = await open(t, { threads: 2 });
    await registry.loadFrom('x', fixture('version_a'));
    let stopping = false;
    let answered = 0;
    const wrong: unknown[] = [];
    const callers = Array.from({ length: CALLERS }, async (_, caller) => {
      for (let count = 0; !stopping; count++) {
        const text = `${caller}.${count} `.repeat((caller * 97 + count) % 700);
        try {
          const response = await registry.execute('x', { requestId: `${caller}` }, text);
          const tag = response.version % 2 === 1 ? 'A' : 'B';
          if (response.text() !== `${tag}:${text}`) wrong.push(response.text().slice(0, 40));
          answered += 1;
        } catch (error) {
          wrong.push(error);
        }
      }
    });
    const reports = [];
    for (let version = 2; version < 2 + SWAPS; version++) {
      const id = version % 2 === 1 ? 'version_a' : 'version_b';
      const { drained } = await registry.swapGraceful('x', fixture(id));
      reports.push(await drained);
    }
    stopping = true;
    await Promise.all(callers);
    t.deepEqual(wrong, []);
    t.true(answered > 0);
    for (const report of reports) t.like(report, { dropped: 0, abandoned: 0, library: 'unloaded' });
  });

  test(`${isolation}: an immediate swap answers what was running, and the new version serves`, async (t) => {
    const registry = await open(t, { cancelGraceMs: 60_000 });
    await registry.loadFrom('x', fixture('own_process'));
    const gate = await fileGate(t);
    const running = failure(registry.execute('x', {}, gate.request), 'reason', 'phase');
    await gate.started();
    const { drained } = await registry.swap('x', fixture('version_b'));
    t.deepEqual(await running, { code: 'ERR_HANDLER_DROPPED', reason: 'swap', phase: 'running' });
    t.is(await outcome(registry.execute('x', {}, 'x')), 'B:x');
    t.is(registry.drainingCount, 1);
    await gate.open();
    t.like(await drained, { dropped: 1, library: 'unloaded' });
  });

  test(`${isolation}: a library that is refused says why, and the active version goes on`, async (t) => {
    const registry = await open(t);
    await registry.loadFrom('x', fixture('version_a'));
    const refused = [
      ['missing_entry', 'ERR_HANDLER_MISSING_SYMBOL'],
      ['wrong_abi', 'ERR_HANDLER_ABI_MISMATCH'],
      ['failing_init', 'ERR_HANDLER_INIT_FAILED'],
      ['missing_dependency', 'ERR_HANDLER_MISSING_DEPENDENCY'],
    ] as const;
    for (const [id, code] of refused) {
      t.like(await failure(registry.swap('x', fixture(id))), { code });
    }
    t.is(await outcome(registry.execute('x', {}, 'x')), 'A:x');
  });
}
