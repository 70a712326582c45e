/** Whether a PE file is a whole DLL for a machine: the PE/COFF specification. */

import type { LibraryFile } from './library-file.js';

const DOS_HEADER_BYTES = 64;
const PE_SIGNATURE = 0x50450000;
const COFF_HEADER_BYTES = 24; // with the signature
const IMAGE_FILE_DLL = 0x2000;
const PE_SECTION_BYTES = 40;

const PE_MACHINES: Partial<Record<string, number>> = {
  x64: 0x8664,
  arm64: 0xaa64,
  ia32: 0x014c,
  arm: 0x01c4,
};

export async function checkPe(library: LibraryFile): Promise<void> {
  const dos = await library.read(0n, DOS_HEADER_BYTES, 'DOS header');
  const start = BigInt(dos.getUint32(60, true));
  const header = await library.read(start, COFF_HEADER_BYTES, 'PE header');
  if (header.getUint32(0) !== PE_SIGNATURE) {
    throw library.refusal('not-a-library', 'a DOS program, or a PE file without its header');
  }
  const machine = header.getUint16(4, true);
  const wanted = PE_MACHINES[library.arch];
  if (wanted !== undefined && machine !== wanted) {
    const got = `PE for machine 0x${machine.toString(16)}`;
    throw library.refusal('wrong-architecture', got);
  }
  if ((header.getUint16(22, true) & IMAGE_FILE_DLL) === 0) {
    throw library.refusal('not-a-library', 'PE that is not marked as a DLL');
  }

  const tableAt = start + BigInt(COFF_HEADER_BYTES + header.getUint16(20, true));
  const tableBytes = header.getUint16(6, true) * PE_SECTION_BYTES;
  const sections = await library.read(tableAt, tableBytes, 'section table');
  for (let at = 0; at < tableBytes; at += PE_SECTION_BYTES) {
    const bytes = BigInt(sections.getUint32(at + 16, true));
    // Without data in the file the pointer means nothing.
    if (bytes === 0n) continue;
    library.requireInside(BigInt(sections.getUint32(at + 20, true)), bytes, 'section');
  }
}
