/** Tells formats apart by their first bytes, and names them in messages. */

export type Format = 'elf' | 'mach-o' | 'pe';

/** Enough to tell every format apart, up to the PE offset in the DOS header. */
export const HEAD_BYTES = 64;

export const FORMAT_NAMES: Record<Format, string> = {
  elf: 'an ELF file, as on Linux',
  'mach-o': 'a Mach-O file, as on macOS',
  pe: 'a PE file, as on Windows',
};

export const FAT_MAGIC = 0xcafebabe;
export const FAT_MAGIC_64 = 0xcafebabf;

/**
 * Java class files share the magic of universal Mach-O; their version, read as a count, is larger.
 */
const FAT_MAX_SLICES = 30;

export function formatFor(platform: NodeJS.Platform): Format {
  if (platform === 'win32') return 'pe';
  return platform === 'darwin' ? 'mach-o' : 'elf';
}

export function formatOf(head: DataView): Format | undefined {
  if (head.byteLength < 4) return undefined;
  const magic = head.getUint32(0);
  switch (magic) {
    case 0x7f454c46:
      return 'elf';
    case 0xfeedface:
    case 0xfeedfacf:
    case 0xcefaedfe:
    case 0xcffaedfe:
      return 'mach-o';
    case FAT_MAGIC:
    case FAT_MAGIC_64:
      if (head.byteLength < 8) return undefined;
      return head.getUint32(4) <= FAT_MAX_SLICES ? 'mach-o' : undefined;
    default:
      return magic >>> 16 === 0x4d5a ? 'pe' : undefined;
  }
}

/** What a file that is no library is, as far as its first bytes tell. */
export function describeOther(head: DataView): string {
  const bytes = new Uint8Array(head.buffer);
  const start = Buffer.from(bytes).toString('latin1');
  if (start.startsWith('!<arch>')) return 'a static library (.a)';
  if (start.startsWith('version https://git-lfs')) return 'a Git LFS pointer, not the file itself';
  if (start.startsWith('\0asm')) return 'a WebAssembly module';
  // Tab to carriage return, and everything from the space up but DEL.
  const isText = bytes.every((byte) => (byte >= 9 && byte <= 13) || (byte >= 32 && byte !== 127));
  return isText ? 'a text file' : 'a file of an unknown format';
}
