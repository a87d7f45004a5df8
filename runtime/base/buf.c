#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/escape.h"
#include "base/hash.h"
#include "base/memory.h"

enum { FIRST_CAPACITY = 256 };

void buf_init(struct buf *b, size_t max_bytes)
{
    *b = (struct buf){.max_bytes = max_bytes};
}

void buf_release(struct buf *b)
{
    if (b == NULL) return;
    free(b->ptr);
    *b = (struct buf){.max_bytes = b->max_bytes};
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->is_full = false;
}

static __attribute__((noinline)) void grow(struct buf *b, size_t need)
{
    size_t capacity = b->capacity ? b->capacity : FIRST_CAPACITY;
    while (capacity < need)
        capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
    if (capacity - 1 > b->max_bytes) capacity = b->max_bytes + 1;
    b->ptr = mem_realloc(b->ptr, capacity);
    b->capacity = capacity;
}

/* Room for `n` more bytes and the NUL, or false and is_full. */
static bool reserve(struct buf *b, size_t n)
{
    if (b->is_full || n > b->max_bytes - b->len) {
        b->is_full = true;
        return false;
    }
    if (n >= b->capacity - b->len) {
        if (b->len + n == SIZE_MAX) mem_exhausted(n);
        grow(b, b->len + n + 1);
    }
    return true;
}

void buf_append(struct buf *b, struct strview s)
{
    if (s.len == 0 || !reserve(b, s.len)) return;
    memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    b->ptr[b->len] = '\0';
}

void buf_append_char(struct buf *b, char c)
{
    if (!reserve(b, 1)) return;
    b->ptr[b->len++] = c;
    b->ptr[b->len] = '\0';
}

void buf_append_u64(struct buf *b, uint64_t v)
{
    char digits[SV_U64_MAX];
    buf_append(b, sv_u64(v, digits));
}

/* All or nothing: an append made of several takes back its first parts if a later one did not fit. */
static void settle(struct buf *b, size_t start)
{
    if (!b->is_full) return;
    b->len = start;
    if (b->ptr != NULL) b->ptr[start] = '\0';
}

void buf_append_i64(struct buf *b, int64_t v)
{
    if (v >= 0) {
        buf_append_u64(b, (uint64_t)v);
        return;
    }
    size_t start = b->len;
    buf_append_char(b, '-');
    buf_append_u64(b, 0 - (uint64_t)v);
    settle(b, start);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    if (b->is_full) return;
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    size_t room = b->capacity - b->len;
    int n = vsnprintf(room ? b->ptr + b->len : NULL, room, fmt, args);
    va_end(args);
    if (n > 0 && reserve(b, (size_t)n)) {
        if ((size_t)n >= room) (void)vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    } else if (room > 0) {
        b->ptr[b->len] = '\0'; /* undo what did not fit */
    }
    va_end(again);
}

void buf_append_json_string(struct buf *b, struct strview s)
{
    size_t start = b->len;
    buf_append_char(b, '"');
    while (s.len > 0 && !b->is_full) {
        size_t worst = (s.len < JSON_ESCAPE_PART ? s.len : JSON_ESCAPE_PART) * JSON_ESCAPE_MAX + 8;
        char part[JSON_ESCAPE_PART_MAX];
        if (worst <= b->max_bytes - b->len) { /* straight into place */
            if (!reserve(b, worst)) break;
            b->len += json_escape_part(&s, b->ptr + b->len);
        } else {
            size_t n = json_escape_part(&s, part);
            buf_append(b, sv_n(part, n));
        }
    }
    buf_append_char(b, '"');
    settle(b, start);
}

void buf_append_hex(struct buf *b, const void *bytes, size_t n)
{
    if (n > (SIZE_MAX - 1) / 2) {
        b->is_full = true;
        return;
    }
    if (n == 0 || !reserve(b, 2 * n)) return;
    hex_encode(bytes, n, b->ptr + b->len);
    b->len += 2 * n;
}

struct strview buf_view(const struct buf *b)
{
    return (struct strview){b->len ? b->ptr : "", b->len};
}

enum status buf_status(const struct buf *b)
{
    return b->is_full ? STATUS_RESOURCE_EXHAUSTED : STATUS_OK;
}

char *buf_take(struct buf *b, size_t *ret_len)
{
    char *bytes = b->ptr;
    if (bytes == NULL) bytes = mem_zalloc(1, 1);
    if (b->len == 0) bytes[0] = '\0';
    if (ret_len != NULL) *ret_len = b->len;
    *b = (struct buf){.max_bytes = b->max_bytes};
    return bytes;
}
