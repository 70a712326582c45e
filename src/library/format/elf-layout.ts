/** Where a 32-bit and a 64-bit ELF file keep what is checked, and what Node's machines are called. */

export interface ElfLayout {
  bits: 32 | 64;
  headerBytes: number;
  /** Offsets in the file header. */
  phoff: number;
  shoff: number;
  phentsize: number;
  phnum: number;
  shentsize: number;
  shnum: number;
  /** Size of a program header, and offsets in it. */
  programHeaderBytes: number;
  pFlags: number;
  pOffset: number;
  pVaddr: number;
  pFilesz: number;
  pMemsz: number;
  /** Size of a section header, and an offset in it. */
  sectionHeaderBytes: number;
  shSize: number;
}

export const ELF32: ElfLayout = {
  bits: 32,
  headerBytes: 52,
  phoff: 28,
  shoff: 32,
  phentsize: 42,
  phnum: 44,
  shentsize: 46,
  shnum: 48,
  programHeaderBytes: 32,
  pFlags: 24,
  pOffset: 4,
  pVaddr: 8,
  pFilesz: 16,
  pMemsz: 20,
  sectionHeaderBytes: 40,
  shSize: 20,
};

export const ELF64: ElfLayout = {
  bits: 64,
  headerBytes: 64,
  phoff: 32,
  shoff: 40,
  phentsize: 54,
  phnum: 56,
  shentsize: 58,
  shnum: 60,
  programHeaderBytes: 56,
  pFlags: 4,
  pOffset: 8,
  pVaddr: 16,
  pFilesz: 32,
  pMemsz: 40,
  sectionHeaderBytes: 64,
  shSize: 32,
};

interface ElfTarget {
  machine: number;
  bits: 32 | 64;
  /** Absent where Node runs on both byte orders. */
  littleEndian?: boolean;
}

export const ELF_TARGETS: Partial<Record<string, ElfTarget>> = {
  x64: { machine: 62, bits: 64, littleEndian: true },
  arm64: { machine: 183, bits: 64, littleEndian: true },
  ia32: { machine: 3, bits: 32, littleEndian: true },
  arm: { machine: 40, bits: 32, littleEndian: true },
  riscv64: { machine: 243, bits: 64, littleEndian: true },
  ppc64: { machine: 21, bits: 64 },
  s390x: { machine: 22, bits: 64, littleEndian: false },
  loong64: { machine: 258, bits: 64, littleEndian: true },
};

export function word(view: DataView, offset: number, layout: ElfLayout, little: boolean): bigint {
  if (layout.bits === 64) return view.getBigUint64(offset, little);
  return BigInt(view.getUint32(offset, little));
}
