/** include/handler.h: it compiles as what it promises to, its helpers work, its layout stands. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { type Language, languageFlags, runCompiler } from '../fixtures/compile.js';

const run = promisify(execFile);
const languages: readonly Language[] = ['c', 'c++'];

/** Compiles a program with all warnings as errors, runs it, and resolves to what it printed. */
async function output(program: string, language: Language): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'changeover-header-'));
  try {
    const source = join(dir, language === 'c' ? 'program.c' : 'program.cc');
    const executable = join(dir, 'program');
    await writeFile(source, program);
    await runCompiler(language, [...languageFlags(language), '-o', executable, source]);
    return (await run(executable)).stdout;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

// ---- Layout ------------------------------------------------------------------------------------

/** ABI version 1 on 64-bit platforms: each struct's size and the offset of each field, in bytes. */
const layout = {
  handler_context: {
    size: 56,
    struct_size: 0,
    abi_version: 4,
    request_id: 8,
    request_id_length: 16,
    metadata: 24,
    metadata_length: 32,
    deadline_ns: 40,
    cancel_flag: 48,
  },
  handler_request: { size: 24, struct_size: 0, reserved: 4, data: 8, length: 16 },
  handler_response: {
    size: 40,
    struct_size: 0,
    reserved: 4,
    data: 8,
    capacity: 16,
    length: 24,
    owner: 32,
  },
  handler_description: {
    size: 32,
    struct_size: 0,
    reserved: 4,
    name: 8,
    version: 16,
    description: 24,
  },
};

/** A program that prints what the compiler makes of every field in `layout`, as JSON. */
function layoutProgram(): string {
  const structs = Object.entries(layout).map(([struct, fields]) => {
    const values = Object.keys(fields).map((field) => {
      const value = field === 'size' ? `sizeof(${struct})` : `offsetof(${struct}, ${field})`;
      return `  printf("\\"${field}\\":%d,", (int)${value});`;
    });
    return [`  printf("\\"${struct}\\":{");`, ...values, '  printf("\\"end\\":0},");'].join('\n');
  });
  return [
    '#include <stdio.h>',
    '#include "handler.h"',
    'int main(void) {',
    '  printf("{");',
    ...structs,
    '  printf("\\"end\\":0}");',
    '  return 0;',
    '}',
    '',
  ].join('\n');
}

for (const language of languages) {
  test(`${language}: the layout of the structs is that of ABI version 1`, async (t) => {
    const printed: unknown = JSON.parse(await output(layoutProgram(), language));
    const expected = Object.entries(layout).map(([struct, fields]) => [
      struct,
      { ...fields, end: 0 },
    ]);
    t.deepEqual(printed, { ...Object.fromEntries(expected), end: 0 });
  });
}

// ---- Helpers -----------------------------------------------------------------------------------

/** Defines everything that a handler may export, uses every helper, and prints what went wrong. */
const helpersProgram = `
#include <stdio.h>
#include <stdlib.h>
#include "handler.h"

HANDLER_DEFINE_ABI();

static int released = 0;

#define CHECK(what)                                               \\
  do {                                                            \\
    if (!(what)) printf("line %d: %s\\n", __LINE__, #what);       \\
  } while (0)

static const handler_description description = {
    sizeof(handler_description), 0, "name", "version", NULL,
};

const handler_description *handler_info(void) { return &description; }

int32_t handler_init(const handler_context *ctx, handler_response *res) {
  (void)ctx;
  return handler_fail(res, 13, "no");
}

void handler_shutdown(void) {}

void handler_release(handler_response *res) {
  free(res->owner);
  released++;
}

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  if (handler_cancelled(ctx)) return handler_fail(res, 7, "cancelled");
  return handler_reply(res, req->data, (size_t)req->length);
}

static handler_response empty(uint8_t *memory, uint64_t capacity) {
  handler_response res = {sizeof(handler_response), 0, NULL, 0, 0, NULL};
  res.data = memory;
  res.capacity = capacity;
  return res;
}

static int holds(const handler_response *res, const char *text) {
  return res->length == strlen(text) && memcmp(res->data, text, strlen(text)) == 0;
}

int main(void) {
  uint8_t memory[8];
  volatile int32_t cancel = 0;
  handler_context ctx = {sizeof(handler_context), HANDLER_ABI_VERSION, "", 0, "", 0, 0, NULL};
  handler_request req = {sizeof(handler_request), 0, (const uint8_t *)"hello", 5};
  handler_response res = empty(memory, sizeof memory);
  void *own;
  ctx.cancel_flag = &cancel;

  CHECK(handler_abi_version() == 1);
  CHECK(handler_info()->struct_size == sizeof(handler_description));

  CHECK(handler_entry(&ctx, &req, &res) == HANDLER_OK);
  CHECK(holds(&res, "hello"));
  cancel = 1;
  res = empty(memory, sizeof memory);
  CHECK(handler_entry(&ctx, &req, &res) == 7);
  CHECK(holds(&res, "cancelle")); /* cut to the capacity */

  /* A response that fits exactly, one that does not, and an empty one from nowhere. */
  res = empty(memory, 5);
  CHECK(handler_reply(&res, "hello", 5) == HANDLER_OK);
  res = empty(memory, 4);
  memset(memory, 0, sizeof memory);
  CHECK(handler_reply(&res, "hello", 5) == HANDLER_RESPONSE_TOO_LARGE);
  CHECK(res.length == 5);
  CHECK(memory[0] == 0);
  CHECK(handler_reply(&res, NULL, 0) == HANDLER_OK);
  CHECK(res.length == 0);

  CHECK(handler_reserve(&res, 4) == memory);
  CHECK(handler_reserve(&res, 5) == NULL);
  CHECK(handler_reply_in_place(&res, 4) == HANDLER_OK);
  CHECK(handler_reply_in_place(&res, 5) == HANDLER_RESPONSE_TOO_LARGE);
  CHECK(res.length == 5);

  /* No message, no room for one, and a code that would have meant success. */
  CHECK(handler_fail(&res, 9, NULL) == 9);
  CHECK(res.length == 0);
  res = empty(memory, 0);
  CHECK(handler_fail(&res, 9, "no room") == 9);
  CHECK(res.length == 0);
  CHECK(handler_fail(&res, HANDLER_OK, "") == -1);
  res = empty(memory, sizeof memory);
  CHECK(handler_init(&ctx, &res) == 13);
  CHECK(holds(&res, "no"));

  own = malloc(100);
  CHECK(handler_reply_owned(&res, own, 100, own) == HANDLER_OK);
  CHECK(res.data == own);
  CHECK(res.owner == own);
  CHECK(res.length == 100);
  handler_release(&res);
  CHECK(released == 1);
  handler_shutdown();

  CHECK(HANDLER_RESPONSE_TOO_LARGE <= HANDLER_RESERVED_CODES);
  return 0;
}
`;

for (const language of languages) {
  test(`${language}: every helper compiles without a warning and does what it says`, async (t) => {
    t.is(await output(helpersProgram, language), '');
  });

  test(`${language}: a program that uses none of the helpers compiles as well`, async (t) => {
    t.is(await output('#include "handler.h"\nint main(void) { return 0; }\n', language), '');
  });
}
