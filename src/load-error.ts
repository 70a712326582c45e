/** The typed error for what a lane said about a library that it could not load. */

import {
  AbiMismatchError,
  CacheDirError,
  InitFailedError,
  type LoadError,
  LoadFailedError,
  MissingDependencyError,
  MissingSymbolError,
} from './errors.js';
import type { LoadFailure } from './lane-protocol.js';
import type { VersionIdentity } from './request-errors.js';

/** What a library may miss in pre-flight that it would find in this process. */
const SEEN_IN_PREFLIGHT = '. In pre-flight it sees only the environment that the option env gives';

/** `path` is the library as the caller named it, `where` what it was loaded by. */
export function loadErrorFor(
  failure: LoadFailure,
  path: string,
  identity: VersionIdentity,
  where: 'lane' | 'preflight' = 'lane',
): LoadError {
  const hint = where === 'preflight' ? SEEN_IN_PREFLIGHT : '';
  switch (failure.kind) {
    case 'missing-symbol':
      return new MissingSymbolError(
        failure.symbol,
        `${path} is no handler, since it does not export ${failure.symbol}; include handler.h, write HANDLER_DEFINE_ABI() and handler_entry, and export them (HANDLER_EXPORT)`,
        path,
        identity,
      );
    case 'abi-mismatch':
      return new AbiMismatchError(
        { expected: failure.expected, actual: failure.actual },
        `${path} was built for version ${failure.actual} of the handler ABI and this host speaks ${failure.expected}; compile it again with this package's include/handler.h`,
        path,
        identity,
      );
    case 'init-failed':
      return new InitFailedError(
        { code: failure.code, message: failure.message },
        `handler_init of ${path} returned ${failure.code}${failure.message === '' ? '' : `: ${failure.message}`}${hint}`,
        path,
        identity,
      );
    case 'missing-dependency':
      return new MissingDependencyError(
        `${path} needs something that is not there: ${failure.message}; install it, put it beside the library, or link it in statically`,
        path,
        identity,
      );
    case 'copy-gone':
      return new CacheDirError(
        `the private copy of ${path} has vanished (${failure.copyPath}) before a lane could open it; keep cleaners away from the cache directory, or pass another cacheDir`,
        path,
        identity,
      );
    case 'loader':
      return new LoadFailedError(
        `the dynamic loader refused ${path}: ${failure.message}; if it speaks of a mapping or of permission, the cache directory may be on a file system mounted noexec: pass another cacheDir`,
        path,
        identity,
      );
  }
}
