// Turns the request round in a thread-local string of the lane's own thread, which has a destructor:
// until that thread has ended, the loader keeps the library.
#include <string>

#include "build.h"

DESCRIBE("thread_local");

static thread_local std::string reply;

int32_t handler_entry(const handler_context *, const handler_request *req, handler_response *res) {
  try {
    reply.assign(req->data, req->data + req->length);
    return handler_reply(res, std::string(reply.rbegin(), reply.rend()).data(), reply.size());
  } catch (const std::exception &error) {
    return handler_fail(res, 1, error.what());
  }
}
