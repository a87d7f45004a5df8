/* Integers and texts in a row, for files that only we read: no names, no types, so writer and reader must
 * agree on the order. An unsigned integer is a varint (7 bits a byte, lowest first, at most 10 bytes), a
 * signed one the same of its zigzag form, a text its length and its bytes.
 *
 * A reader trusts nothing: what is cut short or too large gives zeros and empty texts from there on, and
 * unpack_is_good() says so at the end; a loop over unpack_count() ends by itself. */
#ifndef BALM_BASE_PACK_H
#define BALM_BASE_PACK_H

#include <stdint.h>

#include "base/strview.h"

/* Writes on behalf of a struct pack. False: it failed, nothing more is asked of it. */
typedef bool pack_sink(void *arg, const void *bytes, size_t n);

struct pack {
    char *buf; /* owned */
    size_t n, capacity;
    uint64_t n_written; /* to the sink so far; with what is in `buf`: the position */
    pack_sink *sink;    /* NULL: all stays in `buf` */
    void *arg;
    bool has_failed; /* the sink */
};

/* sink NULL: in memory, of whatever size. */
void pack_init(struct pack *p, pack_sink *sink, void *arg);
void pack_release(struct pack *p);
void pack_u64(struct pack *p, uint64_t value);
void pack_i64(struct pack *p, int64_t value);
void pack_bool(struct pack *p, bool value);
void pack_text(struct pack *p, struct strview text);
void pack_bytes(struct pack *p, const void *bytes, size_t n); /* without a length */
uint64_t pack_position(const struct pack *p);
/* What is left goes to the sink. False: it failed, now or before. */
bool pack_flush(struct pack *p);
struct strview pack_view(const struct pack *p); /* without sink: all of it, borrowed until the next call */

struct unpack {
    const unsigned char *at, *end; /* borrowed */
    bool is_bad;
};

/* Reads from the front of `bytes`, which are borrowed. What is not there is 0 or empty, and is_bad from then
 * on. */
void unpack_init(struct unpack *u, struct strview bytes);
uint64_t unpack_u64(struct unpack *u);
int64_t unpack_i64(struct unpack *u);
bool unpack_bool(struct unpack *u);
struct strview unpack_text(struct unpack *u); /* borrowed from the bytes */
struct strview unpack_bytes(struct unpack *u, size_t n);
/* How many items follow, each of at least one byte: never more than bytes are left. */
size_t unpack_count(struct unpack *u);
/* Nothing was missing or wrong, and nothing is left. */
bool unpack_is_good(const struct unpack *u);

#endif
