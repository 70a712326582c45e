/* The C side of the handler in Go: cgo cannot export functions whose arguments are pointers to const. */
#include "../build.h"

extern int64_t goServe(void *data, uint64_t length, void *reply, uint64_t capacity);

DESCRIBE("words");

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  int64_t length = goServe((void *)req->data, req->length, res->data, res->capacity);
  (void)ctx;
  if (length < 0) return handler_fail(res, 5, "a panic in Go");
  return handler_reply_in_place(res, (size_t)length);
}
