/*
 * lz4_block.h: what the two compressors of the demo share: how an LZ4 block is written.
 *
 * A block is a row of sequences. One sequence is
 *
 *     token | more literal length | literals | offset, 2 bytes | more match length
 *
 * The token's high half is the number of literals, its low half the match length less 4; 15 means
 * that bytes to add follow, up to and including the first that is not 255. The last sequence stops
 * after its literals. Rules at the end of a block, which let decoders copy in wide steps:
 *
 *   1. the last 5 bytes are literals;
 *   2. the last match starts at least 12 bytes before the end.
 *
 * An offset is 1 to 65535. Source: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
 */
#ifndef LZ4_BLOCK_H
#define LZ4_BLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
  LZ4_MIN_MATCH = 4,
  LZ4_LAST_LITERALS = 5,
  LZ4_MATCH_START_LIMIT = 12,
  LZ4_MAX_OFFSET = 65535,
  LZ4_NIBBLE_FULL = 15,
};

/* Positions are 32 bits wide; larger input is refused. */
#define LZ4_MAX_INPUT ((size_t)0x7e000000)

/*
 * The largest block that `length` bytes can become. Incompressible input costs one length byte for
 * each 255 literals. A sequence with a match never takes more room than its bytes did, as it spends
 * at most 3 bytes (token and offset) on a match that saves at least 4.
 */
static inline size_t lz4_bound(size_t length) {
  return length + length / 255 + 16;
}

/* Unaligned loads. Compilers make one instruction of each. */
static inline uint32_t lz4_read32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline uint64_t lz4_read64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

/* Bits of hash for `length` bytes of input: clearing a large table would dominate a small call. */
static inline unsigned lz4_hash_bits(size_t length, unsigned most) {
  unsigned bits = 8;
  while (bits < most && ((size_t)1 << bits) < length) bits++;
  return bits;
}

/* How many bytes at `a` and `b` are equal; `a` stays before `limit`, and `b` is before `a`. */
static inline size_t lz4_common_length(const uint8_t *a, const uint8_t *b, const uint8_t *limit) {
  const uint8_t *start = a;
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  while (limit - a >= 8) {
    uint64_t difference = lz4_read64(a) ^ lz4_read64(b);
    if (difference != 0) return (size_t)(a - start) + ((size_t)__builtin_ctzll(difference) >> 3);
    a += 8;
    b += 8;
  }
#endif
  while (a < limit && *a == *b) {
    a++;
    b++;
  }
  return (size_t)(a - start);
}

/* What is left of a length after its 15 in the token. */
static inline uint8_t *lz4_put_length(uint8_t *out, size_t rest) {
  if (rest >= 255) {
    memset(out, 255, rest / 255);
    out += rest / 255;
  }
  *out++ = (uint8_t)(rest % 255);
  return out;
}

/*
 * Writes one sequence that ends in a match; returns the end of the output.
 *
 * Short literals are copied 8 or 16 bytes wide. That reads no further than the input, because the
 * match after them starts 12 bytes before its end (rule 2), and writes no further than lz4_bound,
 * because the output so far is no longer than the input so far, but for length bytes.
 */
static inline uint8_t *lz4_put_sequence(uint8_t *out, const uint8_t *literals, size_t literal_count,
                                        size_t offset, size_t match_length) {
  size_t match_code = match_length - LZ4_MIN_MATCH;
  uint8_t *token = out++;
  unsigned high = LZ4_NIBBLE_FULL;
  unsigned low = LZ4_NIBBLE_FULL;

  if (literal_count <= 8) {
    high = (unsigned)literal_count;
    memcpy(out, literals, 8);
  } else if (literal_count < LZ4_NIBBLE_FULL) {
    high = (unsigned)literal_count;
    memcpy(out, literals, 16);
  } else {
    out = lz4_put_length(out, literal_count - LZ4_NIBBLE_FULL);
    memcpy(out, literals, literal_count);
  }
  out += literal_count;

  *out++ = (uint8_t)(offset & 255);
  *out++ = (uint8_t)(offset >> 8);

  if (match_code < LZ4_NIBBLE_FULL) {
    low = (unsigned)match_code;
  } else {
    out = lz4_put_length(out, match_code - LZ4_NIBBLE_FULL);
  }
  *token = (uint8_t)(high << 4 | low);
  return out;
}

/* Writes the last sequence, which is only literals; returns the end of the block. */
static inline uint8_t *lz4_put_last_literals(uint8_t *out, const uint8_t *literals, size_t count) {
  if (count < LZ4_NIBBLE_FULL) {
    *out++ = (uint8_t)(count << 4);
  } else {
    *out++ = LZ4_NIBBLE_FULL << 4;
    out = lz4_put_length(out, count - LZ4_NIBBLE_FULL);
  }
  if (count > 0) memcpy(out, literals, count);
  return out + count;
}

#endif
