/* Runs the request, which is SQL, on a database in memory; prints rows as `sqlite3` does. */
#include <sqlite3.h>
#include <stdlib.h>

#include "build.h"

DESCRIBE("sqlite");

static void append(handler_response *res, const char *text, size_t length) {
  if (res->length + length <= res->capacity) memcpy(res->data + res->length, text, length);
  res->length += length;
}

static int print_row(void *response, int columns, char **values, char **names) {
  int column;
  (void)names;
  for (column = 0; column < columns; column++) {
    const char *value = values[column] == NULL ? "" : values[column];
    append(response, value, strlen(value));
    append(response, column + 1 < columns ? "|" : "\n", 1);
  }
  return 0;
}

int32_t handler_init(const handler_context *ctx, handler_response *res) {
  (void)ctx;
  if (strcmp(sqlite3_libversion(), SQLITE_VERSION) == 0) return HANDLER_OK;
  return handler_fail(res, 2, sqlite3_libversion());
}

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  sqlite3 *database = NULL;
  char *message = NULL;
  char *script = malloc(req->length + 1);
  int status;
  (void)ctx;
  if (script == NULL) return handler_fail(res, 3, "no memory");
  memcpy(script, req->data, req->length);
  script[req->length] = '\0';
  status = sqlite3_open(":memory:", &database);
  if (status == SQLITE_OK) status = sqlite3_exec(database, script, print_row, res, &message);
  if (status != SQLITE_OK) handler_fail(res, 1, message == NULL ? "no database" : message);
  sqlite3_free(message);
  sqlite3_close(database);
  free(script);
  if (status != SQLITE_OK) return 1;
  return handler_reply_in_place(res, res->length);
}
