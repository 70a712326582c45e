/** Request memory outside the ring: what it may have, who gets it, and that it goes back. */

import { readFile } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { HostMessage } from '../src/lane-protocol.js';
import { bindNativeFunctions } from '../src/native-functions.js';
import { RegionBudget, RegionTable } from '../src/regions.js';
import { fileGate, MODES } from './isolation/helpers.js';
import { passTime } from './support/clock.js';
import { rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { onLinuxAlone } from './support/process.js';
import { openRegistry } from './support/registry.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Limits under which a second request of the largest size has to wait. */
const ROOM_FOR_ONE = { maxPayloadBytes: MIB, maxRegionBytes: MIB };

function tableOf(budget: RegionBudget): { table: RegionTable; said: HostMessage[] } {
  const said: HostMessage[] = [];
  return { table: new RegionTable((message) => said.push(message), budget), said };
}

test('a region that was given back is lent again, and no lane is told', (t) => {
  const budget = new RegionBudget(MIB);
  const { table, said } = tableOf(budget);
  const first = table.borrow(10_000);
  table.giveBack(first.id);
  const second = table.borrow(16_000);
  t.is(second, first);
  t.deepEqual(
    said.map(({ type }) => type),
    ['region'],
  );
  t.is(budget.usedBytes, 16 * KIB);
});

test('all versions of a registry share one limit, and each may always have one region', (t) => {
  const budget = new RegionBudget(128 * KIB);
  const [one, other, third] = [tableOf(budget), tableOf(budget), tableOf(budget)];
  const taken = one.table.borrow(64 * KIB);
  one.table.borrow(64 * KIB);
  t.false(one.table.hasRoomFor(1), 'the limit is reached');
  t.true(other.table.hasRoomFor(MIB), 'it has none yet');
  other.table.borrow(MIB);
  t.false(other.table.hasRoomFor(1));
  t.true(third.table.hasRoomFor(1));
  one.table.giveBack(taken.id);
  t.false(one.table.hasRoomFor(64 * KIB), 'what exceeds the limit counts');
});

test('an idle region makes room for another size, and for another version', (t) => {
  const budget = new RegionBudget(128 * KIB);
  const [one, other] = [tableOf(budget), tableOf(budget)];
  const small = one.table.borrow(64 * KIB);
  const smaller = one.table.borrow(32 * KIB);
  one.table.giveBack(small.id);
  other.table.borrow(16 * KIB);
  t.is(budget.usedBytes, 112 * KIB, 'there was room');
  t.true(other.table.hasRoomFor(64 * KIB));
  other.table.borrow(64 * KIB);
  t.is(budget.usedBytes, 112 * KIB);
  t.deepEqual(one.said.at(-1), { type: 'forget', id: small.id });
  t.deepEqual(
    one.table.list().map(({ id }) => id),
    [smaller.id],
  );
});

test('numbers of regions that are forgotten are used again', (t) => {
  const budget = new RegionBudget(64 * KIB);
  const { table, said } = tableOf(budget);
  for (let turn = 0; turn < 1000; turn++) {
    table.giveBack(table.borrow(turn % 2 === 0 ? 64 * KIB : 32 * KIB).id);
  }
  const ids = said.flatMap((message) => (message.type === 'region' ? [message.region.id] : []));
  t.is(ids.length, 1000);
  t.true(Math.max(...ids) <= 2);
});

test('who waits is told once, when something was given back', async (t) => {
  const { table } = tableOf(new RegionBudget(64 * KIB));
  const { id } = table.borrow(64 * KIB);
  let told = 0;
  table.awaitRoom(() => {
    told += 1;
  });
  await setImmediate();
  t.is(told, 0);
  table.giveBack(id);
  t.is(told, 0, 'not in the middle of it');
  await setImmediate();
  t.is(told, 1);
  table.giveBack(table.borrow(64 * KIB).id);
  await setImmediate();
  t.is(told, 1);
});

test('what a version leaves behind when it ends is back in the budget', (t) => {
  const budget = new RegionBudget(MIB);
  const { table } = tableOf(budget);
  const lent = table.borrow(64 * KIB);
  table.giveBack(table.borrow(32 * KIB).id);
  table.dispose();
  t.is(budget.usedBytes, 0);
  table.giveBack(lent.id);
  t.is(budget.usedBytes, 0);
});

test.serial(
  'a region that has long been idle is given back, and a younger one is kept',
  async (t) => {
    const budget = new RegionBudget(MIB);
    const { table } = tableOf(budget);
    const [old, young] = [table.borrow(64 * KIB), table.borrow(32 * KIB)];
    table.giveBack(old.id);
    passTime(t, 60_000);
    table.giveBack(young.id);
    passTime(t, 0);
    await eventually(
      () => budget.usedBytes,
      (bytes) => bytes === 32 * KIB,
    );
    t.deepEqual(table.list(), [{ id: young.id, memory: young.memory }]);
    table.dispose();
  },
);

async function residentBytes(memory: SharedArrayBuffer): Promise<number> {
  // Its mapping is found by its size, which no other has.
  const smaps = await readFile('/proc/self/smaps', 'utf8');
  const size = memory.byteLength / KIB;
  let resident = 0;
  for (const part of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    if (Number(/^Size: +(\d+) kB/m.exec(part)?.[1]) !== size) continue;
    resident += Number(/^Rss: +(\d+) kB/m.exec(part)?.[1]) * KIB;
  }
  return resident;
}

onLinuxAlone('the pages of a region that is given back go to the system at once', async (t) => {
  await bindNativeFunctions();
  const { table } = tableOf(new RegionBudget(256 * MIB));
  const { id, memory } = table.borrow(128 * MIB);
  new Uint8Array(memory, 0, 32 * MIB).fill(1);
  t.is(await residentBytes(memory), 32 * MIB);
  table.giveBack(id);
  table.dispose();
  t.is(await residentBytes(memory), 0);
});

for (const isolation of MODES) {
  test(`${isolation}: more large requests than there is room for are all answered, with their own bytes`, async (t) => {
    const { registry } = await openRegistry(t, {
      isolation,
      threads: 2,
      ...ROOM_FOR_ONE,
    });
    await registry.loadFrom('echo', fixture('echo'));
    const sizes = Array.from({ length: 60 }, (_, index) => 5000 + ((index * 37_123) % 900_000));
    const requests = sizes.map((size, index) => new Uint8Array(size).fill(index));
    const responses = await Promise.all(
      requests.map((request) => registry.execute('echo', undefined, request)),
    );
    responses.forEach(({ bytes }, index) => {
      const request = requests[index];
      t.true(request !== undefined && Buffer.compare(bytes, request) === 0, `request ${index}`);
    });
  });
}

test('an endpoint whose call does not return leaves the others their room, and gets it back', async (t) => {
  const { registry } = await openRegistry(t, {
    threads: 1,
    ...ROOM_FOR_ONE,
  });
  const gate = await fileGate(t);
  await registry.loadFrom('held', fixture('own_process'));
  await registry.loadFrom('echo', fixture('echo'));
  const request = Buffer.alloc(MIB);
  request.write(gate.request);
  const held = registry.execute('held', undefined, request);
  for (let turn = 0; turn < 3; turn++) {
    const large = new Uint8Array(MIB - turn).fill(turn);
    const both = await Promise.all([
      registry.execute('echo', undefined, large),
      registry.execute('echo', undefined, large),
    ]);
    for (const { bytes } of both) t.is(Buffer.compare(bytes, large), 0);
  }
  await gate.open();
  await t.notThrowsAsync(held);
});

/** How a promise ends, to be looked at once nothing hangs any more. */
async function settled(promise: Promise<unknown>): Promise<string> {
  const [{ status }] = await Promise.allSettled([promise]);
  return status;
}

for (const [end, giveUp] of Object.entries({
  aborted: { give: (abort: AbortController) => abort.abort(), timeoutMs: 60_000 },
  'timed out': { give: () => undefined, timeoutMs: 300 },
})) {
  test(`what waits behind a request for memory runs once that request has ${end}`, async (t) => {
    const { registry } = await openRegistry(t, {
      threads: 2,
      ...ROOM_FOR_ONE,
    });
    const gate = await fileGate(t);
    await registry.loadFrom('held', fixture('own_process'));
    const request = Buffer.alloc(MIB);
    request.write(gate.request);
    const held = registry.execute('held', undefined, request);
    await gate.started();
    const abort = new AbortController();
    const { signal } = abort;
    const large = new Uint8Array(MIB);
    const ahead = registry.executeWithTimeout('held', undefined, large, giveUp.timeoutMs, {
      signal,
    });
    const behind = registry.executeWithTimeout('held', undefined, 'pid', 10_000);
    giveUp.give(abort);
    await rejection(ahead);
    // The other lane has nothing to do, and this request needs no memory.
    const outcome = await settled(behind);
    const { activeRequests } = registry.get('held') ?? {};
    await gate.open();
    await t.notThrowsAsync(held);
    t.is(outcome, 'fulfilled');
    t.is(activeRequests, 1, 'the first call still ran');
  });
}

test('requests that were withdrawn leave their memory to other endpoints', async (t) => {
  const { registry } = await openRegistry(t, {
    threads: 1,
    maxPayloadBytes: MIB,
    maxRegionBytes: 4 * MIB,
    maxStuckLanes: 0,
  });
  const gate = await fileGate(t);
  await registry.loadFrom('held', fixture('own_process'));
  const held = registry.execute('held', undefined, gate.request);
  await gate.started();
  const abort = new AbortController();
  const { signal } = abort;
  const large = new Uint8Array(MIB);
  const late = [1, 2, 3, 4].map(() => registry.execute('held', undefined, large, { signal }));
  abort.abort();
  await Promise.all(late.map(rejection));
  const other = await registry.loadFrom('other', fixture('own_process'), { threads: 2 });
  const otherGate = await fileGate(t);
  const request = Buffer.alloc(MIB);
  request.write(otherGate.request);
  const first = other.execute(undefined, request);
  await otherGate.started();
  // Its version has memory lent already, so this one is answered only if there is room.
  request.fill(0).write('pid');
  const outcome = await settled(other.executeWithTimeout(undefined, request, 10_000));
  await otherGate.open();
  await gate.open();
  await t.notThrowsAsync(Promise.all([first, held]));
  t.is(outcome, 'fulfilled');
});

test('a payload that can never have room is refused where the options are given', async (t) => {
  const { registry } = await openRegistry(t, { maxRegionBytes: 16 * MIB });
  const error = await rejection(
    registry.loadFrom('echo', fixture('echo'), { maxPayloadBytes: 16 * MIB + 1 }),
  );
  t.like(error, { code: 'ERR_HANDLER_INVALID_OPTION', option: 'maxPayloadBytes' });
});
