/*
 * lz4_chain.c: version 2 of the demo's `compress` endpoint: the same blocks as lz4_fast.c, smaller.
 *
 * Every position is linked to the one before it with the same hash, so that a search can walk back
 * through all candidates in reach and keep the longest match. Matching is lazy: before a match is
 * taken, the next byte is tried too, and if its match is longer the byte becomes a literal.
 *
 * The tables are on the stack of the call (256 KiB), so any number of lanes may call at once.
 * Memory from malloc would be mapped and unmapped for every request at this size.
 */
#include "handler.h"
#include "lz4_block.h"

HANDLER_DEFINE_ABI();

enum {
  MAX_HASH_BITS = 15,
  WINDOW = 1 << 16,
  MAX_ATTEMPTS = 32,        /* candidates looked at for one position */
  GOOD_MATCH_LENGTH = 64,   /* long enough to stop looking for a better one */
  SKIP_AFTER_LOG = 8,       /* every 256 misses in a row, the step grows by one byte */
  POLL_EVERY = 4096,        /* bytes between two looks at the cancel flag */
  CANCELLED = 1,
  TOO_LARGE = 2,
};

typedef struct matcher {
  const uint8_t *input;
  const uint8_t *match_limit; /* no match goes past this: the rest are literals */
  uint32_t next;              /* first position that is not in the chains yet */
  unsigned bits;
  uint32_t head[1 << MAX_HASH_BITS]; /* newest position of each hash; 0 while there is none */
  uint16_t back[WINDOW]; /* by position % WINDOW: distance to the one before in its chain */
} matcher;

typedef struct match {
  size_t length; /* 0 if none */
  size_t offset;
} match;

static inline uint32_t hash_at(const uint8_t *at, unsigned bits) {
  return (lz4_read32(at) * UINT32_C(2654435761)) >> (32 - bits);
}

/* Links every position before `end` into its chain. */
static inline void insert_up_to(matcher *m, uint32_t end) {
  for (uint32_t position = m->next; position < end; position++) {
    uint32_t *head = &m->head[hash_at(m->input + position, m->bits)];
    uint32_t distance = position - *head;
    /* Position 0 would be its own predecessor. */
    if (distance > LZ4_MAX_OFFSET || position == 0) distance = LZ4_MAX_OFFSET;
    m->back[position % WINDOW] = (uint16_t)distance;
    *head = position;
  }
  if (end > m->next) m->next = end;
}

/* The longest match at `position` that is longer than `to_beat`, and the nearest of these. */
static inline match find_match(matcher *m, uint32_t position, size_t to_beat) {
  const uint8_t *at = m->input + position;
  const uint32_t four = lz4_read32(at);
  match best = {0, 0};
  size_t longest = to_beat < LZ4_MIN_MATCH - 1 ? LZ4_MIN_MATCH - 1 : to_beat;

  insert_up_to(m, position);
  uint32_t candidate = m->head[hash_at(at, m->bits)];

  for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    if (candidate >= position || position - candidate > LZ4_MAX_OFFSET) break;
    const uint8_t *earlier = m->input + candidate;

    /* The byte that would make it longer rules out most candidates with one comparison. */
    if (at + longest < m->match_limit && earlier[longest] == at[longest] &&
        lz4_read32(earlier) == four) {
      size_t length = LZ4_MIN_MATCH + lz4_common_length(at + LZ4_MIN_MATCH, earlier + LZ4_MIN_MATCH,
                                                        m->match_limit);
      if (length > longest) {
        longest = length;
        best.length = length;
        best.offset = position - candidate;
        if (length >= GOOD_MATCH_LENGTH) break;
      }
    }

    uint32_t distance = m->back[candidate % WINDOW];
    if (distance > candidate) break;
    candidate -= distance;
  }
  return best;
}

/* The block's length, or 0 if the request was cancelled meanwhile: no block is empty. */
static size_t compress_chain(const handler_context *ctx, const uint8_t *input, size_t length,
                             uint8_t *output) {
  const uint8_t *const end = input + length;
  const uint8_t *anchor = input; /* first byte that no sequence covers yet */
  uint8_t *out = output;

  if (length > LZ4_MATCH_START_LIMIT) {
    const uint32_t last_start = (uint32_t)(length - LZ4_MATCH_START_LIMIT);
    uint32_t position = 1;
    uint32_t next_poll = POLL_EVERY;
    unsigned misses = 1u << SKIP_AFTER_LOG;

    matcher m; /* `back` is written before it is read, so only the heads are cleared */
    m.input = input;
    m.match_limit = end - LZ4_LAST_LITERALS;
    m.next = 0;
    m.bits = lz4_hash_bits(length, MAX_HASH_BITS);
    memset(m.head, 0, sizeof m.head[0] << m.bits);

    while (position <= last_start) {
      if (position >= next_poll) {
        if (handler_cancelled(ctx)) return 0;
        next_poll = position + POLL_EVERY;
      }

      match found = find_match(&m, position, 0);
      if (found.length == 0) {
        position += misses++ >> SKIP_AFTER_LOG;
        continue;
      }
      misses = 1u << SKIP_AFTER_LOG;

      while (found.length < GOOD_MATCH_LENGTH && position < last_start) {
        match later = find_match(&m, position + 1, found.length);
        if (later.length == 0) break;
        found = later;
        position++;
      }

      const uint8_t *at = input + position;
      const uint8_t *earlier = at - found.offset;
      while (at > anchor && earlier > input && at[-1] == earlier[-1]) {
        at--;
        earlier--;
        found.length++;
      }
      out = lz4_put_sequence(out, anchor, (size_t)(at - anchor), found.offset, found.length);
      anchor = at + found.length;
      position = (uint32_t)(anchor - input);
    }
  }
  return (size_t)(lz4_put_last_literals(out, anchor, (size_t)(end - anchor)) - output);
}

HANDLER_EXPORT int32_t handler_entry(const handler_context *ctx, const handler_request *req,
                                     handler_response *res) {
  if (req->length > LZ4_MAX_INPUT) {
    return handler_fail(res, TOO_LARGE, "more bytes than an LZ4 block holds");
  }

  const size_t bound = lz4_bound((size_t)req->length);
  uint8_t *output = handler_reserve(res, bound);
  if (output == NULL) return handler_reply_in_place(res, bound);

  const size_t block_length = compress_chain(ctx, req->data, (size_t)req->length, output);
  if (block_length == 0) return handler_fail(res, CANCELLED, "cancelled");
  return handler_reply_in_place(res, block_length);
}

HANDLER_EXPORT const handler_description *handler_info(void) {
  static const handler_description description = {
      sizeof description, 0, "compress", "2.0.0", "LZ4 blocks, hash chains: small",
  };
  return &description;
}
