/** Damaged ELF files that the dynamic loader would take, and write or read with it where the library has nothing to do. */

import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { fixture } from '../../../fixtures/paths.js';
import { LibraryInvalidError } from '../../../src/errors.js';
import { checkLibraryFile } from '../../../src/library/format/check.js';
import { ELF64 } from '../../../src/library/format/elf-layout.js';
import { scratch } from '../../support/files.js';
import { needs } from '../../support/needs.js';

/** How its parts lie in the file is only known here. */
const onLinuxX64 = needs('Linux x64', process.platform === 'linux' && process.arch === 'x64');

const PT = { LOAD: 1, DYNAMIC: 2, GNU_EH_FRAME: 0x6474e550, GNU_RELRO: 0x6474e552 };
const DT = {
  NULL: 0,
  NEEDED: 1,
  STRTAB: 5,
  SYMTAB: 6,
  RELA: 7,
  STRSZ: 10,
  INIT: 12,
  JMPREL: 23,
  INIT_ARRAYSZ: 27,
  GNU_HASH: 0x6ffffef5,
  VERSYM: 0x6ffffff0,
  VERNEED: 0x6ffffffe,
};
const R_X86_64_RELATIVE = 8;

/** Far from the library, and yet so near that there may be something. */
const ELSEWHERE = 1n << 21n;

/** The fixture `echo`, to be damaged. Of its tables, addresses are places in the file. */
class Elf {
  readonly view: DataView<ArrayBuffer>;

  constructor(bytes: Uint8Array) {
    this.view = new DataView(Uint8Array.from(bytes).buffer);
  }

  /** Where a program header is: the `index`-th of its type. */
  segment(type: number, index = 0): number {
    const count = this.view.getUint16(ELF64.phnum, true);
    const start = Number(this.view.getBigUint64(ELF64.phoff, true));
    const all = Array.from({ length: count }, (_, at) => start + at * ELF64.programHeaderBytes);
    return at(all.filter((place) => this.view.getUint32(place, true) === type)[index]);
  }

  /** Where the value of an entry of the dynamic section is. */
  entry(tag: number): number {
    const start = Number(this.word(this.segment(PT.DYNAMIC) + ELF64.pOffset));
    for (let place = start; ; place += 16) {
      const found = this.word(place);
      if (found === BigInt(tag)) return place + 8;
      if (found === 0n) throw new Error(`there is no entry ${tag}`);
    }
  }

  /** Where a table is that the dynamic section names. */
  table(tag: number): number {
    return Number(this.word(this.entry(tag)));
  }

  word(place: number): bigint {
    return this.view.getBigUint64(place, true);
  }

  /** Flips the bits of a word. */
  flip(place: number, bits = ELSEWHERE): void {
    this.view.setBigUint64(place, this.word(place) ^ bits, true);
  }

  /** Where the first relocation of that type is. */
  relocation(type: number): number {
    for (let place = this.table(DT.RELA); ; place += 24) {
      if (this.view.getUint32(place + 8, true) === type) return place;
    }
  }
}

function at<T>(found: T | undefined): T {
  if (found === undefined) throw new Error('it is not there');
  return found;
}

async function messageOf(t: ExecutionContext, bytes: Uint8Array): Promise<string | null> {
  const path = join(await scratch(t), 'library');
  await writeFile(path, bytes);
  return refusalOf(path);
}

/** Why a file is refused, or null. */
async function refusalOf(path: string): Promise<string | null> {
  const file = await open(path);
  try {
    await checkLibraryFile(file, (await file.stat()).size, path);
    return null;
  } catch (error) {
    if (error instanceof LibraryInvalidError) return `${error.defect}: ${error.message}`;
    throw error;
  } finally {
    await file.close();
  }
}

const damages: Record<string, (elf: Elf) => void> = {
  // Found by flipping bits: the loader filled the rest of the segment with zeros, over whatever was there.
  'a segment that goes on into the next ones': (elf) =>
    elf.flip(elf.segment(PT.LOAD, 1) + ELF64.pMemsz, 1n << 19n),
  'a segment that is somewhere else': (elf) => elf.flip(elf.segment(PT.LOAD, 1) + ELF64.pVaddr),
  'a segment with more bytes than memory': (elf) =>
    elf.flip(elf.segment(PT.LOAD, 3) + ELF64.pMemsz, 1n << 9n),
  'a segment at the end of all there can be': (elf) =>
    elf.flip(elf.segment(PT.LOAD, 3) + ELF64.pVaddr, 1n << 62n),
  'somebody else’s memory made read-only': (elf) =>
    elf.flip(elf.segment(PT.GNU_RELRO) + ELF64.pVaddr),
  'more made read-only than there is': (elf) => elf.flip(elf.segment(PT.GNU_RELRO) + ELF64.pMemsz),
  'a dynamic section that is in memory where it is not in the file': (elf) =>
    elf.flip(elf.segment(PT.DYNAMIC) + ELF64.pVaddr, 1n << 4n),
  'unwind information elsewhere': (elf) => elf.flip(elf.segment(PT.GNU_EH_FRAME) + ELF64.pVaddr),
  'a dynamic section without an end': (elf) => {
    const header = elf.segment(PT.DYNAMIC);
    const end = elf.entry(DT.VERSYM) + 8;
    const start = Number(elf.word(header + ELF64.pOffset));
    elf.view.setBigUint64(header + ELF64.pFilesz, BigInt(end - start), true);
  },
  'names elsewhere': (elf) => elf.flip(elf.entry(DT.STRTAB)),
  'names that do not end': (elf) => elf.flip(elf.entry(DT.STRSZ), 1n),
  'a dependency whose name is elsewhere': (elf) => elf.flip(elf.entry(DT.NEEDED)),
  'symbols elsewhere': (elf) => elf.flip(elf.entry(DT.SYMTAB)),
  'a symbol whose name is elsewhere': (elf) => elf.flip(elf.table(DT.SYMTAB) + 24, 1n << 22n),
  'a function elsewhere': (elf) => {
    let place = elf.table(DT.SYMTAB) + 24;
    while (elf.view.getUint16(place + 6, true) === 0) place += 24;
    elf.flip(place + 8);
  },
  'relocations elsewhere': (elf) => elf.flip(elf.entry(DT.RELA)),
  'a relocation of somebody else’s memory': (elf) => elf.flip(elf.relocation(R_X86_64_RELATIVE)),
  'a constructor elsewhere': (elf) => elf.flip(elf.relocation(R_X86_64_RELATIVE) + 16),
  'a constructor that is data': (elf) =>
    elf.flip(elf.relocation(R_X86_64_RELATIVE) + 16, 1n << 13n),
  'a relocation to a symbol that is none': (elf) => elf.flip(elf.table(DT.JMPREL) + 8, 1n << 50n),
  'more constructors than there is memory': (elf) => elf.flip(elf.entry(DT.INIT_ARRAYSZ)),
  'an init function elsewhere': (elf) => elf.flip(elf.entry(DT.INIT)),
  'a hash table with more buckets than bytes': (elf) => elf.flip(elf.table(DT.GNU_HASH), 1n << 20n),
  'a hash table that leads out of itself': (elf) => {
    const hash = elf.table(DT.GNU_HASH);
    const words = elf.view.getUint32(hash + 8, true);
    elf.flip(hash + 16 + words * 8, 1n << 24n);
  },
  'a symbol of a version that there is not': (elf) => elf.flip(elf.table(DT.VERSYM) + 2, 1n << 9n),
  'versions elsewhere': (elf) => elf.flip(elf.entry(DT.VERNEED)),
  'a version further than there is memory': (elf) => elf.flip(elf.table(DT.VERNEED) + 8, 1n << 22n),
};

for (const [what, damage] of Object.entries(damages)) {
  onLinuxX64(`refuses ${what}`, async (t) => {
    const elf = new Elf(await readFile(fixture('echo')));
    damage(elf);
    t.regex(
      (await messageOf(t, new Uint8Array(elf.view.buffer))) ?? 'accepted',
      /^not-a-library: .*malformed/,
    );
  });
}

test('accepts every library that this process has loaded, and every fixture', async (t) => {
  if (process.platform !== 'linux') {
    t.pass();
    return;
  }
  const maps = await readFile('/proc/self/maps', 'utf8');
  const loaded = maps.split('\n').map((line) => line.slice(line.indexOf('/')));
  const libraries = [...new Set(loaded)].filter((path) => /\.(so[.\d]*|node)$/.test(path));
  t.true(libraries.length > 3, libraries.join());
  const fixtures = ['echo', 'cpp', 'cpp_unique', 'dies', 'fault', 'own_thread'].map(fixture);
  for (const path of [...libraries, ...fixtures]) t.is(await refusalOf(path), null, path);
});
