import test from 'ava';
import { InvalidIdError } from '../../src/errors.js';
import { assertHandlerId, libraryFileName } from '../../src/library/name.js';

test('accepts 1 to 64 characters of the alphabet', (t) => {
  for (const id of ['a', '0', '_', '-', 'Thumb_nail-2', 'x'.repeat(64)]) {
    t.notThrows(() => assertHandlerId(id));
  }
});

test('refuses everything else', (t) => {
  const refused: unknown[] = [
    '',
    'x'.repeat(65),
    '.',
    '..',
    '../thumbnail',
    'a/b',
    'a\\b',
    'a.so',
    'a b',
    'a\n',
    'a\0',
    'é',
    '\ud800',
    undefined,
    null,
    0,
    1n,
    true,
    Symbol('thumbnail'),
    ['thumbnail'],
    { toString: () => 'thumbnail' },
    () => 'thumbnail',
    Object.create(null),
  ];
  for (const id of refused) {
    const error = t.throws(() => assertHandlerId(id), { instanceOf: InvalidIdError });
    t.is(error?.code, 'ERR_HANDLER_INVALID_ID');
  }
});

test('a message repeats no more than the start of a long id', (t) => {
  const error = t.throws(() => assertHandlerId('\n'.repeat(1_000_000)));
  t.true((error?.message.length ?? 0) < 300);
  t.false(error?.message.includes('\n'));
});

test('names the library for each platform', (t) => {
  t.is(libraryFileName('echo', 'linux'), 'libhandler_echo.so');
  t.is(libraryFileName('echo', 'freebsd'), 'libhandler_echo.so');
  t.is(libraryFileName('echo', 'darwin'), 'libhandler_echo.dylib');
  t.is(libraryFileName('echo', 'win32'), 'handler_echo.dll');
  t.is(libraryFileName('echo'), libraryFileName('echo', process.platform));
});

test('checks the id before it builds a name', (t) => {
  t.throws(() => libraryFileName('../echo', 'linux'), { instanceOf: InvalidIdError });
});
