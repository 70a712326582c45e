/**
 * Libraries that stay mapped for one reason each: the drain report gives that one, and the mappings
 * agree.
 */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { compileLibrary } from '../../fixtures/compile.js';
import { scratch } from '../support/files.js';
import { mappedIn, onLinuxAlone } from '../support/process.js';
import { openRegistry } from '../support/registry.js';

const HANDLER = `
#include "handler.h"
HANDLER_DEFINE_ABI();
int32_t handler_entry(const handler_context *, const handler_request *req, handler_response *res) {
  return handler_reply(res, req->data, req->length);
}
`;

interface Case {
  more?: string;
  flags?: readonly string[];
  /** Null: it is unloaded. */
  reason: RegExp | null;
}

const CASES: Record<string, Case> = {
  nothing: { reason: null },
  '-z nodelete': { flags: ['-Wl,-z,nodelete'], reason: /-z nodelete/ },
  // What the linker of Go puts into every library of its own, which it marks in the same way.
  'a Go runtime': {
    more: 'HANDLER_EXPORT void crosscall2(void) {}',
    flags: ['-Wl,-z,nodelete'],
    reason: /Go runtime/,
  },
  'a thread-local with a destructor': {
    more: `
struct Held { ~Held() { value = 0; } volatile int value = 1; };
static thread_local Held held;
int32_t handler_init(const handler_context *, handler_response *) { return held.value - 1; }
`,
    reason: /C\+\+ thread_local/,
  },
  'a hold on itself': {
    more: `
#include <dlfcn.h>
int32_t handler_init(const handler_context *, handler_response *) {
  Dl_info self;
  dladdr(reinterpret_cast<void *>(&handler_abi_version), &self);
  return dlopen(self.dli_fname, RTLD_NOW) == nullptr;
}
`,
    reason: /imports dlopen/,
  },
};

// One after the other: unloading any library also unloads those that a thread-local of a thread that
// has ended by then was the last to hold.
for (const [what, { more = '', flags = [], reason }] of Object.entries(CASES)) {
  onLinuxAlone(`what keeps a library in memory: ${what}`, async (t) => {
    const directory = await scratch(t);
    const source = join(directory, 'x.cc');
    const library = join(directory, 'libhandler_x.so');
    await writeFile(source, HANDLER + more);
    await compileLibrary({ source, output: library, flags });
    const { registry, cacheDir } = await openRegistry(t, { preflight: false });
    await registry.loadFrom('x', library);
    const report = await registry.unload('x');

    const mapped = (await mappedIn(cacheDir)).length > 0;
    t.is(report.library, reason === null ? 'unloaded' : 'resident');
    t.is(mapped, reason !== null);
    if (reason === null) t.is(report.reason, undefined);
    else t.regex(report.reason ?? '', reason);
  });
}
