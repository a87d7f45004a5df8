#include "base/json_scan.h"

#include <string.h>

#include "base/escape.h"
#include "base/json.h"

_Static_assert(JSON_DEPTH_MAX <= 64, "json_scan_value() keeps one bit a level");

void json_scan_init(struct json_scan *s, struct strview text, struct arena *a)
{
    const char *start = text.len ? text.ptr : "";
    *s = (struct json_scan){.start = start, .at = start, .end = start + text.len, .arena = a};
}

bool json_scan_failed(const struct json_scan *s)
{
    return s->problem != NULL;
}

bool json_scan_fail(struct json_scan *s, const char *problem)
{
    if (s->problem == NULL) s->problem = problem;
    return false;
}

static struct strview rest_of(const struct json_scan *s)
{
    return sv_n(s->at, (size_t)(s->end - s->at));
}

char json_scan_peek(struct json_scan *s)
{
    while (s->at < s->end) {
        char c = *s->at;
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
        s->at++;
    }
    return '\0';
}

/* Says what was found instead, because a sender wants to know whether it was cut or wrong. */
static bool fail_expected(struct json_scan *s, const char *problem)
{
    return json_scan_fail(s, s->at >= s->end ? "the text ends too early" : problem);
}

static bool deeper(struct json_scan *s)
{
    if (s->depth >= JSON_DEPTH_MAX) return json_scan_fail(s, "nested too deep");
    s->depth++;
    s->at++;
    return true;
}

bool json_scan_open(struct json_scan *s, char bracket)
{
    if (s->problem != NULL) return false;
    if (json_scan_peek(s) != bracket)
        return fail_expected(s, bracket == '{' ? "an object is expected" : "an array is expected");
    return deeper(s);
}

/* Before a member or element: false at `closing` (consumed) or on error. */
static bool follows(struct json_scan *s, bool *is_first, char closing)
{
    if (s->problem != NULL) return false;
    char c = json_scan_peek(s);
    if (c == closing && s->at < s->end) {
        s->at++;
        s->depth--;
        return false;
    }
    if (*is_first) {
        *is_first = false;
        return true;
    }
    if (c != ',')
        return fail_expected(s, closing == '}' ? "',' or '}' is expected" : "',' or ']' is expected");
    s->at++;
    /* RFC 8259 has no trailing comma. */
    if (json_scan_peek(s) == closing) return fail_expected(s, "a value is expected after ','");
    return true;
}

static bool scan_hex4(struct json_scan *s, uint32_t *ret_value)
{
    if (s->end - s->at < 4) return json_scan_fail(s, "the text ends too early");
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = s->at[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint32_t)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t)(c - 'A') + 10;
        else
            return json_scan_fail(s, "four hex digits are expected after \\u");
        value = value << 4 | digit;
    }
    s->at += 4;
    *ret_value = value;
    return true;
}

/* After "\u": one code point, of which surrogates take two escapes. */
static bool scan_code_point(struct json_scan *s, uint32_t *ret_point)
{
    uint32_t high, low;
    if (!scan_hex4(s, &high)) return false;
    *ret_point = high;
    if (high < 0xD800 || high > 0xDFFF) return true;
    if (high >= 0xDC00 || s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
        return json_scan_fail(s, "half of a surrogate pair");
    s->at += 2;
    if (!scan_hex4(s, &low)) return false;
    if (low < 0xDC00 || low > 0xDFFF) return json_scan_fail(s, "half of a surrogate pair");
    *ret_point = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    return true;
}

static size_t put_utf8(uint32_t point, char *to)
{
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (char)(0xC0 | point >> 6);
        to[1] = (char)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (char)(0xE0 | point >> 12);
        to[1] = (char)(0x80 | (point >> 6 & 0x3F));
        to[2] = (char)(0x80 | (point & 0x3F));
        return 3;
    }
    to[0] = (char)(0xF0 | point >> 18);
    to[1] = (char)(0x80 | (point >> 12 & 0x3F));
    to[2] = (char)(0x80 | (point >> 6 & 0x3F));
    to[3] = (char)(0x80 | (point & 0x3F));
    return 4;
}

/* At a backslash. `to` may be NULL (only checking). */
static bool scan_escape(struct json_scan *s, char *to, size_t *ret_len)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (s->end - s->at < 2) return json_scan_fail(s, "the text ends too early");
    char c = s->at[1];
    const char *known = c ? strchr(letters, c) : NULL;
    if (known != NULL) {
        s->at += 2;
        if (to != NULL) *to = meanings[known - letters];
        *ret_len = 1;
        return true;
    }
    if (c != 'u') return json_scan_fail(s, "unknown escape");
    s->at += 2;
    uint32_t point;
    char bytes[4];
    if (!scan_code_point(s, &point)) return false;
    *ret_len = put_utf8(point, to ? to : bytes);
    return true;
}

/* Why a run of plain characters ended, where it was neither at a quote nor at a backslash. */
static bool fail_in_string(struct json_scan *s)
{
    if (s->at >= s->end) return json_scan_fail(s, "the text ends within a string");
    return json_scan_fail(s,
                          (unsigned char)*s->at < 0x20 ? "control character in a string" : "invalid UTF-8");
}

/* The cursor is behind the opening quote. Two passes: the first checks and measures, so that the copy takes
 * exactly what it needs whatever a sender escapes. */
static bool scan_escaped(struct json_scan *s, struct strview *ret_text)
{
    const char *start = s->at;
    size_t len = 0;
    for (;;) {
        size_t run = json_plain_run(rest_of(s)), n = 0;
        s->at += run;
        len += run;
        if (s->at >= s->end || (*s->at != '"' && *s->at != '\\')) return fail_in_string(s);
        if (*s->at == '"') break;
        if (!scan_escape(s, NULL, &n)) return false;
        len += n;
    }
    const char *end = s->at;
    if (ret_text != NULL) {
        char *copy = arena_alloc(s->arena, len + 1), *to = copy;
        for (s->at = start; s->at < end;) {
            const char *escape = memchr(s->at, '\\', (size_t)(end - s->at));
            size_t run = (size_t)((escape ? escape : end) - s->at), n = 0;
            memcpy(to, s->at, run);
            to += run;
            s->at += run;
            if (escape == NULL || !scan_escape(s, to, &n)) break;
            to += n;
        }
        *ret_text = sv_n(copy, (size_t)(to - copy));
    }
    s->at = end + 1;
    return true;
}

/* ret_text NULL: only check. */
static bool scan_string(struct json_scan *s, struct strview *ret_text)
{
    if (s->problem != NULL) return false;
    if (json_scan_peek(s) != '"') return fail_expected(s, "a string is expected");
    s->at++;
    size_t run = json_plain_run(rest_of(s));
    if (s->at + run < s->end && s->at[run] == '"') {
        if (ret_text != NULL) *ret_text = sv_n(s->at, run);
        s->at += run + 1;
        return true;
    }
    return scan_escaped(s, ret_text);
}

bool json_scan_string(struct json_scan *s, struct strview *ret_text)
{
    return scan_string(s, ret_text);
}

static bool scan_name(struct json_scan *s, struct strview *ret_name)
{
    if (json_scan_peek(s) != '"') return fail_expected(s, "a member name in quotes is expected");
    if (!scan_string(s, ret_name)) return false;
    if (json_scan_peek(s) != ':') return fail_expected(s, "':' is expected");
    s->at++;
    return true;
}

bool json_scan_member(struct json_scan *s, bool *is_first, struct strview *ret_name)
{
    return follows(s, is_first, '}') && scan_name(s, ret_name);
}

bool json_scan_element(struct json_scan *s, bool *is_first)
{
    return follows(s, is_first, ']');
}

static bool is_digit_at(const struct json_scan *s)
{
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

static bool scan_digits(struct json_scan *s)
{
    if (!is_digit_at(s)) return fail_expected(s, "a digit is expected");
    while (is_digit_at(s))
        s->at++;
    return true;
}

/* '-' and the whole part: no leading zeros. */
static bool scan_whole(struct json_scan *s)
{
    if (s->at < s->end && *s->at == '-') s->at++;
    if (s->at < s->end && *s->at == '0') {
        s->at++;
        if (is_digit_at(s)) return json_scan_fail(s, "a number has a leading zero");
        return true;
    }
    return scan_digits(s);
}

static bool scan_number(struct json_scan *s)
{
    if (!scan_whole(s)) return false;
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        if (!scan_digits(s)) return false;
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-')) s->at++;
        if (!scan_digits(s)) return false;
    }
    return true;
}

bool json_scan_integer(struct json_scan *s, struct strview *ret_digits)
{
    if (s->problem != NULL) return false;
    (void)json_scan_peek(s);
    const char *start = s->at;
    if (!scan_whole(s)) return false;
    if (s->at < s->end && (*s->at == '.' || *s->at == 'e' || *s->at == 'E'))
        return json_scan_fail(s, "an integer is expected");
    *ret_digits = sv_n(start, (size_t)(s->at - start));
    return true;
}

static bool scan_word(struct json_scan *s, struct strview word)
{
    if (!sv_starts_with(rest_of(s), word)) return fail_expected(s, "a value is expected");
    s->at += word.len;
    return true;
}

bool json_scan_bool(struct json_scan *s, bool *ret_value)
{
    if (s->problem != NULL) return false;
    bool is_true = json_scan_peek(s) == 't';
    if (!scan_word(s, is_true ? SV("true") : SV("false"))) {
        if (s->at < s->end) s->problem = "true or false is expected";
        return false;
    }
    *ret_value = is_true;
    return true;
}

/* A value that opens nothing. */
static bool scan_scalar(struct json_scan *s, char c)
{
    switch (c) {
    case '"':
        return scan_string(s, NULL);
    case 't':
        return scan_word(s, SV("true"));
    case 'f':
        return scan_word(s, SV("false"));
    case 'n':
        return scan_word(s, SV("null"));
    default:
        break;
    }
    if (c != '-' && (c < '0' || c > '9')) return fail_expected(s, "a value is expected");
    return scan_number(s);
}

bool json_scan_value(struct json_scan *s, struct strview *ret_raw)
{
    if (s->problem != NULL) return false;
    (void)json_scan_peek(s);
    const char *start = s->at;
    unsigned outer = s->depth;
    uint64_t is_object = 0; /* one bit an open bracket of this value, the innermost in bit 0 */
    do {
        char c = json_scan_peek(s);
        bool is_first = c == '{' || c == '[';
        if (is_first) {
            if (!deeper(s)) return false;
            is_object = is_object << 1 | (c == '{');
        } else if (!scan_scalar(s, c)) {
            return false;
        }
        /* Close all that ends here, up to the next value to read. */
        while (s->depth > outer && !follows(s, &is_first, is_object & 1 ? '}' : ']')) {
            if (s->problem != NULL) return false;
            is_object >>= 1;
            is_first = false;
        }
        if (s->depth > outer && (is_object & 1) && !scan_name(s, NULL)) return false;
    } while (s->depth > outer);
    if (ret_raw != NULL) *ret_raw = sv_n(start, (size_t)(s->at - start));
    return true;
}

bool json_scan_end(struct json_scan *s)
{
    if (s->problem != NULL) return false;
    (void)json_scan_peek(s);
    return s->at == s->end || json_scan_fail(s, "something follows the end of the value");
}

void json_scan_position(const struct json_scan *s, const char *at, size_t *ret_line, size_t *ret_column)
{
    *ret_line = *ret_column = 1;
    for (const char *p = s->start; p < at; p++) {
        if (*p == '\n') {
            ++*ret_line;
            *ret_column = 1;
        } else if (((unsigned char)*p & 0xC0) != 0x80) {
            ++*ret_column;
        }
    }
}
