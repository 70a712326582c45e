/** What an ELF file says of itself that its author should know. */

import { DF, DT, PF, PT } from '../library/elf/constants.js';
import { type ElfFile, type ElfSymbol, isExported, isImported } from '../library/elf/elf-file.js';
import { type Pins, pinsOf } from '../library/pins.js';

export interface ElfFacts {
  /** Where it wants its dependencies to be looked for (RPATH, RUNPATH). */
  searchPaths: string[];
  /** Symbols that others can see. */
  exported: ElfSymbol[];
  /** Symbols that others are to provide. */
  imported: string[];
  threadLocals: boolean;
  /** Initial-exec thread-locals, which need room that there is little of. */
  staticTls: boolean;
  /** Text relocations: code that the loader has to write to. */
  textRelocations: boolean;
  /** What will keep it in memory. */
  pins: Pins;
  /** Whether the loader makes its tables read-only when it has filled them in. */
  relro: boolean;
  executableStack: boolean;
}

/** @throws {ElfError} if the file cannot be read. */
export function elfFacts(elf: ElfFile): ElfFacts {
  const flags = elf.value(DT.FLAGS) ?? 0;
  const has = (tag: number) => elf.value(tag) !== undefined;
  const symbols = [...elf.symbols()].filter(({ name }) => name !== '');
  const stack = elf.segment(PT.GNU_STACK);
  const paths = [...elf.names(DT.RPATH), ...elf.names(DT.RUNPATH)];
  return {
    searchPaths: paths.flatMap((path) => path.split(':')),
    exported: symbols.filter(isExported),
    imported: symbols.filter(isImported).map(({ name }) => name),
    threadLocals: elf.segment(PT.TLS) !== undefined,
    staticTls: (flags & DF.STATIC_TLS) !== 0,
    textRelocations: has(DT.TEXTREL) || (flags & DF.TEXTREL) !== 0,
    pins: pinsOf(elf),
    relro: elf.segment(PT.GNU_RELRO) !== undefined,
    // Without this header the loader takes the processor's default, which for old ABIs is executable.
    executableStack: stack === undefined || (stack.flags & PF.X) !== 0,
  };
}
