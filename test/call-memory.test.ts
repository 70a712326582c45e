/**
 * What koffi maps for each lane's thread is given back when the thread has ended, and nothing else
 * ever is.
 */

import { readFileSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { fixture } from '../fixtures/paths.js';
import {
  giveBack,
  makeNote,
  NOTE,
  prepareGivingBack,
  tokenAddress,
  viewNote,
} from '../src/call-memory.js';
import { loadCRuntime, NativeMemory } from '../workers/native-library.js';
import { gateMaker } from './support/gate.js';
import { rejection } from './support/outcomes.js';
import { eventually } from './support/polling.js';
import { onLinuxAlone } from './support/process.js';
import { openRegistry } from './support/registry.js';

const native = new NativeMemory(2 * 1024 * 1024);
const { pageBytes } = native;

/**
 * Of a size that nothing else in this process has, so that it can be told in the list of mappings.
 */
const STACK_BYTES = 3 * 1024 * 1024 + 16 * pageBytes;
const SWAPS = 24;
/** Swaps before those that are counted: what the process maps once is mapped by then. */
const WARM_UP_SWAPS = 6;

interface Line {
  start: number;
  end: number;
  access: string;
}

function mappings(): Line[] {
  return readFileSync('/proc/self/maps', 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [range = '', access = ''] = line.split(' ');
      const [start = 0, end = 0] = range.split('-').map((text) => Number.parseInt(text, 16));
      return { start, end, access };
    });
}

/** Stacks of that size: a page without access, and the memory above it, with one more page. */
function stacks(): number {
  const lines = mappings();
  return lines.filter(({ start, end, access }, index) => {
    const below = lines[index - 1];
    const isGuarded = below?.access === '---p' && below.end === start;
    return isGuarded && access === 'rw-p' && end - start === STACK_BYTES + pageBytes;
  }).length;
}

/** V8's heap comes and goes in mappings of its own, which it asks for below 2^46. */
function mappingsOutsideOfV8(): number {
  return mappings().filter(({ start }) => start >= 2 ** 46).length;
}

for (const { isolation, swaps } of [
  { isolation: 'thread', swaps: SWAPS },
  { isolation: 'process', swaps: 4 },
] as const) {
  onLinuxAlone(
    `${swaps} swaps with two lanes leave no stack and few mappings (${isolation})`,
    async (t) => {
      const { registry } = await openRegistry(t, {
        threads: 2,
        isolation,
        preflight: false,
        stackBytes: STACK_BYTES,
      });
      await registry.load('echo');
      t.is(stacks(), 2, 'the stacks of the two lanes are recognised');
      const swap = async (times: number) => {
        for (let count = 0; count < times; count++) {
          const { drained } = await registry.swapGraceful('echo', fixture('echo'));
          await drained;
        }
      };
      if (swaps === SWAPS) await swap(WARM_UP_SWAPS);
      const before = mappingsOutsideOfV8();

      await swap(swaps);

      t.is(stacks(), 2);
      // Each lane used to leave three, so six a swap; heaps alone would be two.
      if (swaps === SWAPS) t.true(mappingsOutsideOfV8() - before < SWAPS);
      await registry.close();
      t.is(stacks(), 0);
    },
  );
}

onLinuxAlone(
  'a thread whose native call goes on keeps its stack until the call has returned',
  async (t) => {
    const { registry } = await openRegistry(t, {
      cancelGraceMs: 10,
      // One that stood in for it would have a stack of its own.
      maxStuckLanes: 0,
      stackBytes: STACK_BYTES,
      preflight: false,
    });
    await registry.load('gate');
    const [gate] = gateMaker(t)();
    if (gate === undefined) throw new Error('there is one gate');
    const controller = new AbortController();
    const given = rejection(registry.execute('gate', {}, gate.request, controller));
    await gate.untilEntered();
    controller.abort('given up');
    t.is(await given, 'given up');

    const report = await registry.unload('gate', { drainTimeoutMs: 0 });

    t.like(report, { library: 'resident' });
    t.is(stacks(), 1);
    gate.open();
    await eventually(stacks, (count) => count === 0, 'no stack is left');
  },
);

onLinuxAlone('lanes that are recycled leave no stack either', async (t) => {
  const { registry } = await openRegistry(t, {
    stackBytes: STACK_BYTES,
    preflight: false,
    recycleAfterRequests: 1,
  });
  await registry.load('echo');
  for (let request = 0; request < 5; request++)
    t.is((await registry.execute('echo', {}, 'again')).text(), 'again');
  await registry.close();
  t.is(stacks(), 0);
});

// ---- What a note says is believed only as far as it is seen ---------------------------------------

/** Bound here, since the engine binds nothing more once a handler has been loaded. */
const runtime = loadCRuntime();

interface Noted {
  note: ReturnType<typeof viewNote>;
  /** How many of the two are mapped. */
  mappedParts: () => number;
}

const PROT_NONE = 0;
const PROT_READ = 1;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const HEAP_BYTES = 16 * pageBytes;
const TOTAL_BYTES = 8 * pageBytes;

/** Memory as koffi maps it, and a note of it. */
async function noted(t: ExecutionContext): Promise<Noted> {
  await prepareGivingBack();
  const parameters = ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t'];
  const map = (length: number): number =>
    runtime.func('mmap', 'uintptr_t', parameters)(
      0,
      length,
      PROT_READ_WRITE,
      MAP_PRIVATE_ANONYMOUS,
      -1,
      0,
    );
  const stack = map(TOTAL_BYTES);
  const heap = map(HEAP_BYTES);
  protect(stack, PROT_NONE);
  const note = viewNote(makeNote());
  note.words[NOTE.PAGE_BYTES] = pageBytes;
  note.words[NOTE.STACK] = stack;
  note.words[NOTE.STACK_BYTES] = TOTAL_BYTES;
  note.words[NOTE.HEAP] = heap;
  note.words[NOTE.HEAP_BYTES] = HEAP_BYTES;
  native.copy(tokenAddress(note.words), native.addressOf(note.token), note.token.length);
  const mappedParts = () =>
    Number(native.isMapped(stack, TOTAL_BYTES)) + Number(native.isMapped(heap, HEAP_BYTES));
  t.teardown(() => {
    if (mappedParts() === 0) return;
    runtime.func('munmap', 'int', ['uintptr_t', 'size_t'])(stack, TOTAL_BYTES);
    runtime.func('munmap', 'int', ['uintptr_t', 'size_t'])(heap, HEAP_BYTES);
  });
  return { note, mappedParts };
}

/** Sets what may be done with the page at `address`. */
function protect(address: number, access: number): void {
  runtime.func('mprotect', 'int', ['uintptr_t', 'size_t', 'int'])(address, pageBytes, access);
}

onLinuxAlone('memory that is what the note says is given back', async (t) => {
  const { note, mappedParts } = await noted(t);
  t.is(mappedParts(), 2);
  await giveBack([note]);
  t.is(mappedParts(), 0);
});

const DOUBTS: Record<string, (note: Noted['note']) => void> = {
  'whose token is another one': ({ token }) => {
    token[0] = (token[0] ?? 0) ^ 1;
  },
  'whose lowest page is accessible': ({ words }) => protect(words[NOTE.STACK] ?? 0, PROT_READ),
  'a part of whose stack is read-only': ({ words }) => {
    protect((words[NOTE.STACK] ?? 0) + 2 * pageBytes, PROT_READ);
  },
  'a part of whose heap is read-only': ({ words }) => protect(words[NOTE.HEAP] ?? 0, PROT_READ),
  'that is said to begin elsewhere': ({ words }) => {
    words[NOTE.STACK] = (words[NOTE.STACK] ?? 0) - pageBytes;
  },
};

for (const [what, cast] of Object.entries(DOUBTS)) {
  onLinuxAlone(`memory ${what} is kept`, async (t) => {
    const { note, mappedParts } = await noted(t);
    cast(note);
    await giveBack([note]);
    t.is(mappedParts(), 2);
  });
}

onLinuxAlone('memory that is gone already is not touched', async (t) => {
  const { note, mappedParts } = await noted(t);
  await giveBack([note]);
  await giveBack([note]);
  t.is(mappedParts(), 0);
});
