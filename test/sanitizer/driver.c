/*
 * Calls one handler, linked into this program, as a lane does: context strings and request one after the other in one
 * room, the response into a window, its bytes copied out, the handler's own memory given back. Room, window
 * and copy have exactly the size that they need, so that AddressSanitizer sees the first byte too far.
 */
#include <stdio.h>
#include <stdlib.h>

#include "handler.h"

/* Optional exports: null if the handler has none. */
#pragma weak handler_init
#pragma weak handler_shutdown
#pragma weak handler_release
#pragma weak handler_info

#define ALIGNMENT 8

static const size_t CAPACITIES[] = {0, 1, 7, 64, 4096, 70000};
static const char *const TEXTS[] = {"", "0", "1", "x", "64", "live", "4096", "4097", "70001", "{\"a\":1}"};
static const size_t LENGTHS[] = {2, 63, 4095, 4096, 65537};
static const char *const METADATA[] = {"", "null", "{\"trace\":\"\\\"quoted\\\"\"}"};

static volatile uint8_t looked_at;

static size_t round_up(size_t length) { return (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void *reserve(size_t length) {
  void *memory = malloc(length > 0 ? length : 1);
  if (memory == NULL) abort();
  return memory;
}

static int call(const char *id, const char *metadata, const uint8_t *bytes, size_t length, size_t capacity) {
  static const int32_t cancel_flag = 0;
  size_t id_length = strlen(id), metadata_length = strlen(metadata);
  int none = id_length == 0 && metadata_length == 0;
  size_t context_bytes = none ? 0 : round_up(id_length + 1 + metadata_length + 1);
  char *room = reserve(context_bytes + length);
  uint8_t *window = reserve(capacity);
  handler_context ctx = {sizeof ctx, HANDLER_ABI_VERSION, "", 0, "", 0, 0, &cancel_flag};
  handler_request req = {sizeof req, 0, NULL, 0};
  handler_response res = {sizeof res, 0, window, capacity, 0, NULL};
  int32_t code;
  size_t copied;
  int own;
  if (!none) {
    memcpy(room, id, id_length + 1);
    memcpy(room + id_length + 1, metadata, metadata_length + 1);
    ctx.request_id = room;
    ctx.request_id_length = id_length;
    ctx.metadata = room + id_length + 1;
    ctx.metadata_length = metadata_length;
  }
  memcpy(room + context_bytes, bytes, length);
  req.data = (const uint8_t *)room + context_bytes;
  req.length = length;

  code = handler_entry(&ctx, &req, &res);

  own = res.data < window || res.data >= window + (capacity > 0 ? capacity : 1);
  copied = (size_t)res.length;
  if (code == HANDLER_RESPONSE_TOO_LARGE) copied = 0;
  if (!own && copied > capacity) return fprintf(stderr, "%zu bytes in %zu\n", copied, capacity), 1;
  if (copied > 0) {
    uint8_t *copy = reserve(copied);
    memcpy(copy, res.data, copied);
    looked_at = copy[copied - 1]; /* Or the compiler sees that nobody needs the copy. */
    free(copy);
  }
  if (own && handler_release != NULL) handler_release(&res);
  free(window);
  free(room);
  return 0;
}

int main(void) {
  static const int32_t cancel_flag = 0;
  handler_context none = {sizeof none, HANDLER_ABI_VERSION, "", 0, "", 0, 0, &cancel_flag};
  uint8_t *window = reserve(4096);
  handler_response res = {sizeof res, 0, window, 4096, 0, NULL};
  int failed = 0, calls = 0;
  if (handler_abi_version() != HANDLER_ABI_VERSION) return 2;
  if (handler_init != NULL && handler_init(&none, &res) != HANDLER_OK) return 3;
  if (handler_info != NULL && handler_info() != NULL) calls += handler_info()->struct_size == 0;
  for (size_t c = 0; c < sizeof CAPACITIES / sizeof *CAPACITIES; c++) {
    for (size_t m = 0; m < sizeof METADATA / sizeof *METADATA; m++) {
      const char *id = m == 0 ? "" : "request-1";
      for (size_t t = 0; t < sizeof TEXTS / sizeof *TEXTS; t++, calls++) {
        const uint8_t *bytes = (const uint8_t *)TEXTS[t];
        failed |= call(id, METADATA[m], bytes, strlen(TEXTS[t]), CAPACITIES[c]);
      }
      for (size_t l = 0; l < sizeof LENGTHS / sizeof *LENGTHS; l++, calls++) {
        uint8_t *bytes = reserve(LENGTHS[l]);
        memset(bytes, 'x', LENGTHS[l]);
        failed |= call(id, METADATA[m], bytes, LENGTHS[l], CAPACITIES[c]);
        free(bytes);
      }
    }
  }
  if (handler_shutdown != NULL) handler_shutdown();
  free(window);
  printf("%d calls\n", calls);
  return failed;
}
