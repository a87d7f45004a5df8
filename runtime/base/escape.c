#include "base/escape.h"

#include <endian.h>
#include <string.h>

#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

/* Of the eight bytes at `p`, how many stand before the first control character, '"', '\\' or byte that is not
 * ASCII? The zero-byte trick on three differences: a borrow can only raise a false alarm above a true one,
 * and the lowest counts. */
static size_t plain_of_eight(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    word = le64toh(word);
    uint64_t quote = word ^ (ONES * '"'), slash = word ^ (ONES * '\\');
    uint64_t alarm = ((word - ONES * 0x20) | (quote - ONES) | (slash - ONES) | word) & HIGHS;
    return alarm == 0 ? 8 : (size_t)__builtin_ctzll(alarm) / 8;
}

/* The same where fewer than eight are left; ret_word is them, with zeros behind. */
static size_t plain_of_tail(struct strview s, char ret_word[8])
{
    memset(ret_word, 0, 8);
    for (size_t i = 0; i < s.len; i++)
        ret_word[i] = s.ptr[i];
    return plain_of_eight(ret_word); /* a zero is a control character */
}

size_t json_plain_run(struct strview s)
{
    size_t i = 0;
    char word[8];
    for (;;) {
        bool is_tail = s.len - i < 8;
        size_t n = is_tail ? plain_of_tail(sv_n(s.ptr + i, s.len - i), word) : plain_of_eight(s.ptr + i);
        i += n;
        if (n == 8) continue;
        if (i == s.len || (unsigned char)s.ptr[i] < 0x80) return i;
        size_t len = sv_utf8_sequence(sv_n(s.ptr + i, s.len - i));
        if (len == 0) return i;
        i += len;
    }
}

/* The longest start of `s` of at most `max` bytes that does not end inside a character. */
static struct strview cut_between_characters(struct strview s, size_t max)
{
    if (s.len <= max) return s;
    size_t end = max; /* a lead byte is at most three before */
    while (end > 0 && max - end < 3 && ((unsigned char)s.ptr[end] & 0xC0) == 0x80)
        end--;
    return sv_n(s.ptr, end);
}

size_t json_plain_run_max(struct strview s, size_t max)
{
    return json_plain_run(cut_between_characters(s, max));
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
    case '\\':
        ret_text[1] = (char)c;
        return 2;
    case '\b':
        ret_text[1] = 'b';
        return 2;
    case '\f':
        ret_text[1] = 'f';
        return 2;
    case '\n':
        ret_text[1] = 'n';
        return 2;
    case '\r':
        ret_text[1] = 'r';
        return 2;
    case '\t':
        ret_text[1] = 't';
        return 2;
    default:
        break;
    }
    memcpy(ret_text + 1, "u00", 3);
    ret_text[4] = hex[c >> 4];
    ret_text[5] = hex[c & 15];
    return 6;
}

size_t json_escape_part(struct strview *s, char ret_text[JSON_ESCAPE_PART_MAX])
{
    struct strview part = cut_between_characters(*s, JSON_ESCAPE_PART);
    *s = sv_sub(*s, part.len, s->len);
    char *to = ret_text;
    while (part.len > 0) {
        char word[8];
        size_t n;
        if (part.len >= 8) {
            n = plain_of_eight(part.ptr);
            memcpy(to, part.ptr, 8); /* what is too much is overwritten */
        } else {
            n = plain_of_tail(part, word);
            memcpy(to, word, 8);
        }
        to += n;
        part = sv_n(part.ptr + n, part.len - n);
        if (n == 8 || part.len == 0) continue;
        n = (unsigned char)part.ptr[0] >= 0x80 ? sv_utf8_sequence(part) : 0;
        if (n > 0) {
            memcpy(to, part.ptr, n);
            to += n;
            part = sv_n(part.ptr + n, part.len - n);
        } else {
            to += json_escape_next(&part, to);
        }
    }
    return (size_t)(to - ret_text);
}
