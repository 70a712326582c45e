import { execFile } from 'node:child_process';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { type LibraryDefect, LibraryInvalidError } from '../../../src/errors.js';
import { checkLibraryFile } from '../../../src/library/format/check.js';
import { needs } from '../../support/needs.js';

const SOURCE = `
#include <stdint.h>
static int calls;
uint32_t handler_abi_version(void) { return 1; }
int32_t handler_entry(const void *ctx, const void *req, void *res) { return ++calls; }
int main(void) { return 0; }
`;

const onLinux = needs('Linux', process.platform === 'linux');

let directory: string;

test.before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'format-'));
  await writeFile(join(directory, 'echo.c'), SOURCE);
});

test.after.always(() => rm(directory, { recursive: true, force: true }));

/** What `cc` makes of the source with these flags. */
async function compile(name: string, ...flags: string[]): Promise<Buffer> {
  const path = join(directory, name);
  await promisify(execFile)('cc', ['-o', path, ...flags, join(directory, 'echo.c')]);
  return readFile(path);
}

let uniqueFiles = 0;

async function check(
  bytes: Uint8Array,
  platform: NodeJS.Platform = 'linux',
  arch: NodeJS.Architecture = process.arch,
): Promise<void> {
  const path = join(directory, `file-${uniqueFiles++}`);
  await writeFile(path, bytes);
  const file = await open(path);
  try {
    await checkLibraryFile(file, bytes.length, path, platform, arch);
  } finally {
    await file.close();
    await rm(path);
  }
}

/** The defect for which the bytes are refused; `undefined` if they are accepted. */
async function defectOf(...args: Parameters<typeof check>): Promise<LibraryDefect | undefined> {
  try {
    await check(...args);
    return undefined;
  } catch (error) {
    if (error instanceof LibraryInvalidError) return error.defect;
    throw error;
  }
}

function patched(bytes: Uint8Array, patch: (view: DataView) => void): Uint8Array {
  const copy = Uint8Array.from(bytes);
  patch(new DataView(copy.buffer));
  return copy;
}

// ---- ELF ----------------------------------------------------------------------------------------

onLinux('accepts shared libraries, also stripped ones', async (t) => {
  t.is(await defectOf(await compile('plain.so', '-shared', '-fPIC')), undefined);
  t.is(await defectOf(await compile('stripped.so', '-shared', '-fPIC', '-s')), undefined);
  t.is(await defectOf(await compile('debug.so', '-shared', '-fPIC', '-g')), undefined);
});

onLinux('accepts a library without section headers', async (t) => {
  const bytes = await compile('sectionless.so', '-shared', '-fPIC');
  const sectionless = patched(bytes, (view) => {
    view.setBigUint64(40, 0n, true);
    view.setUint16(60, 0, true);
  });
  t.is(await defectOf(sectionless), undefined);
});

onLinux('refuses what the linker makes that is no shared library', async (t) => {
  t.is(await defectOf(await compile('object.o', '-c', '-fPIC')), 'not-a-library');
  t.is(await defectOf(await compile('program', '-no-pie')), 'not-a-library');
  t.is(await defectOf(await compile('pie', '-fPIE', '-pie')), 'not-a-library');
});

onLinux('accepts libraries of other machines only for those machines', async (t) => {
  const bytes = await compile('machine.so', '-shared', '-fPIC');
  const machines: [NodeJS.Architecture, number][] = [
    ['x64', 62],
    ['arm64', 183],
    ['riscv64', 243],
    ['ppc64', 21],
    ['loong64', 258],
  ];
  for (const [arch, machine] of machines) {
    const library = patched(bytes, (view) => view.setUint16(18, machine, true));
    for (const [other] of machines) {
      const expected = other === arch ? undefined : 'wrong-architecture';
      t.is(await defectOf(library, 'linux', other), expected, `${arch} on ${other}`);
    }
  }
});

onLinux('refuses 32-bit and byte-swapped files', async (t) => {
  const bytes = await compile('class.so', '-shared', '-fPIC');
  const class32 = patched(bytes, (view) => view.setUint8(4, 1));
  t.is(await defectOf(class32), 'wrong-architecture');
  const bigEndian = patched(bytes, (view) => view.setUint8(5, 2));
  t.is(await defectOf(bigEndian), 'wrong-architecture');
  const unknownClass = patched(bytes, (view) => view.setUint8(4, 3));
  t.is(await defectOf(unknownClass), 'not-a-library');
});

onLinux('refuses a library cut off anywhere', async (t) => {
  for (const flags of [[], ['-s'], ['-g']]) {
    const bytes = await compile('cut.so', '-shared', '-fPIC', ...flags);
    const sizes = [bytes.length - 1, bytes.length - 8, bytes.length - 64, bytes.length - 4096];
    for (let size = 0; size < 2048; size += 64) sizes.push(size);
    for (let size = 4096; size < bytes.length; size += 1024) sizes.push(size);
    for (const size of sizes) {
      const defect = await defectOf(bytes.subarray(0, size));
      t.is(defect, size === 0 ? 'not-a-library' : 'truncated', `${size} of ${bytes.length}`);
    }
  }
});

onLinux('refuses a library without section headers cut off in a segment', async (t) => {
  const bytes = patched(await compile('segments.so', '-shared', '-fPIC'), (view) => {
    view.setBigUint64(40, 0n, true);
    view.setUint16(60, 0, true);
  });
  t.is(await defectOf(bytes.subarray(0, 12_000)), 'truncated');
});

onLinux('refuses offsets and sizes near the end of their types', async (t) => {
  const bytes = await compile('overflow.so', '-shared', '-fPIC');
  const fields = [32, 40, 64 + 8, 64 + 32]; // e_phoff, e_shoff, p_offset, p_filesz
  for (const at of fields) {
    for (const value of [2n ** 64n - 1n, 2n ** 63n, 2n ** 53n, BigInt(bytes.length) + 1n]) {
      const bad = patched(bytes, (view) => view.setBigUint64(at, value, true));
      t.is(await defectOf(bad), 'truncated', `${value} at ${at}`);
    }
  }
  const counts = [54, 56, 58, 60]; // e_phentsize, e_phnum, e_shentsize, e_shnum
  for (const at of counts) {
    const bad = patched(bytes, (view) => view.setUint16(at, 0xffff, true));
    t.truthy(await defectOf(bad), `count at ${at}`);
  }
  const none = patched(bytes, (view) => view.setUint16(56, 0, true));
  t.is(await defectOf(none), 'not-a-library');
});

onLinux('no bytes in the headers lead to anything but an answer', async (t) => {
  const bytes = await compile('random.so', '-shared', '-fPIC');
  const position = fc.oneof(fc.nat(64 + 56 * 12), fc.nat(bytes.length - 1));
  const changes = fc.array(fc.tuple(position, fc.nat(255)), { minLength: 1, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(changes, fc.nat(bytes.length), async (list, size) => {
      const damaged = patched(bytes, (view) => {
        for (const [at, value] of list) view.setUint8(at, value);
      });
      await defectOf(damaged);
      await defectOf(damaged.subarray(0, size));
    }),
    { numRuns: 300 },
  );
  t.pass();
});

// ---- Files of other kinds -----------------------------------------------------------------------

test('says of an empty file that it is empty', async (t) => {
  const error = await t.throwsAsync(check(new Uint8Array()), { instanceOf: LibraryInvalidError });
  t.is(error?.defect, 'not-a-library');
  t.regex(error?.message ?? '', /empty/);
});

test('refuses text and other files on every platform', async (t) => {
  const files = [
    '#!/bin/sh\n',
    'x',
    'MIT',
    '!<arch>\n',
    'version https://git-lfs.github.com/spec/v1\n',
    '\0asm\x01\0\0\0',
    '\0'.repeat(4096),
    '\xca\xfe\xba\xbe\0\0\0\x34', // a Java class
  ];
  for (const platform of ['linux', 'darwin', 'win32', 'freebsd'] as const) {
    for (const text of files) {
      const bytes = Buffer.from(text, 'latin1');
      t.is(await defectOf(bytes, platform), 'not-a-library', `${JSON.stringify(text)} ${platform}`);
    }
  }
});

// ---- Mach-O -------------------------------------------------------------------------------------

const MACH_O_CPU = { x64: 0x01000007, arm64: 0x0100000c } as const;

/** A dylib with one segment that ends with the file. */
function machO(arch: keyof typeof MACH_O_CPU, type = 6): Uint8Array {
  return patched(new Uint8Array(512), (view) => {
    view.setUint32(0, 0xfeedfacf, true);
    view.setUint32(4, MACH_O_CPU[arch], true);
    view.setUint32(12, type, true);
    view.setUint32(16, 1, true); // ncmds
    view.setUint32(20, 72, true); // sizeofcmds
    view.setUint32(32, 0x19, true); // LC_SEGMENT_64
    view.setUint32(36, 72, true);
    view.setBigUint64(32 + 40, 256n, true);
    view.setBigUint64(32 + 48, 256n, true);
  });
}

function universal(...slices: [keyof typeof MACH_O_CPU, Uint8Array][]): Uint8Array {
  return patched(new Uint8Array(512 * (slices.length + 1)), (view) => {
    view.setUint32(0, 0xcafebabe);
    view.setUint32(4, slices.length);
    slices.forEach(([arch, bytes], index) => {
      const at = 8 + 20 * index;
      const start = 512 * (index + 1);
      view.setUint32(at, MACH_O_CPU[arch]);
      view.setUint32(at + 8, start);
      view.setUint32(at + 12, bytes.length);
      new Uint8Array(view.buffer).set(bytes, start);
    });
  });
}

test('Mach-O: accepts dylibs and bundles for the architecture', async (t) => {
  t.is(await defectOf(machO('arm64'), 'darwin', 'arm64'), undefined);
  t.is(await defectOf(machO('x64', 8), 'darwin', 'x64'), undefined);
  t.is(await defectOf(machO('x64'), 'darwin', 'arm64'), 'wrong-architecture');
  t.is(await defectOf(machO('x64', 2), 'darwin', 'x64'), 'not-a-library');
  t.is(await defectOf(machO('x64'), 'linux', 'x64'), 'wrong-platform');
});

test('Mach-O: looks for its slice in a universal file', async (t) => {
  const both = universal(['x64', machO('x64')], ['arm64', machO('arm64')]);
  t.is(await defectOf(both, 'darwin', 'x64'), undefined);
  t.is(await defectOf(both, 'darwin', 'arm64'), undefined);
  const other = universal(['x64', machO('x64')]);
  t.is(await defectOf(other, 'darwin', 'arm64'), 'wrong-architecture');
  t.is(await defectOf(both, 'linux', 'x64'), 'wrong-platform');
});

test('Mach-O: refuses files cut off anywhere', async (t) => {
  const both = universal(['x64', machO('x64')], ['arm64', machO('arm64')]);
  for (const bytes of [machO('arm64'), both]) {
    for (let size = 8; size < bytes.length; size += 8) {
      t.is(await defectOf(bytes.subarray(0, size), 'darwin', 'arm64'), 'truncated', `${size}`);
    }
  }
});

test('Mach-O: refuses load commands that contradict themselves', async (t) => {
  for (const size of [0, 7, 71, 73, 0xffffffff]) {
    const bad = patched(machO('arm64'), (view) => view.setUint32(36, size, true));
    t.is(await defectOf(bad, 'darwin', 'arm64'), 'not-a-library', `${size}`);
  }
  const many = patched(machO('arm64'), (view) => view.setUint32(16, 0xffffffff, true));
  t.is(await defectOf(many, 'darwin', 'arm64'), 'not-a-library');
  const far = patched(machO('arm64'), (view) => view.setBigUint64(72, 2n ** 64n - 1n, true));
  t.is(await defectOf(far, 'darwin', 'arm64'), 'truncated');
});

// ---- PE -----------------------------------------------------------------------------------------

/** A DLL with one section that ends with the file, and one without data. */
function pe(machine: number, characteristics = 0x2022): Uint8Array {
  return patched(new Uint8Array(1024), (view) => {
    view.setUint16(0, 0x4d5a);
    view.setUint32(60, 128, true);
    view.setUint32(128, 0x50450000);
    view.setUint16(132, machine, true);
    view.setUint16(134, 2, true); // sections
    view.setUint16(148, 240, true); // optional header
    view.setUint16(150, characteristics, true);
    const table = 128 + 24 + 240;
    view.setUint32(table + 16, 512, true);
    view.setUint32(table + 20, 512, true);
    view.setUint32(table + 40 + 20, 0xffffffff, true);
  });
}

test('PE: accepts DLLs for the architecture', async (t) => {
  t.is(await defectOf(pe(0x8664), 'win32', 'x64'), undefined);
  t.is(await defectOf(pe(0xaa64), 'win32', 'arm64'), undefined);
  t.is(await defectOf(pe(0x014c), 'win32', 'x64'), 'wrong-architecture');
  t.is(await defectOf(pe(0x8664, 0x0022), 'win32', 'x64'), 'not-a-library');
  t.is(await defectOf(pe(0x8664), 'linux', 'x64'), 'wrong-platform');
});

test('PE: refuses files cut off anywhere, and DOS programs', async (t) => {
  const bytes = pe(0x8664);
  for (let size = 8; size < bytes.length; size += 8) {
    t.is(await defectOf(bytes.subarray(0, size), 'win32', 'x64'), 'truncated', `${size}`);
  }
  const dos = patched(bytes, (view) => view.setUint32(128, 0));
  t.is(await defectOf(dos, 'win32', 'x64'), 'not-a-library');
});
