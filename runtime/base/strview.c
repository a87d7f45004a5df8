#include "base/strview.h"

#include "base/memory.h"

#include <string.h>

struct strview sv(const char *s)
{
    if (s == NULL) return (struct strview){NULL, 0};
    return (struct strview){s, strlen(s)};
}

static unsigned char lower(char c)
{
    unsigned char u = (unsigned char)c;
    return u >= 'A' && u <= 'Z' ? (unsigned char)(u + ('a' - 'A')) : u;
}

bool sv_eq_nocase_n(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (lower(a[i]) != lower(b[i])) return false;
    return true;
}

int sv_cmp(struct strview a, struct strview b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n ? memcmp(a.ptr, b.ptr, n) : 0;
    if (order != 0) return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

bool sv_starts_with(struct strview s, struct strview prefix)
{
    return s.len >= prefix.len && sv_eq(sv_sub(s, 0, prefix.len), prefix);
}

bool sv_ends_with(struct strview s, struct strview suffix)
{
    return s.len >= suffix.len && sv_eq(sv_sub(s, s.len - suffix.len, s.len), suffix);
}

size_t sv_find(struct strview s, char c)
{
    const char *at = s.len ? memchr(s.ptr, c, s.len) : NULL;
    return at ? (size_t)(at - s.ptr) : s.len;
}

bool sv_contains(struct strview s, struct strview needle)
{
    if (needle.len == 0) return true;
    return s.len >= needle.len && memmem(s.ptr, s.len, needle.ptr, needle.len) != NULL;
}

struct strview sv_sub(struct strview s, size_t from, size_t to)
{
    if (to > s.len) to = s.len;
    if (from > to) from = to;
    if (s.ptr == NULL) return s;
    return (struct strview){s.ptr + from, to - from};
}

struct strview sv_put(char **at, struct strview s)
{
    struct strview copy = {*at, s.len};
    if (s.len > 0) memcpy(*at, s.ptr, s.len);
    *at += s.len;
    return copy;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct strview sv_trim(struct strview s)
{
    size_t from = 0, to = s.len;
    while (from < to && is_space(s.ptr[from]))
        from++;
    while (to > from && is_space(s.ptr[to - 1]))
        to--;
    return sv_sub(s, from, to);
}

bool sv_next(struct strview *rest, char sep, struct strview *ret_part)
{
    if (rest->ptr == NULL) return false;
    size_t at = sv_find(*rest, sep);
    *ret_part = sv_sub(*rest, 0, at);
    *rest = at < rest->len ? sv_sub(*rest, at + 1, rest->len) : (struct strview){NULL, 0};
    return true;
}

enum status sv_parse_u64(struct strview s, uint64_t *ret_value)
{
    if (s.len == 0) return STATUS_INVALID_ARGUMENT;
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') return STATUS_INVALID_ARGUMENT;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.ptr[i] - '0'), &value))
            return STATUS_INVALID_ARGUMENT;
    }
    *ret_value = value;
    return STATUS_OK;
}

enum status sv_parse_i64(struct strview s, int64_t *ret_value)
{
    bool is_negative = s.len > 0 && s.ptr[0] == '-';
    uint64_t magnitude;
    if (sv_parse_u64(sv_sub(s, is_negative, s.len), &magnitude) != STATUS_OK) return STATUS_INVALID_ARGUMENT;
    if (magnitude > (uint64_t)INT64_MAX + is_negative) return STATUS_INVALID_ARGUMENT;
    /* The minimum has no positive twin: negate in a way that never forms it. */
    if (is_negative && magnitude > 0)
        *ret_value = -(int64_t)(magnitude - 1) - 1;
    else
        *ret_value = (int64_t)magnitude;
    return STATUS_OK;
}

struct strview sv_u64(uint64_t v, char digits[SV_U64_MAX])
{
    size_t at = SV_U64_MAX;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return sv_n(digits + at, SV_U64_MAX - at);
}

bool sv_eq_constant_time(struct strview a, struct strview b)
{
    /* With lengths that differ b is compared with itself, so that the work is the same. */
    const volatile char *left = a.len == b.len ? a.ptr : b.ptr;
    const volatile char *right = b.ptr;
    unsigned char difference = a.len != b.len;
    for (size_t i = 0; i < b.len; i++)
        difference |= (unsigned char)(left[i] ^ right[i]);
    return difference == 0;
}

size_t sv_utf8_sequence(struct strview s)
{
    /* Table 3-7 of the Unicode standard: the second byte's range excludes overlong forms, surrogates and >
     * U+10FFFF. */
    if (s.len == 0) return 0;
    const unsigned char *p = (const unsigned char *)s.ptr;
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    size_t len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (s.len < len) return 0;
    unsigned char low = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return len;
}

char *sv_heap_copy(struct strview s)
{
    char *copy = mem_alloc(s.len + 1);
    if (s.len > 0) memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

bool sv_is_dns_label(struct strview s)
{
    bool is_fine = s.len > 0 && s.len <= SV_DNS_LABEL_MAX && s.ptr[0] != '-' && s.ptr[s.len - 1] != '-';
    for (size_t i = 0; i < s.len && is_fine; i++) {
        char c = s.ptr[i];
        is_fine = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    }
    return is_fine;
}

bool sv_is_utf8(struct strview s)
{
    size_t i = 0;
    while (i < s.len) {
        uint64_t word;
        if (s.len - i >= sizeof(word)) { /* eight ASCII bytes at a time */
            memcpy(&word, s.ptr + i, sizeof(word));
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(word);
                continue;
            }
        }
        size_t len = sv_utf8_sequence(sv_n(s.ptr + i, s.len - i));
        if (len == 0) return false;
        i += len;
    }
    return true;
}
