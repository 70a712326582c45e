/** The file that a private copy is written to: its name, its bytes and its last touches. */

import { access, chmod, constants, type FileHandle } from 'node:fs/promises';

/** A base name may have 255 bytes: this leaves room for the random part and the extension. */
const MAX_LABEL_CHARACTERS = 96;

export interface Target {
  path: string;
  file: FileHandle;
}

export async function writeWhole(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const left = bytes.length - done;
    const { bytesWritten } = await file.write(bytes, done, left, position + done);
    done += bytesWritten;
  }
}

export async function finish(target: Target): Promise<void> {
  await target.file.close();
  // By its path: with `--permission`, Node refuses to change the mode of what is open. The directory is ours alone.
  await chmod(target.path, 0o500);
  // On a file system mounted `noexec` the loader's message would be "Operation not permitted";
  // access(2) tells before.
  await access(target.path, constants.X_OK);
}

export function safeLabel(label: string): string {
  return label.replace(/[^A-Za-z0-9_.-]/g, '_').slice(0, MAX_LABEL_CHARACTERS);
}

export function libraryExtension(): string {
  if (process.platform === 'win32') return '.dll';
  return process.platform === 'darwin' ? '.dylib' : '.so';
}
