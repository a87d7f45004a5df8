/* Looking through header text eight bytes at a time: this is done to every request and answer. */
#ifndef BALM_SERVER_HTTP_TEXT_H
#define BALM_SERVER_HTTP_TEXT_H

#include <stdint.h>
#include <string.h>

#include "base/strview.h"

/* Is one of the eight bytes below `limit` (≤ 128)? Exact; a byte of 128 or more is not. Source: "Bit
 * Twiddling Hacks", hasless(). */
static inline bool word_has_byte_below(const char *at, unsigned char limit)
{
    uint64_t word, ones = UINT64_C(0x0101010101010101);
    memcpy(&word, at, sizeof(word));
    return ((word - ones * limit) & ~word & (ones * 0x80)) != 0;
}

static inline bool has_byte_below(struct strview s, unsigned char limit)
{
    if (s.len < 8) {
        for (size_t i = 0; i < s.len; i++) {
            if ((unsigned char)s.ptr[i] < limit) return true;
        }
        return false;
    }
    for (size_t i = 0; i + 8 <= s.len; i += 8) {
        if (word_has_byte_below(s.ptr + i, limit)) return true;
    }
    return word_has_byte_below(s.ptr + s.len - 8, limit); /* the rest, with some bytes seen twice */
}

/* No blanks and no control characters: what a target, a host or a method may consist of at most. */
static inline bool is_visible_text(struct strview s)
{
    return !has_byte_below(s, ' ' + 1) && (s.len == 0 || memchr(s.ptr, 0x7f, s.len) == NULL);
}

/* No control characters but the tab: what a header's name or value may consist of at most. A line end there
 * would let whoever chose it write headers and bodies of his own. */
static inline bool is_header_text(struct strview s)
{
    if (!has_byte_below(s, ' ')) return true;
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] < ' ' && s.ptr[i] != '\t') return false;
    }
    return true;
}

#endif
