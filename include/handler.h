/*
 * handler.h: the C interface between Changeover and a handler, ABI version 1.
 *
 * A handler is a shared library that exports two functions:
 *
 *     uint32_t handler_abi_version(void);
 *     int32_t  handler_entry(const handler_context *ctx, const handler_request *req,
 *                            handler_response *res);
 *
 * and, if it needs them, handler_init, handler_shutdown, handler_info and handler_release.
 * HANDLER_DEFINE_ABI() emits the first one. docs/abi.md says what a handler may rely on and what
 * it must never do.
 *
 * Everything that crosses the line is plain data. Each struct starts with its own size, so that a
 * later version of the host can append fields: read a field only if struct_size reaches past it.
 *
 * Compiles without warnings as C99 and as C++11.
 */
#ifndef CHANGEOVER_HANDLER_H
#define CHANGEOVER_HANDLER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
#define HANDLER_EXTERN_C extern "C"
#else
#define HANDLER_EXTERN_C
#endif

#if defined(_WIN32)
#define HANDLER_EXPORT HANDLER_EXTERN_C __declspec(dllexport)
#elif defined(__GNUC__)
#define HANDLER_EXPORT HANDLER_EXTERN_C __attribute__((visibility("default")))
#else
#define HANDLER_EXPORT HANDLER_EXTERN_C
#endif

#define HANDLER_ABI_VERSION 1u

/* What handler_entry and handler_init return for success. */
#define HANDLER_OK 0

/*
 * Codes at or below this one belong to the host; use any other non-zero number for your own errors.
 */
#define HANDLER_RESERVED_CODES (-2147483000)

/* The response does not fit in res->capacity; res->length says how many bytes it would have had. */
#define HANDLER_RESPONSE_TOO_LARGE (-2147483001)

/* What the caller says about one request. Valid until handler_entry returns. */
typedef struct handler_context {
  uint32_t struct_size;
  uint32_t abi_version;
  const char *request_id; /* UTF-8 with a NUL after it; "" when the caller gave none */
  uint64_t request_id_length;
  const char *metadata; /* UTF-8 JSON with a NUL after it; "" when the caller gave none */
  uint64_t metadata_length;
  uint64_t deadline_ns; /* CLOCK_MONOTONIC, nanoseconds; 0 means none */
  const volatile int32_t *cancel_flag; /* becomes 1 once nobody waits for the response any more */
} handler_context;

/* The request's bytes: read-only, valid until handler_entry returns. */
typedef struct handler_request {
  uint32_t struct_size;
  uint32_t reserved;
  const uint8_t *data; /* never NULL, also when length is 0 */
  uint64_t length;
} handler_request;

/*
 * Where the response goes. On entry, data points to capacity bytes of host memory and length is 0.
 * Either write there and set length, or point data to your own memory, set length, and export
 * handler_release: the host copies the bytes and then gives them back.
 */
typedef struct handler_response {
  uint32_t struct_size;
  uint32_t reserved;
  uint8_t *data;
  uint64_t capacity; /* bytes of host memory at data, on entry */
  uint64_t length;   /* bytes of the response; of the error message if a code is returned */
  void *owner;       /* yours: the host only hands it back to handler_release */
} handler_response;

/* What handler_info returns a pointer to. Strings are UTF-8 with a NUL, may be NULL, live for ever. */
typedef struct handler_description {
  uint32_t struct_size;
  uint32_t reserved;
  const char *name;
  const char *version;
  const char *description;
} handler_description;

/* ---- What a handler exports ------------------------------------------------------------------ */

/* Required. Must return HANDLER_ABI_VERSION; HANDLER_DEFINE_ABI() writes it. */
HANDLER_EXPORT uint32_t handler_abi_version(void);

/*
 * Required. Serves one request: HANDLER_OK, or an error code with a UTF-8 message as response.
 * Called from several threads at once when the pool has several lanes.
 */
HANDLER_EXPORT int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                                     handler_response *res);

/*
 * Optional. Called once for each loaded library, before the first request, on one of its threads.
 * A non-zero code refuses the load; handler_fail(res, code, message) says why.
 */
HANDLER_EXPORT int32_t handler_init(const handler_context *ctx, handler_response *res);

/*
 * Optional. Called once, after the last request has returned and before the library is unloaded.
 * When it returns, no thread of the library may be left.
 */
HANDLER_EXPORT void handler_shutdown(void);

/* Optional. Describes the library. */
HANDLER_EXPORT const handler_description *handler_info(void);

/* Optional; required if res->data is ever pointed to memory of your own. Frees that memory. */
HANDLER_EXPORT void handler_release(handler_response *res);

/* ---- Helpers ----------------------------------------------------------------------------------- */

#define HANDLER_DEFINE_ABI()                               \
  HANDLER_EXPORT uint32_t handler_abi_version(void) {      \
    return HANDLER_ABI_VERSION;                            \
  }                                                        \
  struct handler_abi_needs_a_semicolon

/* Whether nobody waits for the response any more. Cheap: poll it in every long loop. */
static inline int handler_cancelled(const handler_context *ctx) {
#if defined(__GNUC__)
  return __atomic_load_n(ctx->cancel_flag, __ATOMIC_RELAXED) != 0;
#else
  return *ctx->cancel_flag != 0;
#endif
}

/*
 * Room for a response of `length` bytes in host memory, or NULL if it does not fit. Write there,
 * then `return handler_reply_in_place(res, length)`.
 */
static inline uint8_t *handler_reserve(const handler_response *res, size_t length) {
  return length <= res->capacity ? res->data : NULL;
}

/* Answers with `length` bytes already written at res->data. */
static inline int32_t handler_reply_in_place(handler_response *res, size_t length) {
  res->length = length;
  return length <= res->capacity ? HANDLER_OK : HANDLER_RESPONSE_TOO_LARGE;
}

/* Answers with a copy of `length` bytes at `data`. */
static inline int32_t handler_reply(handler_response *res, const void *data, size_t length) {
  if (length > 0 && length <= res->capacity) memcpy(res->data, data, length);
  return handler_reply_in_place(res, length);
}

/*
 * Answers with `length` bytes of your own memory, which handler_release will get back together with
 * `owner` (what else you need to free it; NULL if nothing).
 */
static inline int32_t handler_reply_owned(handler_response *res, void *data, size_t length,
                                          void *owner) {
  res->data = (uint8_t *)data;
  res->length = length;
  res->owner = owner;
  return HANDLER_OK;
}

/* Answers with an error of your own: `code` is not 0, `message` is UTF-8 and may be NULL. */
static inline int32_t handler_fail(handler_response *res, int32_t code, const char *message) {
  size_t length = message == NULL ? 0 : strlen(message);
  if (length > res->capacity) length = (size_t)res->capacity;
  if (length > 0) memcpy(res->data, message, length);
  res->length = length;
  return code == HANDLER_OK ? -1 : code;
}

#endif
