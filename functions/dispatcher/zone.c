#include "functions/dispatcher/zone.h"

#include <string.h>

#include "base/clock.h"

#include "functions/dispatcher/zone_impl.h"

/* ---- TZif (RFC 8536 §3): two blocks, times of 4 bytes and then of 8; the second one counts ---- */

#define HEADER_BYTES 44
#define TYPES_MAX    256
/* The Big Bang: RFC 8536 §3.2 wants no earlier transition. With an offset added it still is a time. */
#define TIME_MAX_S (INT64_C(1) << 59)

struct header {
    int version; /* 1, or more */
    size_t n_utc, n_standard, n_leap, n_times, n_types, n_chars;
};

/* What is left to read. */
struct reader {
    const unsigned char *at;
    size_t n;
};

static int64_t big_endian(const unsigned char *at, size_t n)
{
    uint64_t value = at[0] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | at[i];
    return (int64_t)value;
}

static bool take(struct reader *r, size_t n, const unsigned char **ret_at)
{
    if (n > r->n) return false;
    *ret_at = r->at;
    r->at += n;
    r->n -= n;
    return true;
}

/* Every count is smaller than the file, so that no product of them overflows. */
static bool take_header(struct reader *r, struct header *ret)
{
    const unsigned char *at;
    size_t *const counts[] = {&ret->n_utc,   &ret->n_standard, &ret->n_leap,
                              &ret->n_times, &ret->n_types,    &ret->n_chars};
    if (!take(r, HEADER_BYTES, &at) || memcmp(at, "TZif", 4) != 0) return false;
    ret->version = at[4] == 0 ? 1 : at[4] - '0';
    for (size_t i = 0; i < 6; i++) {
        int64_t count = big_endian(at + 20 + 4 * i, 4);
        if (count < 0 || (uint64_t)count > ZONE_BYTES_MAX) return false;
        *counts[i] = (size_t)count;
    }
    return ret->version >= 1 && ret->n_types >= 1 && ret->n_types <= TYPES_MAX;
}

static size_t block_bytes(const struct header *h, size_t time_bytes)
{
    return h->n_times * (time_bytes + 1) + h->n_types * 6 + h->n_chars + h->n_leap * (time_bytes + 4) +
           h->n_standard + h->n_utc;
}

static bool take_block(struct reader *r, const struct header *h, size_t time_bytes, struct arena *a,
                       struct zone *z)
{
    const unsigned char *block;
    if (!take(r, block_bytes(h, time_bytes), &block)) return false;
    const unsigned char *indexes = block + h->n_times * time_bytes, *types = indexes + h->n_times;
    struct zone_transition *list = arena_array(a, h->n_times, sizeof(*list));
    for (size_t i = 0; i < h->n_times; i++) {
        if (indexes[i] >= h->n_types) return false;
        list[i].at_s = big_endian(block + i * time_bytes, time_bytes);
        list[i].offset_s = (int32_t)big_endian(types + (size_t)indexes[i] * 6, 4);
        if (list[i].at_s < -TIME_MAX_S || list[i].at_s > TIME_MAX_S) return false;
        if (i > 0 && list[i].at_s <= list[i - 1].at_s) return false;
    }
    for (size_t i = 0; i < h->n_types; i++) {
        int64_t offset_s = big_endian(types + i * 6, 4);
        if (offset_s < -2 * SECONDS_PER_DAY || offset_s > 2 * SECONDS_PER_DAY) return false;
    }
    z->transitions = list;
    z->n = h->n_times;
    z->first_offset_s = (int32_t)big_endian(types, 4);
    return true;
}

static bool take_footer(struct reader *r, struct strview *ret_rule)
{
    struct strview rest = sv_n((const char *)r->at, r->n);
    if (rest.len == 0 || rest.ptr[0] != '\n') return false;
    rest = sv_sub(rest, 1, rest.len);
    size_t end = sv_find(rest, '\n');
    *ret_rule = sv_sub(rest, 0, end);
    return end < rest.len;
}

enum status zone_parse(struct arena *a, struct strview bytes, struct zone *ret_zone, struct error *err)
{
    struct reader r = {(const unsigned char *)bytes.ptr, bytes.len};
    struct header h;
    struct zone z = {0};
    struct strview rule = {0};
    const unsigned char *skipped;
    bool is_good = take_header(&r, &h);
    if (is_good && h.version >= 2) is_good = take(&r, block_bytes(&h, 4), &skipped) && take_header(&r, &h);
    if (is_good && h.n_leap > 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "it counts leap seconds, as Unix time does not");
    is_good = is_good && take_block(&r, &h, h.version >= 2 ? 8 : 4, a, &z);
    if (is_good && h.version >= 2) is_good = take_footer(&r, &rule);
    if (!is_good)
        return error_set(err, STATUS_INVALID_ARGUMENT, "it is no compiled time zone (TZif), or cut off");
    enum status s = rule.len > 0 ? zone_rule_parse(rule, &z, err) : STATUS_OK;
    if (s == STATUS_OK) *ret_zone = z;
    return s;
}

/* ---- which offset when ---- */

/* How many transitions lie at or before unix_s. */
static size_t count_until(const struct zone *z, int64_t unix_s)
{
    size_t low = 0, high = z->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (z->transitions[middle].at_s <= unix_s)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct zone_span zone_span_at(const struct zone *z, int64_t unix_s)
{
    size_t n = count_until(z, unix_s);
    if (n == z->n && z->has_rule) {
        struct zone_span span = zone_rule_span(z, unix_s);
        if (n > 0 && span.begin_s < z->transitions[n - 1].at_s) span.begin_s = z->transitions[n - 1].at_s;
        return span;
    }
    return (struct zone_span){
        .begin_s = n > 0 ? z->transitions[n - 1].at_s : INT64_MIN,
        .end_s = n < z->n ? z->transitions[n].at_s : INT64_MAX,
        .offset_s = n > 0 ? z->transitions[n - 1].offset_s : z->first_offset_s,
    };
}
