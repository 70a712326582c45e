/*
 * The function that every contender calls: as a handler for the engine, as a plain function for everyone else.
 * It answers with the request, after as much CPU time as the request asks for, unless that asks for a crash.
 */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "handler.h"

HANDLER_DEFINE_ABI();

static uint64_t thread_cpu_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* In the place of a time: a write to nowhere. The same number is in bench/harness/requests.ts. */
#define CRASH UINT32_MAX

/* The first four bytes of a request: how many microseconds of CPU time to take, in this machine's byte order. */
static void burn(const uint8_t *request, uint64_t length) {
  volatile int *volatile nowhere = NULL; /* else the compiler leaves the write out */
  uint32_t burn_us = 0;
  uint64_t end;
  if (length < sizeof burn_us) return;
  memcpy(&burn_us, request, sizeof burn_us);
  if (burn_us == 0) return;
  if (burn_us == CRASH) *nowhere = 1;
  end = thread_cpu_ns() + (uint64_t)burn_us * 1000u;
  while (thread_cpu_ns() < end) {
  }
}

HANDLER_EXPORT uint64_t work(const uint8_t *request, uint64_t length, uint8_t *response) {
  burn(request, length);
  if (length > 0) memcpy(response, request, length);
  return length;
}

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  uint8_t *room = handler_reserve(res, req->length);
  (void)ctx;
  if (room == NULL) return handler_reply_in_place(res, req->length);
  return handler_reply_in_place(res, work(req->data, req->length, room));
}
