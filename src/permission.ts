/**
 * Node's permission model (`node --permission`): what a load needs of it, and an error that names
 * what was not granted.
 */

import { PermissionDeniedError, type PermissionFlag } from './errors.js';
import type { ResolvedEndpointOptions } from './options.js';
import type { VersionIdentity } from './request-errors.js';

/** By the permission that Node names in an ERR_ACCESS_DENIED. */
const FLAG_OF: Readonly<Record<string, PermissionFlag>> = {
  FileSystemRead: '--allow-fs-read',
  FileSystemWrite: '--allow-fs-write',
  WorkerThreads: '--allow-worker',
  ChildProcess: '--allow-child-process',
  Addon: '--allow-addons',
  // Of Node 26, which counts the pipes to a child process as sockets.
  Net: '--allow-net',
};

/** `process.permission`, which Node 20's types lack; undefined without the model. */
function permission(): { has(scope: string): boolean } | undefined {
  return (process as { permission?: { has(scope: string): boolean } }).permission;
}

/**
 * Refuses to start processes where Node may not. On Linux they are started without Node, which
 * would not notice.
 *
 * @throws {PermissionDeniedError}
 */
export function checkChildAllowed(
  { preflight, isolation }: ResolvedEndpointOptions,
  path: string,
  identity: VersionIdentity,
): void {
  if (permission()?.has('child') !== false) return;
  if (isolation === 'process') {
    throw denied('--allow-child-process', "isolation 'process' starts processes", path, identity);
  }
  if (preflight !== false) {
    const what = 'pre-flight starts a process, unless preflight is false';
    throw denied('--allow-child-process', what, path, identity);
  }
}

/** The error that names what was not granted, if that is why `error` was thrown; otherwise null. */
export function permissionError(
  error: unknown,
  path: string,
  identity: VersionIdentity,
): PermissionDeniedError | null {
  // The error of a load may be a wrapper that says what was attempted.
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof PermissionDeniedError) return null;
    const { code, permission: name, resource } = cause as DeniedAccess;
    if (code === 'ERR_DLOPEN_DISABLED') {
      const what = 'native code is called through an addon, koffi (--no-addons forbids them too)';
      return denied('--allow-addons', what, path, identity, cause);
    }
    const flag = FLAG_OF[name ?? ''];
    if (code !== 'ERR_ACCESS_DENIED' || flag === undefined) continue;
    const what = resource === undefined || resource === '' ? cause.message : resource;
    return denied(flag, what, path, identity, cause);
  }
  return null;
}

/** Node's error when the permission model refuses something. */
interface DeniedAccess extends Error {
  code?: string;
  permission?: string;
  resource?: string;
}

function denied(
  flag: PermissionFlag,
  what: string,
  path: string,
  identity: VersionIdentity,
  cause?: unknown,
): PermissionDeniedError {
  return new PermissionDeniedError(
    flag,
    `cannot load ${path}: Node's permission model forbids it (${what}); grant it with ${flag}, see docs/operations.md`,
    path,
    cause === undefined ? identity : { ...identity, cause },
  );
}
