/** When the process ends, and how: always by itself and with its own code, never by a signal. */
import { execFile } from 'node:child_process';
import test, { type ExecutionContext } from 'ava';
import { fixture, fixturesDir } from '../fixtures/paths.js';
import { scratch } from './support/files.js';
import { atMost } from './support/turns.js';

const index = new URL('../src/index.js', import.meta.url).href;
const producer = new URL('../src/ring/producer.js', import.meta.url).href;
const polling = new URL('./support/polling.js', import.meta.url).href;
const PATIENCE_MS = 60_000;
/** Processes at once: more would mostly wait for each other, and miss their moments. */
const MOST_PROCESSES = 4;

/** Of those that are idle for seconds before they start a lane ahead, and again until they end. */
const MOST_IDLE_PROCESSES = 6;

type Turn = ReturnType<typeof atMost>;
const inTurn = atMost(MOST_PROCESSES);
const inIdleTurn = atMost(MOST_IDLE_PROCESSES);

interface End {
  exitCode: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/**
 * Runs a module in a process of its own, whose versions have one lane unless it says otherwise. A process that hangs
 * ends with SIGKILL, which no test expects.
 */
async function run(t: ExecutionContext, body: string, turn: Turn): Promise<End> {
  const cacheDir = await scratch(t);
  const source = `
    import { HandlerRegistry, exitProcess } from ${JSON.stringify(index)};
    import { blockMainThread, eventually } from ${JSON.stringify(polling)};
    const options = ${JSON.stringify({ handlersDir: fixturesDir, cacheDir, threads: 1, preflight: false, loadTimeoutMs: 60_000 })};
    const registry = new HandlerRegistry(options);
    const echo = ${JSON.stringify(fixture('echo'))};
    const running = () => registry.stats().endpoints[0].versions[0].running;
    ${body}
  `;
  const execute = () =>
    new Promise<End>((resolve) => {
      const limits = { timeout: PATIENCE_MS, killSignal: 'SIGKILL' } as const;
      const args = ['--input-type=module', '-e', source];
      const child = execFile(process.execPath, args, limits, (_error, stdout, stderr) => {
        resolve({ exitCode: child.exitCode, signal: child.signalCode, stdout, stderr });
      });
    });
  return turn(execute);
}

async function ends(
  t: ExecutionContext,
  body: string,
  expected: { exitCode: number; stdout?: string },
  turn: Turn = inTurn,
): Promise<End> {
  const end = await run(t, body, turn);
  t.deepEqual(
    { exitCode: end.exitCode, signal: end.signal },
    { exitCode: expected.exitCode, signal: null },
    end.stderr,
  );
  if (expected.stdout !== undefined) t.is(end.stdout, expected.stdout, end.stderr);
  return end;
}

// ---- By itself -----------------------------------------------------------------------------------------

test('a process with idle handlers ends by itself', async (t) => {
  const body = `
    await registry.load('echo');
    await registry.load('counter');
    await registry.execute('echo', {}, 'x');
    console.log('idle');
  `;
  await ends(t, body, { exitCode: 0, stdout: 'idle\n' });
});

test('a process whose next version has its lanes ends by itself', async (t) => {
  const body = `
    await registry.load('echo', { standby: true, threads: 2 });
    await eventually(() => registry.stats().endpoints[0].standbyLanes, (lanes) => lanes === 2);
    console.log('idle');
  `;
  await ends(t, body, { exitCode: 0, stdout: 'idle\n' });
});

test('a process with a closed registry ends by itself', async (t) => {
  const body = `
    await registry.load('echo');
    await registry.close();
    console.log('closed');
  `;
  await ends(t, body, { exitCode: 0, stdout: 'closed\n' });
});

test('a process stays for a request that is outstanding', async (t) => {
  const body = `
    await registry.load('sleep');
    registry.execute('sleep', {}, '300').then((response) => console.log(response.text()));
  `;
  await ends(t, body, { exitCode: 0, stdout: 'slept\n' });
});

test('a process stays for requests that wait for a lane', async (t) => {
  const body = `
    await registry.load('sleep', { maxInFlight: 32 });
    let left = 40;
    for (let n = left; n > 0; n--) {
      registry.executeWithTimeout('sleep', {}, '5', Infinity).then(() => {
        if (--left === 0) console.log('all');
      });
    }
  `;
  await ends(t, body, { exitCode: 0, stdout: 'all\n' });
});

test('a process stays until a deadline has passed', async (t) => {
  const body = `
    await registry.load('cooperative');
    registry.executeWithTimeout('cooperative', {}, '60000', 500).catch((e) => console.log(e.code));
  `;
  await ends(t, body, { exitCode: 0, stdout: 'ERR_HANDLER_TIMEOUT\n' });
});

test('a process stays for a load', async (t) => {
  const body = `
    registry.load('slow_init').then(() => console.log('loaded'));
  `;
  await ends(t, body, { exitCode: 0, stdout: 'loaded\n' });
});

test('a process stays for a load that is refused', async (t) => {
  const body = `
    registry.load('missing_entry').catch((error) => console.log(error.code));
  `;
  await ends(t, body, { exitCode: 0, stdout: 'ERR_HANDLER_MISSING_SYMBOL\n' });
});

test('a process stays for a drain', async (t) => {
  const body = `
    await registry.load('sleep');
    registry.execute('sleep', {}, '200').then((response) => console.log(response.text()));
    const { drained } = await registry.swapGraceful('sleep', echo);
    drained.then(({ library }) => console.log(library));
  `;
  const library = process.platform === 'linux' ? 'unloaded' : 'unverified';
  await ends(t, body, { exitCode: 0, stdout: `slept\n${library}\n` });
});

test('a request guard does not keep a process', async (t) => {
  const body = `
    const handler = await registry.load('echo');
    handler.acquireRequest();
  `;
  await ends(t, body, { exitCode: 0 });
});

// ---- At any moment ---------------------------------------------------------------------------------------

const moments: Record<string, string> = {
  'when a load begins': `
    registry.on('loading', () => setImmediate(() => process.exit(5)));
    await registry.load('echo');`,
  'in the tick of a load': `
    registry.load('echo');
    process.exit(5);`,
  'while handler_init runs': `
    registry.load('slow_init');
    setTimeout(() => process.exit(5), 400);`,
  'as soon as a load is done': `
    await registry.load('echo');
    process.exit(5);`,
  'in a loaded listener': `
    registry.on('loaded', () => process.exit(5));
    await registry.load('echo');`,
  'in a swap': `
    await registry.load('echo');
    registry.on('loading', () => setTimeout(() => process.exit(5), 30));
    await registry.swapGraceful('echo', echo);`,
  'when a version begins to drain': `
    await registry.load('echo');
    registry.on('draining', () => process.exit(5));
    await registry.swapGraceful('echo', echo);`,
  'when a version has drained': `
    await registry.load('echo');
    registry.on('drained', () => process.exit(5));
    await registry.unload('echo');`,
  'while a version retires': `
    await registry.load('echo');
    registry.on('drained', () => setImmediate(() => process.exit(5)));
    await registry.unload('echo');`,
  'when a version has retired': `
    await registry.load('echo');
    registry.on('retired', () => process.exit(5));
    await registry.unload('echo');`,
  'with requests running that return': `
    await registry.load('sleep', { threads: 2 });
    for (let n = 0; n < 50; n++) registry.execute('sleep', {}, '20').catch(() => {});
    setTimeout(() => process.exit(5), 30);`,
};

for (const [moment, body] of Object.entries(moments)) {
  test(`process.exit ${moment}`, async (t) => {
    await ends(t, body, { exitCode: 5 });
  });
}

test('process.exit as the thread of a lane starts, which it does not wait for', async (t) => {
  const body = `
    const { RingProducer } = await import(${JSON.stringify(producer)});
    const { wait } = Atomics;
    Atomics.wait = (...args) => {
      const end = wait(...args);
      console.log('at exit: ' + end);
      return end;
    };
    const { prepareLane } = RingProducer.prototype;
    RingProducer.prototype.prepareLane = function (lane) {
      prepareLane.call(this, lane);
      process.nextTick(() => process.exit(5));
    };
    await registry.load('echo');
  `;
  const { stdout } = await ends(t, body, { exitCode: 5 });
  t.regex(stdout, /^(?:at exit: not-equal\n)+$/);
});

test('process.exit at 30 moments of loading, serving, swapping and unloading', async (t) => {
  // 0 to 290 ms: a load takes 30 to 60.
  for (let first = 0; first < 30; first += 3) {
    await Promise.all(
      [first, first + 1, first + 2].map((moment) =>
        ends(
          t,
          `
          const exitAt = () => process.exit(5);
          setTimeout(exitAt, ${moment * 10});
          for (;;) {
            await registry.load('echo', { threads: 2 });
            await Promise.all(Array.from({ length: 20 }, () => registry.execute('echo', {}, 'x')));
            await registry.swap('echo', echo);
            await registry.unload('echo');
          }`,
          { exitCode: 5 },
        ),
      ),
    );
  }
});

test('process.exit at 18 moments of starting a lane ahead, and of waiting', async (t) => {
  await Promise.all(
    Array.from({ length: 18 }, (_, moment) =>
      ends(
        t,
        `
        await registry.load('echo', { standby: true });
        process.once('worker', () => setTimeout(() => process.exit(5), ${moment * 5}));
        // For as long as it takes.
        setInterval(() => {}, 1000);`,
        { exitCode: 5 },
        inIdleTurn,
      ),
    ),
  );
});

/** What a lane that is just in koffi has mapped: the moment at which terminating it would abort the process. */
const mapped = { koffi: 'koffi.node', 'the library': '/echo-1-' };

if (process.platform === 'linux') {
  for (const [what, name] of Object.entries(mapped)) {
    test(`process.exit right after a lane has mapped ${what}`, async (t) => {
      for (let delayMs = 0; delayMs < 8; delayMs += 2) {
        const body = `
          const { readFileSync } = await import('node:fs');
          registry.load('echo', { threads: 6 });
          const mapped = () => readFileSync('/proc/self/maps', 'latin1').includes('${name}');
          await eventually(mapped, Boolean);
          blockMainThread(${delayMs});
          process.exit(5);
        `;
        await ends(t, body, { exitCode: 5 });
      }
    });
  }
}

test('an uncaught error in a load ends the process with 1', async (t) => {
  for (const delayMs of [0, 20, 40, 60]) {
    const { stderr } = await ends(
      t,
      `
      setTimeout(() => { throw new Error('on purpose'); }, ${delayMs});
      for (;;) {
        await registry.load('echo');
        await registry.unload('echo');
      }`,
      { exitCode: 1 },
    );
    t.true(stderr.includes('on purpose'), stderr);
  }
});

// ---- With a native call that never returns ------------------------------------------------------------------

test('exitProcess ends a process with an endless call, and runs exit listeners', async (t) => {
  const body = `
    process.on('exit', (code) => console.log('exit', code));
    await registry.load('endless');
    const controller = new AbortController();
    const request = registry.execute('endless', {}, '', controller).catch((error) => error.name);
    await eventually(running, (count) => count === 1);
    controller.abort();
    console.log(await request);
    await exitProcess(7);
  `;
  await ends(t, body, { exitCode: 7, stdout: 'AbortError\nexit 7\n' });
});

test('exitProcess ends a process while a library is loading', async (t) => {
  const body = `
    registry.load('slow_init').catch(() => {});
    registry.on('loading', () => setTimeout(() => exitProcess(7), 100));
  `;
  await ends(t, body, { exitCode: 7 });
});

test('exitProcess without a code ends with 0', async (t) => {
  await ends(t, `await registry.load('echo'); await exitProcess();`, { exitCode: 0 });
});

test('close settles with an endless call, and says what it leaves', async (t) => {
  const body = `
    await registry.load('endless', { cancelGraceMs: 50 });
    const request = registry.execute('endless', {}, '').catch((error) => error);
    await eventually(running, (count) => count === 1);
    const { dropped, leftBehind } = await registry.close({ timeoutMs: 400 });
    const { code, phase } = await request;
    console.log(JSON.stringify({ dropped, left: leftBehind.length, code, phase }));
    await exitProcess(7);
  `;
  const { stdout } = await ends(t, body, { exitCode: 7 });
  t.deepEqual(JSON.parse(stdout), {
    dropped: 1,
    left: 1,
    code: 'ERR_HANDLER_DROPPED',
    phase: 'running',
  });
});

// ---- Stacks ------------------------------------------------------------------------------------------------

test('deep native recursion runs with the stack that was asked for', async (t) => {
  const body = `
    await registry.load('deep_stack', { stackBytes: 8 * 1024 * 1024 });
    console.log((await registry.execute('deep_stack', {}, 'deeper')).text());
    await registry.close();
  `;
  await ends(t, body, { exitCode: 0, stdout: 'ok\n' });
});
