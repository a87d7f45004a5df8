#include "base/json.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"

struct position {
    size_t line, column; /* from 1; columns count characters, as jansson's messages do */
};

static struct position position_of(struct strview text, size_t at)
{
    struct position p = {1, 1};
    for (size_t i = 0; i < at; i++) {
        if (text.ptr[i] == '\n') {
            p.line++;
            p.column = 1;
        } else if (((unsigned char)text.ptr[i] & 0xC0) != 0x80) {
            p.column++;
        }
    }
    return p;
}

/* Index of the bracket that opens level JSON_DEPTH_MAX + 1, or text.len. Brackets in strings do not count. Text that is
 * no JSON may be judged wrongly, but never as flatter than jansson would find it before it stops. */
static size_t find_too_deep(struct strview text)
{
    size_t depth = 0;
    bool is_in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (is_in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                is_in_string = false;
        } else if (c == '"') {
            is_in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_DEPTH_MAX) return i;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return text.len;
}

static size_t find_bad_utf8(struct strview text)
{
    size_t i = 0;
    while (i < text.len) {
        size_t n = sv_utf8_sequence(sv_sub(text, i, text.len));
        if (n == 0) return i;
        i += n;
    }
    return i;
}

enum status json_parse(struct strview text, size_t flags, json_t **ret_value, struct error *err)
{
    size_t deep = find_too_deep(text);
    if (deep < text.len) {
        struct position p = position_of(text, deep);
        return error_set(err, STATUS_INVALID_ARGUMENT, "JSON: nested deeper than %d levels at line %zu column %zu",
                         JSON_DEPTH_MAX, p.line, p.column);
    }
    if (!sv_is_utf8(text)) {
        size_t at = find_bad_utf8(text);
        struct position p = position_of(text, at);
        return error_set(err, STATUS_INVALID_ARGUMENT, "JSON: invalid UTF-8 (byte 0x%02x) at line %zu column %zu",
                         (unsigned)(unsigned char)text.ptr[at], p.line, p.column);
    }
    json_error_t why;
    json_t *value = json_loadb(text.len ? text.ptr : "", text.len, flags, &why);
    if (value == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "JSON: %s at line %d column %d", why.text, why.line, why.column);
    *ret_value = value;
    return STATUS_OK;
}

static int append_piece(const char *bytes, size_t n, void *arg)
{
    struct buf *b = arg;
    buf_append(b, sv_n(bytes, n));
    return b->is_full ? -1 : 0;
}

void json_append_canonical(struct buf *b, const json_t *value)
{
    size_t start = b->len;
    if (json_dump_callback(value, append_piece, b, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) == 0) return;
    b->is_full = true;
    b->len = start;
}

struct strview json_canonical(struct arena *a, const json_t *value)
{
    struct buf b;
    buf_init(&b, SIZE_MAX - 1);
    json_append_canonical(&b, value);
    struct strview copy = arena_copy(a, buf_view(&b));
    buf_release(&b);
    return copy;
}

struct strview json_get_text(const json_t *object, const char *key)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_string(member)) return (struct strview){NULL, 0};
    return sv_n(json_string_value(member), json_string_length(member));
}

void json_release(json_t *value)
{
    json_decref(value);
}

json_t *json_text(struct strview s)
{
    json_t *value = json_stringn(s.len ? s.ptr : "", s.len);
    if (value != NULL) return value;
    struct buf repaired;
    buf_init(&repaired, SIZE_MAX - 1);
    while (s.len > 0) {
        size_t n = sv_utf8_sequence(s);
        buf_append(&repaired, n ? sv_sub(s, 0, n) : SV("\xEF\xBF\xBD"));
        s = sv_sub(s, n ? n : 1, s.len);
    }
    value = json_stringn_nocheck(buf_view(&repaired).ptr, repaired.len);
    if (value == NULL) mem_exhausted(repaired.len);
    buf_release(&repaired);
    return value;
}
