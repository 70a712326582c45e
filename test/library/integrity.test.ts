import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { fixture } from '../../fixtures/paths.js';
import { IntegrityError, InvalidOptionError } from '../../src/index.js';
import { parseIntegrity } from '../../src/library/integrity.js';
import { copiesIn, copyOf, scratch } from '../support/files.js';
import { outcome, rejection } from '../support/outcomes.js';
import { openRegistry } from '../support/registry.js';

type Algorithm = 'sha256' | 'sha384' | 'sha512';

const hashOf = (algorithm: Algorithm, bytes: Uint8Array | string) =>
  `${algorithm}-${createHash(algorithm).update(bytes).digest('base64')}`;

test('hashes are read as Subresource Integrity has them', (t) => {
  const digest = createHash('sha256').update('x').digest('base64');
  const [sha256, sha384, sha512] = (['sha256', 'sha384', 'sha512'] as const).map((algorithm) =>
    hashOf(algorithm, 'x'),
  );
  t.deepEqual(parseIntegrity(sha256), { algorithm: 'sha256', digests: [digest] });
  t.deepEqual(parseIntegrity(`${sha256}?option=1`), { algorithm: 'sha256', digests: [digest] });
  const url = `sha256-${digest.replaceAll('+', '-').replaceAll('/', '_')}`;
  t.deepEqual(parseIntegrity(url), { algorithm: 'sha256', digests: [digest] });
  const several = parseIntegrity(`\t${sha256} ${hashOf('sha256', 'y')}\n`);
  t.is(several.digests.length, 2);
  // The strongest kind wins, wherever it stands.
  t.is(parseIntegrity(`${sha512} ${sha256} ${sha384}`).algorithm, 'sha512');
  t.is(parseIntegrity(`${sha256} ${sha384}`).algorithm, 'sha384');
  t.is(parseIntegrity(`${sha256} ${sha384}`).digests.length, 1);
});

test('what cannot be understood is refused, not ignored', (t) => {
  const good = hashOf('sha256', 'x');
  const md5 = 'md5-rL0Y20zC+Fzt72VPzMSk2A==';
  const strings = ['', ' ', 'sha256', 'sha256-', md5, `${good} ${md5}`, `${good},${good}`];
  const lengths = [good.slice(0, -4), `sha384-${good.slice(7)}`, `${good.slice(0, -1)}AAAA=`];
  const others = [null, 1, [good], { good }, good.replace('sha256', 'SHA256')];
  for (const value of [...strings, ...lengths, ...others]) {
    const error = t.throws<InvalidOptionError>(() => parseIntegrity(value), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'integrity');
  }
});

for (const algorithm of ['sha256', 'sha384', 'sha512'] as const) {
  test(`what is loaded is what ${algorithm} says, or nothing changes`, async (t) => {
    const { registry, cacheDir } = await openRegistry(t);
    const [a, b] = [fixture('version_a'), fixture('version_b')];
    const hashA = hashOf(algorithm, await readFile(a));
    const hashB = hashOf(algorithm, await readFile(b));
    const active = await registry.loadFrom('x', a, { integrity: hashA });
    for (const replace of [
      () => registry.loadFrom('x', b, { integrity: hashA }),
      () => registry.swap('x', b, { integrity: hashA }),
      () => registry.swapGraceful('x', b, 0, { integrity: hashA }),
      () => registry.endpoint('x').swap(b, { integrity: hashA }),
    ]) {
      const error = await rejection(replace());
      t.true(error instanceof IntegrityError);
      const code = 'ERR_HANDLER_INTEGRITY';
      t.like(error, { code, expected: [hashA], actual: hashB, path: b, endpoint: 'x' });
      t.is(registry.get('x'), active);
      t.is(await outcome(registry.execute('x', {}, '1')), 'A:1');
    }
    t.is((await copiesIn(cacheDir)).length, 1);
    await registry.swap('x', b, { integrity: `${hashA} ${hashB}` });
    t.is(await outcome(registry.execute('x', {}, '1')), 'B:1');
    // It was about that one library.
    await registry.swap('x', a);
    t.is(await outcome(registry.execute('x', {}, '1')), 'A:1');
  });
}

test('it is asked before the file is looked into', async (t) => {
  const { registry } = await openRegistry(t);
  const path = join(await scratch(t), 'libhandler_x.so');
  await writeFile(path, 'no library at all');
  const integrity = hashOf('sha256', 'another');
  t.like(await rejection(registry.loadFrom('x', path, { integrity })), {
    code: 'ERR_HANDLER_INTEGRITY',
  });
});

test('it is no option of a registry or an endpoint, and checked before anything is done', async (t) => {
  const { registry } = await openRegistry(t);
  const path = await copyOf('echo', join(await scratch(t), 'libhandler_x.so'));
  const error = await rejection(registry.loadFrom('x', path, { integrity: 'sha256-short' }));
  t.like(error, { code: 'ERR_HANDLER_INVALID_OPTION', option: 'integrity' });
  t.deepEqual(registry.stats().endpoints, []);
  const integrity = hashOf('sha256', 'x');
  await t.throwsAsync(openRegistry(t, { integrity } as object), {
    code: 'ERR_HANDLER_INVALID_OPTION',
  });
});
