/* Compresses the request. */
#include <zstd.h>

#include "build.h"

DESCRIBE("zstd");

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  size_t length;
  (void)ctx;
  if (ZSTD_versionNumber() != ZSTD_VERSION_NUMBER) return handler_fail(res, 2, ZSTD_versionString());
  length = ZSTD_compress(res->data, res->capacity, req->data, req->length, 3);
  if (ZSTD_isError(length)) return handler_fail(res, 1, ZSTD_getErrorName(length));
  return handler_reply_in_place(res, length);
}
