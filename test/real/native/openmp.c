/* Counts the bytes of the request by value, on several threads of OpenMP's. */
#include <omp.h>
#include <stdio.h>

#include "build.h"

DESCRIBE("openmp");

enum { TEAM = 3, VALUES = 256, LINE = 32 };

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  const int64_t length = (int64_t)req->length;
  unsigned long counts[VALUES] = {0};
  char text[VALUES * LINE];
  size_t used = 0;
  int team = 0;
  int value;
  int64_t at;
  (void)ctx;
#pragma omp parallel num_threads(TEAM)
  {
#pragma omp single
    team = omp_get_num_threads();
#pragma omp for reduction(+ : counts[:VALUES])
    for (at = 0; at < length; at++) counts[req->data[at]]++;
  }
  for (value = 0; value < VALUES; value++) {
    if (counts[value] == 0) continue;
    used += (size_t)snprintf(text + used, LINE, "%d %lu\n", value, counts[value]);
  }
  used += (size_t)snprintf(text + used, LINE, "threads %d\n", team);
  return handler_reply(res, text, used);
}
