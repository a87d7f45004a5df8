#include "base/escape.h"

#include <string.h>

#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

/* Is any of the eight bytes a control character, '"', '\\' or not ASCII? Zero-byte trick on three differences; a borrow
 * can only raise a false alarm in a byte above a true one, which costs nothing because any alarm ends the fast path. */
static bool word_needs_care(uint64_t word)
{
    uint64_t quote = word ^ (ONES * '"'), slash = word ^ (ONES * '\\');
    return (((word - ONES * 0x20) | (quote - ONES) | (slash - ONES) | word) & HIGHS) != 0;
}

size_t json_plain_run(struct strview s)
{
    size_t i = 0;
    while (i < s.len) {
        uint64_t word;
        while (s.len - i >= sizeof(word)) {
            memcpy(&word, s.ptr + i, sizeof(word));
            if (word_needs_care(word)) break;
            i += sizeof(word);
        }
        if (i >= s.len) break;
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == '"' || c == '\\') break;
        size_t len = sv_utf8_sequence(sv_n(s.ptr + i, s.len - i));
        if (len == 0) break;
        i += len;
    }
    return i;
}

size_t json_plain_run_max(struct strview s, size_t max)
{
    if (s.len <= max) return json_plain_run(s);
    /* Do not end inside a character: step back to its lead byte, which is at most three before. */
    size_t end = max;
    while (end > 0 && max - end < 3 && ((unsigned char)s.ptr[end] & 0xC0) == 0x80)
        end--;
    return json_plain_run(sv_n(s.ptr, end));
}

size_t json_escape_next(struct strview *s, char ret_text[JSON_ESCAPE_MAX])
{
    static const char hex[] = "0123456789ABCDEF";
    unsigned char c = (unsigned char)s->ptr[0];
    *s = sv_sub(*s, 1, s->len);
    if (c >= 0x80) {
        memcpy(ret_text, "\xEF\xBF\xBD", 3);
        return 3;
    }
    ret_text[0] = '\\';
    switch (c) {
    case '"':
    case '\\': ret_text[1] = (char)c; return 2;
    case '\b': ret_text[1] = 'b'; return 2;
    case '\f': ret_text[1] = 'f'; return 2;
    case '\n': ret_text[1] = 'n'; return 2;
    case '\r': ret_text[1] = 'r'; return 2;
    case '\t': ret_text[1] = 't'; return 2;
    default: break;
    }
    memcpy(ret_text + 1, "u00", 3);
    ret_text[4] = hex[c >> 4];
    ret_text[5] = hex[c & 15];
    return 6;
}
