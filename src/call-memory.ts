/**
 * What koffi maps for each thread that calls native code: a stack, with a page on each side, and a
 * heap for arguments. koffi 3.3.4 never gives them back (docs/koffi-thread-memory.md), so we do
 * once the thread has ended.
 *
 * The thread notes where they are in memory that it shares with its pool (workers/call-memory.ts).
 * Unmapping memory that is somebody else's would be far worse than the leak, so a note is acted on
 * only if all of this holds:
 *
 * 1. Node has joined the thread. A thread that is stuck in native code, or that `pthread_exit` has
 *    ended, keeps its memory.
 * 2. The process's mappings show a page without access, then a writable stack of the size that was
 *    asked for, and a writable heap; all of it anonymous.
 * 3. The pool's token is still in the page above the stack, which nobody else writes to. A koffi
 *    that does give the memory back has taken the token with it, whatever lies there by then.
 */

import { strict as assert } from 'node:assert';
import { randomFillSync } from 'node:crypto';
import { readMaps } from './library/mappings.js';

/**
 * Words of a note: 64-bit floats, which hold addresses exactly. The thread writes them, `THREAD_ID`
 * last.
 */
export const NOTE = {
  /** Node's number of the thread; 0 until the note is complete. */
  THREAD_ID: 0,
  PAGE_BYTES: 1,
  /** Address of the page below the stack, which cannot be accessed. */
  STACK: 2,
  /** From there to the end of the page above the stack. */
  STACK_BYTES: 3,
  HEAP: 4,
  HEAP_BYTES: 5,
} as const;

const NOTE_WORDS = 6;
const TOKEN_AT = NOTE_WORDS * Float64Array.BYTES_PER_ELEMENT;
const TOKEN_BYTES = 16;

/** A note as both sides see it. */
export interface CallMemoryNote {
  readonly words: Float64Array;
  readonly token: Uint8Array;
}

/** Views of a note's memory. */
export function viewNote(memory: SharedArrayBuffer): CallMemoryNote {
  return {
    words: new Float64Array(memory, 0, NOTE_WORDS),
    token: new Uint8Array(memory, TOKEN_AT, TOKEN_BYTES),
  };
}

/** Memory for the note of one lane's thread, with a token that no other has. */
export function makeNote(): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(TOKEN_AT + TOKEN_BYTES);
  randomFillSync(viewNote(memory).token);
  return memory;
}

/** Where the token lies: at the end of the page above the stack. */
export function tokenAddress(words: Float64Array): number {
  return word(words, NOTE.STACK) + word(words, NOTE.STACK_BYTES) - TOKEN_BYTES;
}

let memory: import('../workers/c-functions.js').MappedMemory | null = null;

/**
 * Binds what `giveBack` calls. Done before the first handler is loaded: a library whose constructor
 * hangs holds the dynamic loader's lock, and after that nothing can be bound any more.
 */
export async function prepareGivingBack(): Promise<void> {
  if (memory !== null || process.platform !== 'linux') return;
  const { bindMappedMemory } = await import('../workers/c-functions.js');
  memory = bindMappedMemory();
}

/**
 * Gives back what the notes say, as far as it is seen to be that. Each thread must have been
 * joined, and be noted once.
 */
export async function giveBack(notes: readonly CallMemoryNote[]): Promise<void> {
  // Where the system does not tell what is mapped, nothing is noted; where it no longer does,
  // nothing can be made sure of.
  if (notes.length === 0) return;
  const maps = (await readMaps()) ?? '';
  assert(memory !== null, 'a thread opens a library after prepareGivingBack');
  const mappings = parseMappings(maps);
  const found = new Uint8Array(TOKEN_BYTES);
  for (const { words, token } of notes) {
    if (!looksRight(mappings, words)) continue;
    memory.read(found, tokenAddress(words), TOKEN_BYTES);
    if (Buffer.compare(found, token) !== 0) continue;
    memory.unmap(word(words, NOTE.STACK), word(words, NOTE.STACK_BYTES));
    memory.unmap(word(words, NOTE.HEAP), word(words, NOTE.HEAP_BYTES));
  }
}

interface Mapping {
  start: number;
  end: number;
  /** As in `rw-p`. */
  access: string;
}

/** The anonymous mappings of the text of a `/proc/<pid>/maps`. Format: proc_pid_maps(5). */
function parseMappings(maps: string): Mapping[] {
  const anonymous = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ 0 *$/gm;
  return [...maps.matchAll(anonymous)].map(([, start = '', end = '', access = '']) => ({
    start: Number.parseInt(start, 16),
    end: Number.parseInt(end, 16),
    access,
  }));
}

function looksRight(mappings: readonly Mapping[], words: Float64Array): boolean {
  // The kernel merges neighbours of the same kind, so a mapping may reach further than what was
  // mapped at once.
  const isAll = (access: string, start: number, end: number) =>
    mappings.some((one) => one.access === access && one.start <= start && end <= one.end);
  const stack = word(words, NOTE.STACK);
  const usable = stack + word(words, NOTE.PAGE_BYTES);
  const heap = word(words, NOTE.HEAP);
  return (
    isAll('---p', stack, usable) &&
    isAll('rw-p', usable, stack + word(words, NOTE.STACK_BYTES)) &&
    isAll('rw-p', heap, heap + word(words, NOTE.HEAP_BYTES))
  );
}

function word(words: Float64Array, index: number): number {
  return words[index] ?? 0;
}
