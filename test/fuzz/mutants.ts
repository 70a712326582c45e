/**
 * Broken builds of a library: cut off, and with bits flipped in what the dynamic loader reads of it (headers, tables, dynamic section).
 *
 * Machine code and data are left alone. A library that does something else than its source says is a library all the same: whether it
 * is one that crashes cannot be told from its file.
 */

import fc from 'fast-check';
import { ELF64, word } from '../../src/library/format/elf-layout.js';

export interface Mutant {
  /** What was done to it. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** A range of the file. */
interface Part {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

const PAGE_BYTES = 4096;
const CUT_BYTES = 64;
const MOST_FLIPS = 3;
const PF_X = 1;
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const DT_RELA = 7;
const DT_RELASZ = 8;
const RELA_BYTES = 24;
const R_NONE = 0;

/** One after every 64 bytes of the first two pages. */
export function truncations(library: Uint8Array, what: string): Mutant[] {
  const cuts = Math.floor((2 * PAGE_BYTES) / CUT_BYTES);
  return Array.from({ length: cuts }, (_, index) => index * CUT_BYTES)
    .filter((length) => length < library.length)
    .map((length) => ({
      name: `${what}, the first ${length} bytes`,
      bytes: library.slice(0, length),
    }));
}

/** The library as `strip` can leave it: nothing at its end that says how long it should be. */
export function withoutSections(library: Uint8Array): Uint8Array {
  const copy = library.slice();
  new DataView(copy.buffer).setBigUint64(ELF64.shoff, 0n, true);
  return copy;
}

/** The library with relocations that do nothing: a whole file, of which the loader or the first constructor dies. */
export function unrelocated(library: Uint8Array): Mutant {
  const bytes = library.slice();
  const view = new DataView(bytes.buffer);
  const { dynamic } = partsOf(library);
  const values = new Map<number, number>();
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.length; at += 16) {
    values.set(Number(view.getBigUint64(at, true)), Number(view.getBigUint64(at + 8, true)));
  }
  // In the first segment, addresses are places in the file.
  const start = values.get(DT_RELA) ?? 0;
  const end = start + (values.get(DT_RELASZ) ?? 0);
  for (let at = start; at < end; at += RELA_BYTES) view.setUint32(at + 8, R_NONE, true);
  return { name: 'the library without relocations', bytes };
}

/** Each of one to three bits, the same ones for the same seed. */
export function flipped(library: Uint8Array, seed: number, count: number): Mutant[] {
  const flip = fc.noBias(
    fc.constantFrom(...partsOf(library).all).chain((part) =>
      fc.record({
        part: fc.constant(part.name),
        at: fc.integer({ min: part.offset, max: part.offset + part.length - 1 }),
        bit: fc.integer({ min: 0, max: 7 }),
      }),
    ),
  );
  const flips = fc.noBias(fc.array(flip, { minLength: 1, maxLength: MOST_FLIPS }));
  return fc.sample(flips, { seed, numRuns: count }).map((all) => {
    const bytes = library.slice();
    for (const { at, bit } of all) bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
    const names = all.map(({ part, at, bit }) => `bit ${bit} of byte ${at} (${part})`);
    return { name: names.join(', '), bytes };
  });
}

/** What the loader, or a tool, reads of a 64-bit little-endian ELF file. */
function partsOf(library: Uint8Array): { dynamic: Part; all: Part[] } {
  const view = new DataView(library.buffer, library.byteOffset, library.byteLength);
  const number = (at: number) => Number(word(view, at, ELF64, true));
  const table = (name: string, at: number, entries: number, entryBytes: number): Part => ({
    name,
    offset: number(at),
    length: view.getUint16(entries, true) * entryBytes,
  });
  const programs = table('program headers', ELF64.phoff, ELF64.phnum, ELF64.programHeaderBytes);
  const sections = table('section headers', ELF64.shoff, ELF64.shnum, ELF64.sectionHeaderBytes);
  const segments = Array.from(
    { length: programs.length / ELF64.programHeaderBytes },
    (_, index) => {
      const at = programs.offset + index * ELF64.programHeaderBytes;
      return {
        type: view.getUint32(at, true),
        flags: view.getUint32(at + ELF64.pFlags, true),
        offset: number(at + ELF64.pOffset),
        length: number(at + ELF64.pFilesz),
      };
    },
  );
  const found = segments.find(({ type }) => type === PT_DYNAMIC);
  // Linkers put hash tables, symbols, their names and relocations into the first segment, before the code.
  const first = segments.find(({ type }) => type === PT_LOAD);
  if (found === undefined || first === undefined || (first.flags & PF_X) !== 0) {
    throw new Error('the library is not laid out as expected: its tables and its code are one');
  }
  const header = { name: 'ELF header', offset: 0, length: ELF64.headerBytes };
  const dynamic = { name: 'dynamic section', offset: found.offset, length: found.length };
  const { offset, length } = first;
  const pages = { name: 'first pages', offset, length: Math.min(length, 2 * PAGE_BYTES) };
  return { dynamic, all: [header, programs, sections, dynamic, pages] };
}
