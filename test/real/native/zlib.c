/* Compresses the request into the format of gzip. Refuses to run with another zlib than its own. */
#include <zlib.h>

#include "build.h"

DESCRIBE("zlib");

int32_t handler_init(const handler_context *ctx, handler_response *res) {
  (void)ctx;
  if (strcmp(zlibVersion(), ZLIB_VERSION) == 0) return HANDLER_OK;
  return handler_fail(res, 2, zlibVersion());
}

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  enum { GZIP = 16 + MAX_WBITS, MEMORY_LEVEL = 8 };
  z_stream stream;
  int status;
  (void)ctx;
  memset(&stream, 0, sizeof stream);
  if (deflateInit2(&stream, 6, Z_DEFLATED, GZIP, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
    return handler_fail(res, 1, stream.msg);
  }
  stream.next_in = (Bytef *)req->data;
  stream.avail_in = (uInt)req->length;
  stream.next_out = res->data;
  stream.avail_out = (uInt)res->capacity;
  status = deflate(&stream, Z_FINISH);
  deflateEnd(&stream);
  if (status != Z_STREAM_END) return HANDLER_RESPONSE_TOO_LARGE;
  return handler_reply_in_place(res, stream.total_out);
}
