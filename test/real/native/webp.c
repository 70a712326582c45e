/* Decodes a WebP image into the format PAM. */
#include <stdio.h>
#include <webp/decode.h>

#include "build.h"

DESCRIBE("webp");

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  int width, height, header;
  size_t pixels;
  char text[128];
  (void)ctx;
  if (!WebPGetInfo(req->data, req->length, &width, &height)) {
    return handler_fail(res, 1, "not a WebP image");
  }
  header = snprintf(text, sizeof text,
                    "P7\nWIDTH %d\nHEIGHT %d\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n",
                    width, height);
  pixels = (size_t)width * (size_t)height * 4;
  if (header + pixels > res->capacity) {
    res->length = header + pixels;
    return HANDLER_RESPONSE_TOO_LARGE;
  }
  memcpy(res->data, text, (size_t)header);
  if (WebPDecodeRGBAInto(req->data, req->length, res->data + header, pixels, width * 4) == NULL) {
    return handler_fail(res, 2, "a damaged WebP image");
  }
  return handler_reply_in_place(res, header + pixels);
}
