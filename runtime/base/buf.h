/* Text to be built, with a maximum named at init (model: curl's dynbuf).
 *
 * The first append that would pass the maximum sets `is_full`; it and all later appends do nothing, so a
 * formatter appends without checking each step and asks buf_status() once at the end. Always NUL-terminated
 * when len > 0. A zeroed struct must be given a maximum by buf_init() before use; buf_release() of a zeroed
 * struct does nothing. */
#ifndef BALM_BASE_BUF_H
#define BALM_BASE_BUF_H

#include <stdint.h>

#include "base/strview.h"

struct buf {
    char *ptr; /* owned */
    size_t len, capacity, max_bytes;
    bool is_full;
};

/* Empty; takes memory with the first byte, never more than max_bytes. */
void buf_init(struct buf *b, size_t max_bytes);
void buf_release(struct buf *b);
void buf_reset(struct buf *b); /* len 0, is_full false, memory kept */
void buf_append(struct buf *b, struct strview s);
void buf_append_char(struct buf *b, char c);
void buf_append_u64(struct buf *b, uint64_t v);
void buf_append_i64(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* `s` as a JSON string with quotes, exactly as jansson's JSON_COMPACT dump writes it (UTF-8 kept, control
 * characters as \uXXXX with upper-case digits or \b \f \n \r \t, '/' not escaped). Invalid UTF-8 becomes
 * U+FFFD. */
void buf_append_json_string(struct buf *b, struct strview s);
/* Lower-case hex of `n` bytes. */
void buf_append_hex(struct buf *b, const void *bytes, size_t n);
struct strview buf_view(const struct buf *b); /* borrowed until the next call */
/* STATUS_RESOURCE_EXHAUSTED if something did not fit. */
enum status buf_status(const struct buf *b) MUST_USE;
/* Moves the bytes out (caller frees with free()); the buffer is empty afterwards. */
char *buf_take(struct buf *b, size_t *ret_len);

#endif
