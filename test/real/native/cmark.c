/* Renders Markdown as HTML. */
#include <cmark.h>
#include <stdlib.h>

#include "build.h"

DESCRIBE("cmark");

/* The memory is given back by the library that it came from. */
void handler_release(handler_response *res) { free(res->owner); }

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  char *html = cmark_markdown_to_html((const char *)req->data, req->length, CMARK_OPT_DEFAULT);
  (void)ctx;
  if (html == NULL) return handler_fail(res, 1, "no memory");
  return handler_reply_owned(res, html, strlen(html), html);
}
