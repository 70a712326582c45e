/*
 * A handler as a program: `program LIBRARY <request >response`. What the same code answers without
 * Node around it.
 */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "handler.h"

typedef int32_t (*entry_function)(const handler_context *, const handler_request *,
                                  handler_response *);
typedef int32_t (*init_function)(const handler_context *, handler_response *);
typedef void (*shutdown_function)(void);
typedef void (*release_function)(handler_response *);

enum { CAPACITY = 64 * 1024 * 1024 };

static void *find(void *library, const char *name) {
  return dlsym(library, name);
}

int main(int argc, char **argv) {
  static int32_t cancel_flag = 0;
  const handler_context context = {sizeof context, HANDLER_ABI_VERSION, "", 0, "", 0, 0,
                                   &cancel_flag};
  uint8_t *memory = malloc(CAPACITY);
  uint8_t *input = malloc(CAPACITY);
  void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (library == NULL || memory == NULL || input == NULL) {
    fprintf(stderr, "%s\n", library == NULL ? dlerror() : "no memory");
    return 2;
  }
  entry_function entry;
  init_function init;
  shutdown_function shut_down;
  release_function release;
  *(void **)&entry = find(library, "handler_entry");
  *(void **)&init = find(library, "handler_init");
  *(void **)&shut_down = find(library, "handler_shutdown");
  *(void **)&release = find(library, "handler_release");
  const size_t length = fread(input, 1, CAPACITY, stdin);
  const handler_request request = {sizeof request, 0, input, length};
  handler_response response = {sizeof response, 0, memory, CAPACITY, 0, NULL};
  int32_t code = init == NULL ? HANDLER_OK : init(&context, &response);
  if (code == HANDLER_OK) code = entry(&context, &request, &response);
  fwrite(response.data, 1, response.length, code == HANDLER_OK ? stdout : stderr);
  if (release != NULL && response.data != memory) release(&response);
  if (shut_down != NULL) shut_down();
  return code == HANDLER_OK ? 0 : 1;
}
