#include "functions/audit/logql_scan.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 64

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

char logql_peek(struct logql_scan *s)
{
    for (; s->at < s->text.len; s->at++) {
        char c = s->text.ptr[s->at];
        if (c == '#')
            s->at += sv_find(sv_sub(s->text, s->at, s->text.len), '\n');
        else if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
            return c;
    }
    s->at = s->text.len;
    return '\0';
}

bool logql_take(struct logql_scan *s, const char *word)
{
    (void)logql_peek(s);
    struct strview rest = sv_sub(s->text, s->at, s->text.len), w = sv(word);
    if (!sv_starts_with(rest, w)) return false;
    if (is_letter(word[0]) && rest.len > w.len && (is_letter(rest.ptr[w.len]) || is_digit(rest.ptr[w.len])))
        return false;
    s->at += w.len;
    return true;
}

enum status logql_fail(struct logql_scan *s, const char *fmt, ...)
{
    char what[ERROR_MESSAGE_MAX];
    size_t line = 1, column = 1;
    (void)logql_peek(s);
    for (size_t i = 0; i < s->at; i++) {
        column = s->text.ptr[i] == '\n' ? 1 : column + 1;
        line += s->text.ptr[i] == '\n';
    }
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return error_set(s->err, STATUS_INVALID_ARGUMENT, "parse error at line %zu, col %zu: %s", line, column,
                     what);
}

bool logql_identifier(struct logql_scan *s, struct strview *ret_name)
{
    if (!is_letter(logql_peek(s))) return false;
    size_t end = s->at;
    while (end < s->text.len && (is_letter(s->text.ptr[end]) || is_digit(s->text.ptr[end])))
        end++;
    *ret_name = sv_sub(s->text, s->at, end);
    s->at = end;
    return true;
}

/* ---- texts ---- */

static size_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(lead[n] | c);
    return n;
}

/* `n` digits of base 8 or 16 at `at`. */
static bool take_digits(struct strview t, size_t at, size_t n, unsigned base, uint32_t *ret_value)
{
    uint32_t value = 0;
    if (at + n > t.len) return false;
    for (size_t i = at; i < at + n; i++) {
        char c = t.ptr[i];
        unsigned digit = is_digit(c)            ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 99;
        if (digit >= base) return false;
        value = value * base + digit;
    }
    *ret_value = value;
    return true;
}

/* One escape behind the backslash at *at, as Go's strconv.Unquote reads it. Returns how many bytes it gives,
 * 0: not an escape. */
static size_t unescape(struct strview t, size_t *at, char out[4])
{
    static const char names[] = "abfnrtv\\\"", values[] = "\a\b\f\n\r\t\v\\\"";
    uint32_t value = 0;
    if (*at >= t.len || t.ptr[*at] == '\0') return 0;
    char c = t.ptr[*at];
    const char *simple = strchr(names, c);
    if (simple != NULL) {
        out[0] = values[simple - names];
        (*at)++;
        return 1;
    }
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) { /* \101 */
        if (!take_digits(t, *at, 3, 8, &value) || value > 255) return 0;
        *at += 3;
        out[0] = (char)value;
        return 1;
    }
    if (!take_digits(t, *at + 1, digits, 16, &value)) return 0;
    *at += 1 + digits;
    if (c == 'x') {
        out[0] = (char)value;
        return 1;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return 0;
    return utf8_encode(value, out);
}

static enum status quoted_text(struct logql_scan *s, struct strview *ret_text)
{
    char *out = arena_alloc(s->arena, s->text.len - s->at + 1);
    size_t n = 0, at = s->at + 1;
    while (at < s->text.len && s->text.ptr[at] != '"' && s->text.ptr[at] != '\n') {
        if (s->text.ptr[at] != '\\') {
            out[n++] = s->text.ptr[at++];
            continue;
        }
        char bytes[4];
        at++;
        size_t given = unescape(s->text, &at, bytes);
        if (given == 0) return logql_fail(s, "invalid char escape");
        memcpy(out + n, bytes, given); /* never more than it took */
        n += given;
    }
    if (at >= s->text.len || s->text.ptr[at] != '"') return logql_fail(s, "literal not terminated");
    s->at = at + 1;
    *ret_text = sv_n(out, n);
    return STATUS_OK;
}

enum status logql_text(struct logql_scan *s, struct strview *ret_text)
{
    char c = logql_peek(s);
    if (c == '"') return quoted_text(s, ret_text);
    if (c != '`')
        return logql_fail(s, "syntax error: unexpected %s, expecting STRING", c == '\0' ? "$end" : "input");
    struct strview rest = sv_sub(s->text, s->at + 1, s->text.len);
    size_t end = sv_find(rest, '`');
    if (end == rest.len) return logql_fail(s, "literal not terminated");
    *ret_text = sv_n(rest.ptr, end);
    s->at += end + 2;
    return STATUS_OK;
}

bool logql_number(struct logql_scan *s, double *ret_number)
{
    char text[NUMBER_MAX];
    size_t n = 0;
    char c = logql_peek(s);
    if (!is_digit(c) && c != '.') return false;
    for (; s->at + n < s->text.len && n < sizeof(text) - 1; n++) {
        c = s->text.ptr[s->at + n];
        bool is_sign = (c == '+' || c == '-') && n > 0 && (text[n - 1] == 'e' || text[n - 1] == 'E');
        if (!is_digit(c) && c != '.' && c != 'e' && c != 'E' && !is_sign) break;
        text[n] = c;
    }
    text[n] = '\0';
    char *end = NULL;
    *ret_number = strtod(text, &end);
    if (end != text + n) return false;
    s->at += n;
    return true;
}
