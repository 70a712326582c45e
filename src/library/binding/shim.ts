/**
 * The runtime shim: a library of nothing but names and addresses, which comes first among the
 * dependencies of a library with own binding.
 *
 * It has every name of the C and C++ runtime for which ordinary binding finds something else than
 * the runtime itself: the executable's copies of data (`environ`, `std::cerr`), and functions that
 * a preloaded library stands in for (`malloc`). Each is an absolute symbol with the address that
 * ordinary binding finds in this process, so the library shares these with everybody, and has all
 * else from its own dependencies.
 *
 * The loader matches it by SONAME, so a library that needs it is the same file in every process,
 * while each process makes a shim of its own. Not in it are thread-locals, whose address differs
 * from thread to thread, and functions that are chosen when they are bound (`STT_GNU_IFUNC`).
 */

import { DT, PF, PT, SHN, STB, STT } from '../elf/constants.js';
import { type ElfSymbol, isExported } from '../elf/elf-file.js';
import { sysvHash } from '../elf/hash.js';
import { firstIn, ProcessScope, type ScopeFile, type ScopeSymbol } from './process-scope.js';

/** What the loader knows it by. */
export const SHIM_SONAME = 'libchangeover-runtime-shim.so';

interface ShimSymbol {
  name: string;
  type: number;
  address: number;
  sizeBytes: number;
}

/** Why there can be no shim in this process; null if there can. */
export function shimObstacle(scope: ProcessScope): string | null {
  const { elf } = scope.executable;
  if (elf.layout.bits !== 64 || !elf.little) {
    return 'it can be made for 64-bit little-endian machines only';
  }
  if (!scope.files.some(({ isRuntime }) => isRuntime)) {
    return 'this executable has the C library in itself';
  }
  return scope.gap;
}

/**
 * The bytes of this process's shim.
 *
 * @throws {Error} if what the process has loaded cannot be read, or a file of it has been replaced.
 */
export function shimOfThisProcess(): Buffer {
  const scope = ProcessScope.open();
  try {
    const obstacle = shimObstacle(scope);
    if (obstacle !== null) throw new Error(obstacle);
    return makeShim(scope);
  } finally {
    scope.close();
  }
}

/** The bytes of a shim for a process. */
export function makeShim(scope: ProcessScope): Buffer {
  return shimFile(shimSymbols(scope), scope.executable.elf.machine);
}

function shimSymbols(scope: ProcessScope): ShimSymbol[] {
  const symbols = new Map<string, ShimSymbol>();
  const seen = new Set<string>();
  for (const runtime of scope.files.filter(({ isRuntime }) => isRuntime)) {
    addStandIns(runtime, scope, seen, symbols);
  }
  return [...symbols.values()];
}

/**
 * Adds what stands in for symbols of one library of the runtime, without those that were `seen` in
 * an earlier one.
 */
function addStandIns(
  runtime: ScopeFile,
  scope: ProcessScope,
  seen: Set<string>,
  symbols: Map<string, ShimSymbol>,
): void {
  const before = scope.files.slice(0, scope.files.indexOf(runtime));
  const foreign = before.filter(({ isRuntime }) => !isRuntime);
  /** Copies of this library's data in the executable, by where the original is. */
  const copies = new Map<number, ScopeSymbol>();
  const variables: ElfSymbol[] = [];
  const add = (name: string, { file, symbol }: ScopeSymbol) => {
    if (symbols.has(name)) return;
    const { type, value, sizeBytes, section } = symbol;
    const address = section === SHN.ABS ? value : file.bias + value;
    symbols.set(name, { name, type, address, sizeBytes });
  };
  for (const symbol of runtime.elf.symbols()) {
    const { name } = symbol;
    if (!isOffered(symbol)) continue;
    if (symbol.type === STT.OBJECT) variables.push(symbol);
    if (seen.has(name)) continue;
    seen.add(name);
    const found = firstIn(foreign, name);
    if (found === null || !isOffered(found.symbol)) continue;
    add(name, found);
    if (found.file.isExecutable && scope.isCopy(found.symbol)) copies.set(symbol.value, found);
  }
  // `environ` is `__environ`: one variable under several names, not all of which the executable
  // needs to know.
  for (const { name, value } of variables) {
    const copy = copies.get(value);
    if (copy !== undefined) add(name, copy);
  }
}

/** Whether a symbol has one address, which others may use. */
function isOffered(symbol: ElfSymbol): boolean {
  return isExported(symbol) && symbol.type !== STT.TLS && symbol.type !== STT.GNU_IFUNC;
}

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const SYMBOL_BYTES = 24;
const DYNAMIC_ENTRY_BYTES = 16;
/** `ET_DYN` */
const SHARED_LIBRARY = 3;
/** Of any page size there is. */
const ALIGN_BYTES = 65_536;
/** `DT_SYMENT` */
const DT_SYMBOL_BYTES = 11;

/**
 * A shared library with these symbols, in the simplest form that the loader takes: gABI, chapters 4
 * and 5.
 */
function shimFile(symbols: readonly ShimSymbol[], machine: number): Buffer {
  const names = ['', SHIM_SONAME, ...symbols.map(({ name }) => name)].map((name) =>
    Buffer.from(`${name}\0`, 'latin1'),
  );
  const strings = Buffer.concat(names);
  const nameAt: number[] = [];
  let at = 0;
  for (const name of names) {
    nameAt.push(at);
    at += name.length;
  }
  const count = symbols.length + 1;
  const buckets = Math.max(1, count >> 1);
  const segments = [PT.LOAD, PT.DYNAMIC, PT.GNU_STACK];
  const dynamicAt = HEADER_BYTES + segments.length * PROGRAM_HEADER_BYTES;
  const dynamicBytes = 7 * DYNAMIC_ENTRY_BYTES;
  const symbolsAt = dynamicAt + dynamicBytes;
  const hashAt = symbolsAt + count * SYMBOL_BYTES;
  const stringsAt = hashAt + (2 + buckets + count) * 4;
  const totalBytes = stringsAt + strings.length;
  const file = Buffer.alloc(totalBytes);
  const word = (value: number, where: number) => file.writeBigUInt64LE(BigInt(value), where);

  file.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  file.writeUInt16LE(SHARED_LIBRARY, 16);
  file.writeUInt16LE(machine, 18);
  file.writeUInt32LE(1, 20);
  word(HEADER_BYTES, 32);
  file.writeUInt16LE(HEADER_BYTES, 52);
  file.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  file.writeUInt16LE(segments.length, 56);
  file.writeUInt16LE(HEADER_BYTES, 58);

  const program = (index: number, type: number, start: number, bytes: number, align: number) => {
    const where = HEADER_BYTES + index * PROGRAM_HEADER_BYTES;
    file.writeUInt32LE(type, where);
    // The loader writes addresses to the dynamic section; there is no code.
    file.writeUInt32LE(PF.R | PF.W, where + 4);
    for (const place of [8, 16, 24]) word(start, where + place);
    word(bytes, where + 32);
    word(bytes, where + 40);
    word(align, where + 48);
  };
  program(0, PT.LOAD, 0, totalBytes, ALIGN_BYTES);
  program(1, PT.DYNAMIC, dynamicAt, dynamicBytes, 8);
  program(2, PT.GNU_STACK, 0, 0, 16);

  const dynamic = [
    [DT.SONAME, nameAt[1] ?? 0],
    [DT.HASH, hashAt],
    [DT.STRTAB, stringsAt],
    [DT.SYMTAB, symbolsAt],
    [DT.STRSZ, strings.length],
    [DT_SYMBOL_BYTES, SYMBOL_BYTES],
    [DT.NULL, 0],
  ] as const;
  for (const [index, [tag, value]] of dynamic.entries()) {
    word(tag, dynamicAt + index * DYNAMIC_ENTRY_BYTES);
    word(value, dynamicAt + index * DYNAMIC_ENTRY_BYTES + 8);
  }

  file.writeUInt32LE(buckets, hashAt);
  file.writeUInt32LE(count, hashAt + 4);
  for (const [position, { name, type, address, sizeBytes }] of symbols.entries()) {
    const index = position + 1;
    const where = symbolsAt + index * SYMBOL_BYTES;
    file.writeUInt32LE(nameAt[index + 1] ?? 0, where);
    file.writeUInt8((STB.GLOBAL << 4) | type, where + 4);
    file.writeUInt16LE(SHN.ABS, where + 6);
    word(address, where + 8);
    word(sizeBytes, where + 16);
    // Each bucket leads to the symbol that was put there last, and that one to the one before.
    const bucketAt = hashAt + 8 + (sysvHash(name) % buckets) * 4;
    file.writeUInt32LE(file.readUInt32LE(bucketAt), hashAt + 8 + (buckets + index) * 4);
    file.writeUInt32LE(index, bucketAt);
  }
  strings.copy(file, stringsAt);
  return file;
}
