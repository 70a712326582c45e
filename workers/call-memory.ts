/**
 * Where koffi's memory of this thread is, for whoever gives it back when the thread has ended
 * (src/call-memory.ts). Linux only.
 */

import { threadId } from 'node:worker_threads';
import { NOTE, tokenAddress, viewNote } from '../src/call-memory.js';
import { bind } from './c-functions.js';
import { callHeapBytes, type NativeMemory } from './native-library.js';

const O_RDONLY_CLOEXEC = 0o2000000;
/** More than the file ever has: nine numbers. */
const LINE_BYTES = 512;

/** Notes it in `note`, which stays empty where the system does not tell. */
export function noteCallMemory(
  native: NativeMemory,
  stackBytes: number,
  note: SharedArrayBuffer,
): void {
  if (process.platform !== 'linux') return;
  const stackPointer = stackPointerInCalls();
  if (stackPointer === null) return;
  const { pageBytes } = native;
  const roundUp = (bytes: number) => Math.ceil(bytes / pageBytes) * pageBytes;
  // A call begins at the upper end, and one of a system function takes far less than a page.
  const stackEnd = roundUp(stackPointer);
  const totalBytes = pageBytes + roundUp(stackBytes) + pageBytes;
  const { words, token } = viewNote(note);
  words[NOTE.PAGE_BYTES] = pageBytes;
  words[NOTE.STACK] = stackEnd + pageBytes - totalBytes;
  words[NOTE.STACK_BYTES] = totalBytes;
  words[NOTE.HEAP] = heapAddress();
  words[NOTE.HEAP_BYTES] = callHeapBytes();
  native.copy(tokenAddress(words), native.addressOf(token), token.length);
  words[NOTE.THREAD_ID] = threadId;
}

/**
 * Where the stack pointer is in a native call; null where the system does not tell. The kernel
 * shows it for a thread that is in a system call, and so to the call that reads it
 * (proc_pid_syscall(5)): on all processors alike, and without any C library's help.
 */
function stackPointerInCalls(): number | null {
  const open = bind('open', 'int', ['const char *', 'int', 'int']);
  const descriptor = open('/proc/thread-self/syscall', O_RDONLY_CLOEXEC, 0);
  if (descriptor === -1) return null;
  const line = new Uint8Array(LINE_BYTES);
  const length = bind('read', 'intptr_t', ['int', 'uint8_t *', 'size_t'])(
    descriptor,
    line,
    line.length,
  );
  bind('close', 'int', ['int'])(descriptor);
  if (length <= 0) return null;
  // The number of the call, its six arguments, the stack pointer, the instruction pointer.
  const address = new TextDecoder().decode(line.subarray(0, length)).split(' ')[7];
  const stackPointer = Number(address);
  return Number.isSafeInteger(stackPointer) && stackPointer > 0 ? stackPointer : null;
}

/** The first string of a call lies at the beginning of koffi's heap. strchr(3) returns where. */
function heapAddress(): number {
  return bind('strchr', 'uintptr_t', ['const char *', 'int'])('x', 'x'.charCodeAt(0));
}
