/**
 * The native fixtures under AddressSanitizer and UndefinedBehaviorSanitizer, through the memory that a lane lays out for them.
 * Not inside Node: the sanitizer's allocator would have to be there before V8's.
 */

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { languageFlags, runCompiler } from '../../fixtures/compile.js';
import { fixtureSourcesDir, packageRoot } from '../../fixtures/paths.js';
import { scratch } from '../support/files.js';

const SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-g', '-O1'];
const driver = join(packageRoot, 'test', 'sanitizer', 'driver.c');
const run = promisify(execFile);

/** Fixtures that answer every request by themselves, and how they are compiled. */
const handlers: Record<string, { source: string; flags?: string[] }> = {
  context: { source: 'context.c' },
  counter: { source: 'counter.c' },
  echo: { source: 'echo.c' },
  fails: { source: 'fails.c' },
  in_place: { source: 'in_place.c' },
  large_response: { source: 'large_response.c' },
  version_a: { source: 'tagged.c', flags: ['-DTAG=A'] },
};

/** Compiles a handler together with the driver; returns the program. */
async function compile(t: ExecutionContext, source: string, flags: string[] = []): Promise<string> {
  const program = join(await scratch(t), 'program');
  const standard = languageFlags('c');
  await runCompiler('c', [...standard, ...SANITIZERS, ...flags, '-o', program, driver, source]);
  return program;
}

/** Null if programs can be compiled with the sanitizers and run, otherwise why not. */
async function tryOut(directory: string): Promise<string | null> {
  const [source, program] = [join(directory, 'empty.c'), join(directory, 'empty')];
  await writeFile(source, 'int main(void) { return 0; }\n');
  try {
    await runCompiler('c', [...SANITIZERS, '-o', program, source]);
    await run(program);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

let tried: Promise<string | null> | undefined;

/** The same, found out once for all tests. */
async function whyNot(): Promise<string | null> {
  tried ??= mkdtemp(join(tmpdir(), 'changeover-sanitizer-')).then((directory) =>
    tryOut(directory).finally(() => rm(directory, { recursive: true })),
  );
  return tried;
}

/** A test that needs the sanitizers; where there are none, it says so and passes. */
function withSanitizers(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  test(title, async (t) => {
    const reason = await whyNot();
    if (reason === null) return body(t);
    t.log(`skipped: this compiler has no AddressSanitizer: ${reason}`);
    t.pass();
  });
}

for (const [id, { source, flags }] of Object.entries(handlers)) {
  withSanitizers(`${id} touches nothing but its own`, async (t) => {
    const program = await compile(t, join(fixtureSourcesDir, source), flags);
    const { stdout } = await run(program);
    t.regex(stdout, /^\d{3,} calls\n$/);
  });
}

const mistakes = {
  'reads past the request': 'return handler_reply(res, req->data, (size_t)req->length + 1);',
  'writes past the window': 'memset(res->data, 0, (size_t)res->capacity + 1); return 0;',
  'answers with memory it has freed': `
    uint8_t *bytes = malloc(16);
    free(bytes);
    return handler_reply_owned(res, bytes, 16, NULL);`,
};

for (const [what, body] of Object.entries(mistakes)) {
  withSanitizers(`a handler that ${what} is noticed`, async (t) => {
    const source = join(await scratch(t), 'mistake.c');
    const text = `
#include <stdlib.h>
#include "handler.h"
HANDLER_DEFINE_ABI();
int32_t handler_entry(const handler_context *ctx, const handler_request *req, handler_response *res) {
  (void)ctx;
  (void)req;
  ${body}
}
`;
    await writeFile(source, text);
    const program = await compile(t, source, [
      '-Wno-use-after-free',
      '-Wno-unknown-warning-option',
    ]);
    const error = (await t.throwsAsync(run(program))) as Error & { stderr: string };
    t.regex(error.stderr, /AddressSanitizer/);
  });
}
