/**
 * Requests that race with a swap, enumerated: sent before, in and after each step of it. A graceful swap
 * never costs one an error, and each is answered by one version entirely.
 */

import test, { type ExecutionContext } from 'ava';
import { fixture } from '../fixtures/paths.js';
import type { HandlerRegistry, HandlerResponse } from '../src/index.js';
import { gate } from './support/gate.js';
import { outcome } from './support/outcomes.js';
import { turns } from './support/polling.js';
import { openRegistry } from './support/registry.js';

/** The steps that a swap reports. */
const STEPS = ['loading', 'draining', 'drained', 'loaded', 'swapped', 'retired'] as const;

/** Ways to be late by as little as possible. */
const DELAYS: Record<string, (send: () => void) => void> = {
  'in a listener for': (send) => send(),
  'a microtask after': (send) => queueMicrotask(send),
  'two microtasks after': (send) => queueMicrotask(() => queueMicrotask(send)),
  'a nextTick after': (send) => process.nextTick(send),
  'an immediate after': (send) => setImmediate(send),
  'a timer after': (send) => setTimeout(send, 1),
};

interface Sent {
  moment: string;
  /** The version that was active when it was sent; 0 if none was. */
  active: number;
  response: Promise<HandlerResponse>;
}

class Sender {
  readonly sent: Sent[] = [];
  readonly #registry: HandlerRegistry;

  constructor(registry: HandlerRegistry) {
    this.#registry = registry;
  }

  send(moment: string): void {
    const active = this.#registry.get('x')?.version ?? 0;
    const response = this.#registry.execute('x', {}, moment);
    response.catch(() => undefined);
    this.sent.push({ moment, active, response });
  }

  /** Sends with every delay. */
  sendAround(step: string): void {
    for (const [delay, schedule] of Object.entries(DELAYS)) {
      schedule(() => this.send(`${delay} ${step}`));
    }
  }

  /** Sends around every step that the registry reports, until the end of the test. */
  follow(): void {
    for (const step of STEPS) {
      this.#registry.on(step, () => this.sendAround(step));
    }
  }
}

/** Version 1 answers with A, 2 with B, 3 with A again. */
function tagOf(version: number): string {
  return version % 2 === 1 ? 'A' : 'B';
}

async function checkAll(t: ExecutionContext, sent: readonly Sent[]): Promise<void> {
  for (const { moment, active, response } of sent) {
    const { version } = await response;
    t.is((await response).text(), `${tagOf(version)}:${moment}`);
    t.is(version, active, moment);
  }
}

function fixtureOf(version: number): string {
  return fixture(version % 2 === 1 ? 'version_a' : 'version_b');
}

for (const threads of [1, 2]) {
  test(`around every step of graceful swaps, ${threads} lanes`, async (t) => {
    const { registry } = await openRegistry(t, { threads, preflight: true });
    await registry.loadFrom('x', fixtureOf(1));
    const sender = new Sender(registry);
    sender.follow();
    for (let version = 2; version <= 6; version++) {
      sender.sendAround('the time before the call');
      sender.send('right before the call');
      const swapping = registry.swapGraceful('x', fixtureOf(version));
      sender.send('right after the call');
      sender.sendAround('the call');
      const { drained } = await swapping;
      sender.send('right after the swap');
      sender.sendAround('the swap');
      t.is(registry.get('x')?.version, version);
      await drained;
      sender.send('right after the drain');
      sender.sendAround('the drain');
    }
    await turns(20);
    await checkAll(t, sender.sent);
    const moments = new Set(sender.sent.map(({ moment }) => moment));
    for (const step of STEPS) {
      for (const delay of Object.keys(DELAYS)) t.true(moments.has(`${delay} ${step}`), step);
    }
    t.is(registry.drainingCount, 0);
  });
}

test('around every step, while the old version has requests', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixture('gate'));
  const gates = [gate(t), gate(t), gate(t)];
  const before = gates.map(({ request }) => outcome(registry.execute('x', {}, request)));
  await gates[0]?.untilEntered();
  const sender = new Sender(registry);
  const swapping = registry.swapGraceful('x', fixtureOf(2));
  // Same tick: the old version is still the active one, and takes it.
  const last = gate(t);
  const sameTick = outcome(registry.execute('x', {}, last.request));
  for (const step of ['draining', 'loaded', 'swapped'] as const) {
    registry.once(step, () => sender.sendAround(step));
  }
  const { oldRequestsPending, drained } = await swapping;
  t.is(oldRequestsPending, 4);
  sender.send('right after the swap');
  await turns(20);
  await checkAll(t, sender.sent);
  for (const gate of [...gates, last]) gate.open();
  t.deepEqual(await Promise.all([...before, sameTick]), Array(4).fill('released'));
  sender.send('right after the release');
  t.like(await drained, { finished: 4, dropped: 0 });
  await checkAll(t, sender.sent);
});

test('at every turn of the event loop', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixtureOf(1));
  const sender = new Sender(registry);
  for (let version = 2; version <= 5; version++) {
    let swapped = false;
    const swapping = registry.swapGraceful('x', fixtureOf(version)).then((result) => {
      swapped = true;
      return result;
    });
    while (!swapped) {
      // Turns are faster than a lane that is not scheduled: what waits stays below what there is room for.
      const { activeRequests, drainingRequests } = registry.stats();
      if (activeRequests + drainingRequests < 500) sender.send(`turn ${sender.sent.length}`);
      await turns(1);
    }
    await (await swapping).drained;
  }
  await checkAll(t, sender.sent);
});

test('at every microtask from the end of the load to the end of the swap', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixtureOf(1));
  const sender = new Sender(registry);
  let swapped = false;
  let budget = 2000;
  const everyMicrotask = () => {
    if (swapped || budget === 0) return;
    budget -= 1;
    sender.send(`microtask ${budget}`);
    queueMicrotask(everyMicrotask);
  };
  registry.once('draining', everyMicrotask);
  await registry.swapGraceful('x', fixtureOf(2));
  swapped = true;
  t.true(sender.sent.length > 0);
  await checkAll(t, sender.sent);
});

test('look up and acquire are one: a version that was looked up serves in that tick', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixtureOf(1));
  const answers: Promise<string>[] = [];
  const lookUp = () => {
    const version = registry.get('x');
    const guard = version?.acquireRequest() ?? null;
    t.not(guard, null);
    if (version !== undefined) answers.push(outcome(version.execute({}, 'x')));
    guard?.release();
  };
  for (const step of STEPS) registry.on(step, lookUp);
  const { drained } = await registry.swapGraceful('x', fixtureOf(2));
  lookUp();
  await drained;
  registry.removeAllListeners();
  for (const answer of answers) t.regex(await answer, /^[AB]:x$/);
});

test('an immediate swap may drop, but nothing else; what is sent after it is safe', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixtureOf(1));
  const sender = new Sender(registry);
  sender.follow();
  for (let version = 2; version <= 5; version++) {
    for (let count = 0; count < 20; count++) sender.send('before');
    const { drained } = await registry.swap('x', fixtureOf(version));
    const from = sender.sent.length;
    sender.send('right after the swap');
    await drained;
    await turns(20);
    await checkAll(t, sender.sent.slice(from));
  }
  for (const { moment, active, response } of sender.sent) {
    const text = await outcome(response);
    if (text === 'ERR_HANDLER_DROPPED') t.true(active < 5);
    else t.is(text, `${tagOf(active)}:${moment}`);
  }
});

test('an unload leaves two answers: a response, or that nothing is loaded', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixtureOf(1));
  const sender = new Sender(registry);
  sender.follow();
  sender.send('before');
  const unloading = registry.unload('x');
  sender.send('same tick');
  sender.sendAround('the call');
  await unloading;
  sender.send('after');
  await turns(20);
  for (const { moment, active, response } of sender.sent) {
    const expected = active === 0 ? 'ERR_HANDLER_NOT_LOADED' : `A:${moment}`;
    t.is(await outcome(response), expected, moment);
  }
});

test('swaps that are called all at once happen one after the other', async (t) => {
  const { registry } = await openRegistry(t);
  await registry.loadFrom('x', fixtureOf(1));
  const sender = new Sender(registry);
  sender.follow();
  const versions = [2, 3, 4, 5];
  const swaps = versions.map((version) => registry.swapGraceful('x', fixtureOf(version)));
  for (const { drained } of await Promise.all(swaps)) t.like(await drained, { dropped: 0 });
  t.is(registry.get('x')?.version, 5);
  await turns(20);
  await checkAll(t, sender.sent);
});
