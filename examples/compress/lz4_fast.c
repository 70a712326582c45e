/*
 * lz4_fast.c: version 1 of the demo's `compress` endpoint: one request is one block of bytes, its
 * response the LZ4 block.
 *
 * Greedy and fast: a hash table remembers one position for each hash of 5 bytes, and a match found
 * there is taken. Where nothing matches for a while it looks at every second byte, every third, and
 * so on, so that incompressible data goes through almost at the speed of a copy.
 *
 * Everything it knows is on the stack of the call, so any number of lanes may call at once.
 */
#include "handler.h"
#include "lz4_block.h"

HANDLER_DEFINE_ABI();

enum {
  MAX_HASH_BITS = 13, /* 32 KiB of positions: stays in the first-level cache with the input */
  SKIP_AFTER_LOG = 6, /* every 64 misses in a row, the step grows by one byte */
};

/* Hashes the first 5 of 8 bytes. For 4 the table fills with matches too short to pay. */
static inline uint32_t hash_at(const uint8_t *at, unsigned bits) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  uint64_t five = lz4_read64(at) >> 24;
#else
  uint64_t five = lz4_read64(at) << 24;
#endif
  return (uint32_t)((five * UINT64_C(0x9e3779b185ebca87)) >> (64 - bits));
}

static size_t compress_fast(const uint8_t *input, size_t length, uint8_t *output) {
  uint32_t table[1 << MAX_HASH_BITS];
  const unsigned bits = lz4_hash_bits(length, MAX_HASH_BITS);
  const uint8_t *const end = input + length;
  const uint8_t *anchor = input; /* first byte that no sequence covers yet */
  uint8_t *out = output;

  if (length > LZ4_MATCH_START_LIMIT) {
    const uint8_t *const last_start = end - LZ4_MATCH_START_LIMIT;
    const uint8_t *const match_limit = end - LZ4_LAST_LITERALS;
    const uint8_t *at = input + 1;
    unsigned misses = 1u << SKIP_AFTER_LOG;

    /* Zero is position 0, a candidate like any other: each is compared before it is used. */
    memset(table, 0, sizeof table[0] << bits);

    while (at <= last_start) {
      uint32_t *entry = &table[hash_at(at, bits)];
      const uint8_t *candidate = input + *entry;
      *entry = (uint32_t)(at - input);

      if (lz4_read32(candidate) != lz4_read32(at) || at - candidate > LZ4_MAX_OFFSET) {
        at += misses++ >> SKIP_AFTER_LOG;
        continue;
      }
      misses = 1u << SKIP_AFTER_LOG;

      while (at > anchor && candidate > input && at[-1] == candidate[-1]) {
        at--;
        candidate--;
      }
      const size_t literal_count = (size_t)(at - anchor);
      const size_t offset = (size_t)(at - candidate);
      const size_t match_length = LZ4_MIN_MATCH + lz4_common_length(
          at + LZ4_MIN_MATCH, candidate + LZ4_MIN_MATCH, match_limit);
      out = lz4_put_sequence(out, anchor, literal_count, offset, match_length);
      at += match_length;
      anchor = at;

      /* One position inside the match: repeats of a text are often out of step by a few bytes. */
      if (at <= last_start) table[hash_at(at - 2, bits)] = (uint32_t)(at - 2 - input);
    }
  }
  return (size_t)(lz4_put_last_literals(out, anchor, (size_t)(end - anchor)) - output);
}

HANDLER_EXPORT int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                                     handler_response *res) {
  (void)ctx; /* A block takes a millisecond or two: polling the cancel flag would not pay. */
  if (req->length > LZ4_MAX_INPUT) {
    return handler_fail(res, 1, "more bytes than an LZ4 block holds");
  }

  const size_t bound = lz4_bound((size_t)req->length);
  uint8_t *output = handler_reserve(res, bound);
  if (output == NULL) return handler_reply_in_place(res, bound);
  return handler_reply_in_place(res, compress_fast(req->data, (size_t)req->length, output));
}

HANDLER_EXPORT const handler_description *handler_info(void) {
  static const handler_description description = {
      sizeof description, 0, "compress", "1.0.0", "LZ4 blocks, greedy: fast",
  };
  return &description;
}
