/**
 * What a caller expects a library to be, in the format of Subresource Integrity (https://www.w3.org/TR/sri/): hashes separated by
 * whitespace, `sha256-`, `sha384-` or `sha512-` and base64. As there, only those of the strongest kind given count, and any of
 * them will do. Unlike there, what cannot be understood is refused and not ignored.
 */

import { createHash, type Hash } from 'node:crypto';
import { IntegrityError, InvalidOptionError } from '../errors.js';
import { quote } from './system-errors.js';

/** From weak to strong, with the bytes of a digest. */
const ALGORITHMS = { sha256: 32, sha384: 48, sha512: 64 } as const;
type Algorithm = keyof typeof ALGORITHMS;

/** The strongest hashes of an `integrity` option. */
export interface Integrity {
  readonly algorithm: Algorithm;
  /** Base64. */
  readonly digests: readonly string[];
}

// Both alphabets of base64, and options after a question mark, as the format has them; none is defined.
const HASH = /^(sha256|sha384|sha512)-([A-Za-z0-9+/_-]+={0,2})(?:\?[!-~]*)?$/;

/** @throws {InvalidOptionError} if it is no such list, or an empty one. */
export function parseIntegrity(value: unknown): Integrity {
  const tokens = typeof value === 'string' ? value.split(/[\t\n\f\r ]+/).filter(Boolean) : [];
  const hashes = tokens.map(parseHash);
  const kinds = Object.keys(ALGORITHMS) as Algorithm[];
  const algorithm = kinds.findLast((kind) => hashes.some((hash) => hash.algorithm === kind));
  if (algorithm === undefined) throw malformed(typeof value === 'string' ? value : typeof value);
  const strongest = hashes.filter((hash) => hash.algorithm === algorithm);
  return { algorithm, digests: strongest.map(({ digest }) => digest) };
}

function parseHash(token: string): { algorithm: Algorithm; digest: string } {
  const [, algorithm, text = ''] = HASH.exec(token) ?? [];
  const bytes = Buffer.from(text, 'base64');
  if (algorithm === undefined || bytes.length !== ALGORITHMS[algorithm as Algorithm]) {
    throw malformed(token);
  }
  return { algorithm: algorithm as Algorithm, digest: bytes.toString('base64') };
}

function malformed(got: string): InvalidOptionError {
  return new InvalidOptionError(
    'integrity',
    `integrity must be hashes such as sha256-<base64> separated by spaces (sha256, sha384 or sha512); got ${quote(got.slice(0, 200))}`,
  );
}

/** Hashes a library while it is copied. */
export class IntegrityCheck {
  readonly #expected: Integrity;
  readonly #hash: Hash;

  constructor(expected: Integrity) {
    this.#expected = expected;
    this.#hash = createHash(expected.algorithm);
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** @throws {IntegrityError} if what was hashed is none of what was expected. */
  finish(path: string): void {
    const { algorithm, digests } = this.#expected;
    const actual = this.#hash.digest('base64');
    if (digests.includes(actual)) return;
    const expected = digests.map((digest) => `${algorithm}-${digest}`);
    throw new IntegrityError(
      { expected, actual: `${algorithm}-${actual}` },
      `${quote(path)} is not the library that was asked for: expected ${expected.join(' or ')}, got ${algorithm}-${actual}; deploy that build, or give the hash of this one`,
      path,
    );
  }
}
