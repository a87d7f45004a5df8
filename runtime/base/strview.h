/* A borrowed piece of text: pointer and length, never assumed to be NUL-terminated. By value everywhere.
 * The zeroed view is the empty string. Literals: SV("…"). Printing: printf("%.*s", SV_ARG(s)).
 * Models: haproxy's ist, h2o_iovec_t. */
#ifndef BALM_BASE_STRVIEW_H
#define BALM_BASE_STRVIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"

struct strview {
    const char *ptr;
    size_t len;
};

#define SV(literal) ((struct strview){(literal), sizeof(literal) - 1})
#define SV_ARG(s)   (int)(s).len, (s).ptr

/* View of a C string; NULL gives the empty view. Borrowed from `s`. */
struct strview sv(const char *s);
static inline struct strview sv_n(const char *ptr, size_t len)
{
    return (struct strview){ptr, len};
}
static inline bool sv_eq(struct strview a, struct strview b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
/* The same but for the case of ASCII letters. */
bool sv_eq_nocase_n(const char *a, const char *b, size_t len);
static inline bool sv_eq_nocase(struct strview a, struct strview b)
{
    return a.len == b.len && sv_eq_nocase_n(a.ptr, b.ptr, a.len);
}
/* Byte order (unsigned), shorter first on a tie: <0, 0, >0. */
int sv_cmp(struct strview a, struct strview b);
bool sv_starts_with(struct strview s, struct strview prefix);
bool sv_ends_with(struct strview s, struct strview suffix);
/* Index of the first `c`, or s.len where there is none. */
size_t sv_find(struct strview s, char c);
/* True if `needle` occurs; the empty needle always does. */
bool sv_contains(struct strview s, struct strview needle);
/* Part [from, to), clamped to s. */
struct strview sv_sub(struct strview s, size_t from, size_t to);
/* Copies s to *at and moves *at past it: several texts in one allocation. Returns the copy. */
struct strview sv_put(char **at, struct strview s);
/* On the heap, with a NUL that is not counted; freed by free(). */
char *sv_heap_copy(struct strview s);
/* Without leading and trailing ASCII white space. */
struct strview sv_trim(struct strview s);
/* Cut the part before the first `sep` off *rest (the separator goes too). At the end *rest becomes {NULL,0}
 * and false is returned once nothing is left: while (sv_next(&rest, ',', &part)) … Empty parts count: "a,"
 * has two, "" (with a pointer) has one empty part, {NULL,0} has none. */
bool sv_next(struct strview *rest, char sep, struct strview *ret_part);
/* Decimal digits only (i64: after at most one '-'), no '+', no space, no overflow. STATUS_INVALID_ARGUMENT
 * otherwise. */
enum status sv_parse_u64(struct strview s, uint64_t *ret_value) MUST_USE;
enum status sv_parse_i64(struct strview s, int64_t *ret_value) MUST_USE;
#define SV_U64_MAX 20
/* v in decimal digits, at the end of `digits`: borrowed from there. For where printf costs too much. */
struct strview sv_u64(uint64_t v, char digits[SV_U64_MAX]);
/* Length and content are compared in time that depends on len(b) alone: for secrets. */
bool sv_eq_constant_time(struct strview a, struct strview b);
/* Length 1 … 4 of the well-formed UTF-8 sequence `s` starts with; 0 if it starts with none or is empty. */
size_t sv_utf8_sequence(struct strview s);
#define SV_DNS_LABEL_MAX 63
/* RFC 1123: lower-case letters, digits and inner '-', at most SV_DNS_LABEL_MAX of them. */
bool sv_is_dns_label(struct strview s);
/* Well-formed UTF-8 (no surrogates, no overlong forms, ≤ U+10FFFF)? */
bool sv_is_utf8(struct strview s);

#endif
