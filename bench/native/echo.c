/* The function that every contender calls: as a handler for the engine, as a plain function for others. */
#include "handler.h"

HANDLER_DEFINE_ABI();

HANDLER_EXPORT uint64_t echo(const uint8_t *request, uint64_t length, uint8_t *response) {
  if (length > 0) memcpy(response, request, length);
  return length;
}

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  (void)ctx;
  uint8_t *room = handler_reserve(res, req->length);
  if (room == NULL) return handler_reply_in_place(res, req->length);
  return handler_reply_in_place(res, echo(req->data, req->length, room));
}
