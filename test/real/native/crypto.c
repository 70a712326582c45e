/*
 * Encrypts the request. With PROVIDER, which names an OpenSSL provider, the cipher comes from a
 * plug-in that libcrypto opens. Refuses to run with another libcrypto than its own.
 */
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <openssl/provider.h>

#include "build.h"

#ifndef CIPHER
#define CIPHER "AES-256-CBC"
#endif

DESCRIBE("crypto");

static OSSL_LIB_CTX *context;
static EVP_CIPHER *cipher;
static OSSL_PROVIDER *provider;

static int32_t fail(handler_response *res, int32_t code) {
  char text[256];
  ERR_error_string_n(ERR_get_error(), text, sizeof text);
  return handler_fail(res, code, text);
}

void handler_shutdown(void) {
  EVP_CIPHER_free(cipher);
  if (provider != NULL) OSSL_PROVIDER_unload(provider);
  OSSL_LIB_CTX_free(context);
}

int32_t handler_init(const handler_context *ctx, handler_response *res) {
  (void)ctx;
  if (strcmp(OpenSSL_version(OPENSSL_VERSION_STRING), OPENSSL_VERSION_STR) != 0) {
    return handler_fail(res, 2, OpenSSL_version(OPENSSL_VERSION));
  }
  context = OSSL_LIB_CTX_new();
#ifdef PROVIDER
  provider = OSSL_PROVIDER_load(context, PROVIDER);
  if (provider == NULL) return fail(res, 3);
#endif
  cipher = EVP_CIPHER_fetch(context, CIPHER, NULL);
  return cipher == NULL ? fail(res, 4) : HANDLER_OK;
}

int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                      handler_response *res) {
  static const unsigned char key[32] = "01234567890123456789012345678901";
  static const unsigned char iv[16] = "0123456789012345";
  EVP_CIPHER_CTX *encryption = EVP_CIPHER_CTX_new();
  int length = 0;
  int rest = 0;
  int done;
  (void)ctx;
  if (req->length + 16 > res->capacity) {
    EVP_CIPHER_CTX_free(encryption);
    res->length = req->length + 16;
    return HANDLER_RESPONSE_TOO_LARGE;
  }
  done = EVP_EncryptInit_ex2(encryption, cipher, key, iv, NULL) &&
         EVP_EncryptUpdate(encryption, res->data, &length, req->data, (int)req->length) &&
         EVP_EncryptFinal_ex(encryption, res->data + length, &rest);
  EVP_CIPHER_CTX_free(encryption);
  if (!done) return fail(res, 1);
  return handler_reply_in_place(res, (size_t)length + (size_t)rest);
}
