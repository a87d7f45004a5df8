#include "base/pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define SINK_BYTES ((size_t)256 * 1024)
enum { VARINT_MAX = 10 };

void pack_init(struct pack *p, pack_sink *sink, void *arg)
{
    *p = (struct pack){.sink = sink, .arg = arg};
}

void pack_release(struct pack *p)
{
    free(p->buf);
    *p = (struct pack){0};
}

bool pack_flush(struct pack *p)
{
    if (p->sink == NULL) return true;
    if (p->n > 0 && !p->has_failed) p->has_failed = !p->sink(p->arg, p->buf, p->n);
    p->n_written += p->n;
    p->n = 0;
    return !p->has_failed;
}

/* Room for n more bytes in the buffer. */
static char *reserve(struct pack *p, size_t n)
{
    if (p->sink != NULL && p->n + n > SINK_BYTES) (void)pack_flush(p);
    if (p->n + n > p->capacity) {
        size_t capacity = p->capacity > 0 ? p->capacity : 4096;
        while (capacity < p->n + n)
            capacity *= 2;
        p->buf = mem_realloc(p->buf, capacity);
        p->capacity = capacity;
    }
    return p->buf + p->n;
}

void pack_u64(struct pack *p, uint64_t value)
{
    unsigned char *to = (unsigned char *)reserve(p, VARINT_MAX);
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        to[n++] = (unsigned char)(value | 0x80);
    to[n++] = (unsigned char)value;
    p->n += n;
}

void pack_i64(struct pack *p, int64_t value)
{
    pack_u64(p, ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0));
}

void pack_bool(struct pack *p, bool value)
{
    pack_u64(p, value ? 1 : 0);
}

void pack_bytes(struct pack *p, const void *bytes, size_t n)
{
    if (n == 0) return;
    memcpy(reserve(p, n), bytes, n);
    p->n += n;
}

void pack_text(struct pack *p, struct strview text)
{
    pack_u64(p, text.len);
    pack_bytes(p, text.ptr, text.len);
}

uint64_t pack_position(const struct pack *p)
{
    return p->n_written + p->n;
}

struct strview pack_view(const struct pack *p)
{
    return sv_n(p->buf, p->n);
}

void unpack_init(struct unpack *u, struct strview bytes)
{
    u->at = (const unsigned char *)(bytes.len > 0 ? bytes.ptr : "");
    u->end = u->at + bytes.len;
    u->is_bad = false;
}

static uint64_t bad(struct unpack *u)
{
    u->is_bad = true;
    u->at = u->end;
    return 0;
}

uint64_t unpack_u64(struct unpack *u)
{
    uint64_t value = 0;
    for (unsigned shift = 0; u->at < u->end && shift < 64; shift += 7) {
        unsigned char byte = *u->at++;
        if (shift == 63 && byte > 1) break;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    return bad(u);
}

int64_t unpack_i64(struct unpack *u)
{
    uint64_t value = unpack_u64(u);
    return (int64_t)((value >> 1) ^ (0 - (value & 1)));
}

bool unpack_bool(struct unpack *u)
{
    uint64_t value = unpack_u64(u);
    return value > 1 ? bad(u) != 0 : value == 1;
}

struct strview unpack_bytes(struct unpack *u, size_t n)
{
    if (n > (size_t)(u->end - u->at)) {
        (void)bad(u);
        n = 0; /* empty, but not NULL: it may be copied before anybody asks */
    }
    struct strview bytes = sv_n((const char *)u->at, n);
    u->at += n;
    return bytes;
}

struct strview unpack_text(struct unpack *u)
{
    return unpack_bytes(u, (size_t)unpack_u64(u));
}

size_t unpack_count(struct unpack *u)
{
    uint64_t n = unpack_u64(u);
    return n > (uint64_t)(u->end - u->at) ? (size_t)bad(u) : (size_t)n;
}

bool unpack_is_good(const struct unpack *u)
{
    return !u->is_bad && u->at == u->end;
}
