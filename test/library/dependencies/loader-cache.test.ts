/** The loader's cache, in the format that glibc's ldconfig writes. */

import test from 'ava';
import { parseLoaderCache } from '../../../src/library/dependencies/loader-cache.js';

interface Entry {
  name: string;
  path: string;
  isVariant?: boolean;
}

/** As it is on disk: a header of 48 bytes, entries of 24, texts. */
function cacheOf(entries: readonly Entry[]): Buffer {
  const header = Buffer.alloc(48);
  header.write('glibc-ld.so.cache1.1');
  new Uint32Array(header.buffer, header.byteOffset + 20, 1)[0] = entries.length;
  const table = Buffer.alloc(entries.length * 24);
  const texts: Buffer[] = [];
  let end = header.length + table.length;
  const add = (text: string) => {
    const bytes = Buffer.from(`${text}\0`);
    texts.push(bytes);
    end += bytes.length;
    return end - bytes.length;
  };
  for (const [index, { name, path, isVariant = false }] of entries.entries()) {
    const words = new Uint32Array(table.buffer, table.byteOffset + index * 24, 6);
    words.set([0x303, add(name), add(path), 0, isVariant ? 2 : 0, 0]);
  }
  return Buffer.concat([header, table, ...texts]);
}

test('of several libraries of one name the first one is found, as the loader does', (t) => {
  const found = parseLoaderCache(
    cacheOf([
      { name: 'libz.so.1', path: '/variant/libz.so.1', isVariant: true },
      { name: 'libz.so.1', path: '/usr/local/lib/libz.so.1' },
      { name: 'libz.so.1', path: '/usr/lib/libz.so.1' },
      { name: 'liba.so.1', path: '/usr/lib/liba.so.1' },
    ]),
  );
  t.deepEqual(Object.fromEntries(found), {
    'libz.so.1': ['/usr/local/lib/libz.so.1', '/usr/lib/libz.so.1', '/variant/libz.so.1'],
    'liba.so.1': ['/usr/lib/liba.so.1'],
  });
});

test('of what is no cache, or is cut off, nothing is taken that is not there', (t) => {
  const whole = cacheOf([{ name: 'liba.so.1', path: '/usr/lib/liba.so.1' }]);
  t.is(parseLoaderCache(Buffer.alloc(0)).size, 0);
  t.is(parseLoaderCache(Buffer.from('ld.so-1.7.0\0 and nothing else')).size, 0);
  t.is(parseLoaderCache(whole.subarray(0, 40)).size, 0);
  t.is(parseLoaderCache(whole.subarray(0, 60)).size, 0);
});
