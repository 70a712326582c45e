/* Canonical XML of the request, as `xmllint --c14n` prints it. */
#include <libxml/c14n.h>
#include <libxml/parser.h>

#include "build.h"

DESCRIBE("libxml2");

int32_t handler_init(const handler_context *ctx, handler_response *res) {
  (void)ctx;
  (void)res;
  xmlInitParser();
  return HANDLER_OK;
}

void handler_shutdown(void) { xmlCleanupParser(); }

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  const int options = XML_PARSE_NOENT | XML_PARSE_NOERROR | XML_PARSE_NOWARNING;
  xmlDocPtr document =
      xmlReadMemory((const char *)req->data, (int)req->length, NULL, NULL, options);
  xmlChar *text = NULL;
  int32_t code;
  int length;
  (void)ctx;
  if (document == NULL) return handler_fail(res, 1, "not well-formed");
  length = xmlC14NDocDumpMemory(document, NULL, XML_C14N_1_0, NULL, 1, &text);
  if (length < 0) code = handler_fail(res, 2, "it has no canonical form");
  else code = handler_reply(res, text, (size_t)length);
  xmlFree(text);
  xmlFreeDoc(document);
  return code;
}
