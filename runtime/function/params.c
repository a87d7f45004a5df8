#include "function/params.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "config/bytes.h"
#include "config/config.h"
#include "config/quote.h"

/* ---- patterns ---- */

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_word(char c)
{
    return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '_' || c == '@';
}

static bool is_line(struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f) return false;
    return true;
}

static bool is_name(struct strview s)
{
    if (s.len == 0 || s.len > PARAM_NAME_MAX || !is_lower_or_digit(s.ptr[0]) ||
        !is_lower_or_digit(s.ptr[s.len - 1]))
        return false;
    for (size_t i = 1; i + 1 < s.len; i++) {
        bool is_dot = s.ptr[i] == '.';
        if (!is_lower_or_digit(s.ptr[i]) && s.ptr[i] != '-' && !is_dot) return false;
        if (is_dot && (!is_lower_or_digit(s.ptr[i - 1]) || !is_lower_or_digit(s.ptr[i + 1]))) return false;
    }
    return true;
}

static bool is_unit(struct strview s)
{
    if (s.len == 0 || s.len > PARAM_UNIT_MAX || !is_word(s.ptr[0])) return false;
    for (size_t i = 1; i < s.len; i++)
        if (!is_word(s.ptr[i]) && memchr(":.\\-", s.ptr[i], 4) == NULL) return false;
    return true;
}

static bool is_path_absolute(struct strview s)
{
    if (s.len == 0 || s.ptr[0] != '/' || !is_line(s)) return false;
    if (s.len == 1) return true;
    struct strview rest = sv_sub(s, 1, s.len), part;
    while (sv_next(&rest, '/', &part))
        if (part.len == 0 || sv_eq(part, SV(".")) || sv_eq(part, SV(".."))) return false;
    return true;
}

static bool is_url(struct strview s)
{
    size_t scheme = sv_starts_with(s, SV("http://")) ? 7 : sv_starts_with(s, SV("https://")) ? 8 : 0;
    if (scheme == 0) return false;
    size_t host_end = scheme;
    while (host_end < s.len && memchr("/?#", s.ptr[host_end], 3) == NULL)
        host_end++;
    struct strview host = sv_sub(s, scheme, host_end);
    if (host.len == 0 || host.ptr[0] == ':' || sv_find(host, '@') < host.len) return false;
    for (size_t i = scheme; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~') return false;
    return true;
}

bool param_pattern_matches(enum param_pattern pattern, struct strview text)
{
    switch (pattern) {
    case PARAM_ANY:
        return text.len == 0 || memchr(text.ptr, '\0', text.len) == NULL;
    case PARAM_LINE:
        return is_line(text);
    case PARAM_NAME:
        return is_name(text);
    case PARAM_UNIT:
        return is_unit(text);
    case PARAM_PATH_ABSOLUTE:
        return is_path_absolute(text);
    case PARAM_URL:
        return is_url(text);
    }
    return false;
}

static const char *pattern_words(enum param_pattern pattern)
{
    switch (pattern) {
    case PARAM_ANY:
        break;
    case PARAM_LINE:
        return "one line without control characters";
    case PARAM_NAME:
        return "a name of lower-case letters, digits, '-' and '.'";
    case PARAM_UNIT:
        return "a service's name";
    case PARAM_PATH_ABSOLUTE:
        return "an absolute path without empty, '.' or '..' parts";
    case PARAM_URL:
        return "an http:// or https:// URL without user and spaces";
    }
    return "a text without NUL";
}

/* ---- one parameter ---- */

static const char *type_words(enum param_type type)
{
    switch (type) {
    case PARAM_TEXT:
        return "a text";
    case PARAM_INTEGER:
        return "a whole number";
    case PARAM_BOOLEAN:
        return "true or false";
    case PARAM_DURATION:
        return "a duration such as 30s or 5m";
    case PARAM_BYTES:
        return "a size such as 64KiB or 8MiB";
    case PARAM_TEXT_LIST:
        return "a list of texts";
    }
    return "";
}

static enum status wrong_type(const struct param_field *f, const json_t *value, struct error *err)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a fraction",  [JSON_TRUE] = "true",    [JSON_FALSE] = "false",
        [JSON_NULL] = "null"};
    char text[QUOTE_MAX];
    if (json_is_string(value))
        return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s' must be %s, not '%s'", f->name,
                         type_words(f->type),
                         quote_text(sv_n(json_string_value(value), json_string_length(value)), text));
    return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s' must be %s, not %s", f->name,
                     type_words(f->type), names[json_typeof(value)]);
}

static const char *number_text(enum param_type type, int64_t value, char ret_text[DURATION_TEXT_MAX])
{
    if (type == PARAM_DURATION) return duration_format(value, ret_text);
    if (type == PARAM_BYTES) return bytes_format(value, ret_text);
    (void)snprintf(ret_text, DURATION_TEXT_MAX, "%" PRId64, value);
    return ret_text;
}

static enum status check_range(const struct param_field *f, int64_t value, const char *of_what,
                               struct error *err)
{
    char got[DURATION_TEXT_MAX], min[DURATION_TEXT_MAX], max[DURATION_TEXT_MAX];
    if (value >= f->min && value <= f->max) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s': %s%s is out of range (%s to %s)", f->name,
                     of_what, number_text(f->type, value, got), number_text(f->type, f->min, min),
                     number_text(f->type, f->max, max));
}

/* 52.0 and 1e3 are whole numbers too, to JSON Schema and to languages that know only one kind. */
static bool read_whole(const json_t *value, int64_t *ret_number)
{
    if (json_is_integer(value)) {
        *ret_number = json_integer_value(value);
        return true;
    }
    double real = json_real_value(value);
    if (!json_is_real(value) || !(real >= -9223372036854775808.0 && real < 9223372036854775808.0) ||
        (double)(int64_t)real != real)
        return false;
    *ret_number = (int64_t)real;
    return true;
}

static bool read_number(enum param_type type, const json_t *value, int64_t *ret_number)
{
    int64_t number;
    if (read_whole(value, &number)) {
        if (type == PARAM_DURATION && (number < 0 || __builtin_mul_overflow(number, NS_PER_S, &number)))
            return false;
        if (type == PARAM_BYTES && number < 0) return false;
        *ret_number = number;
        return true;
    }
    if (!json_is_string(value)) return false;
    struct strview text = sv_n(json_string_value(value), json_string_length(value));
    if (type == PARAM_DURATION) return duration_parse(text, ret_number) == STATUS_OK;
    if (type == PARAM_BYTES) return bytes_parse(text, ret_number) == STATUS_OK;
    return sv_parse_i64(text, ret_number) == STATUS_OK;
}

static enum status decode_number(const struct param_field *f, const json_t *value, int64_t *ret_number,
                                 struct error *err)
{
    int64_t number = 0;
    if (!read_number(f->type, value, &number)) return wrong_type(f, value, err);
    enum status s = check_range(f, number, "", err);
    if (s == STATUS_OK) *ret_number = number;
    return s;
}

static enum status decode_boolean(const struct param_field *f, const json_t *value, bool *ret_value,
                                  struct error *err)
{
    bool is_true =
        json_is_true(value) || (json_is_string(value) && strcmp(json_string_value(value), "true") == 0);
    bool is_false =
        json_is_false(value) || (json_is_string(value) && strcmp(json_string_value(value), "false") == 0);
    if (!is_true && !is_false) return wrong_type(f, value, err);
    *ret_value = is_true;
    return STATUS_OK;
}

static bool is_listed(const char *const *names, struct strview text)
{
    for (size_t i = 0; names[i] != NULL; i++)
        if (sv_eq(text, sv(names[i]))) return true;
    return false;
}

/* Pattern and allowed names; the length is the caller's. */
static enum status check_text(const struct param_field *f, struct strview text, struct error *err)
{
    char shown[QUOTE_MAX];
    if (!param_pattern_matches(f->pattern, text))
        return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s': '%s' is not %s", f->name,
                         quote_text(text, shown), pattern_words(f->pattern));
    if (f->names == NULL || is_listed(f->names, text)) return STATUS_OK;
    struct buf known;
    buf_init(&known, ERROR_MESSAGE_MAX / 2);
    for (size_t i = 0; f->names[i] != NULL; i++)
        buf_printf(&known, "%s%s", i > 0 ? ", " : "", f->names[i]);
    enum status s = error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s': '%s' is none of %.*s", f->name,
                              quote_text(text, shown), SV_ARG(buf_view(&known)));
    buf_release(&known);
    return s;
}

static enum status decode_text(const struct param_field *f, const json_t *value, struct arena *a,
                               struct strview *ret_text, struct error *err)
{
    if (!json_is_string(value)) return wrong_type(f, value, err);
    struct strview text = sv_n(json_string_value(value), json_string_length(value));
    enum status s = check_range(f, (int64_t)text.len, "a length of ", err);
    if (s == STATUS_OK) s = check_text(f, text, err);
    if (s == STATUS_OK) *ret_text = arena_copy(a, text);
    return s;
}

static enum status decode_text_list(const struct param_field *f, const json_t *value, struct arena *a,
                                    struct param_text_list *ret_list, struct error *err)
{
    if (!json_is_array(value)) return wrong_type(f, value, err);
    struct param_text_list list = {.n = json_array_size(value)};
    enum status s = check_range(f, (int64_t)list.n, "a count of ", err);
    if (s != STATUS_OK) return s;
    list.items = arena_array(a, list.n, sizeof(*list.items));
    for (size_t i = 0; i < list.n; i++) {
        const json_t *item = json_array_get(value, i);
        if (!json_is_string(item))
            return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s': entry %zu is no text", f->name,
                             i + 1);
        struct strview text = sv_n(json_string_value(item), json_string_length(item));
        if (text.len > PARAM_TEXT_MAX)
            return error_set(err, STATUS_INVALID_ARGUMENT,
                             "parameter '%s': entry %zu has %zu bytes; at most %d are taken", f->name, i + 1,
                             text.len, PARAM_TEXT_MAX);
        s = check_text(f, text, err);
        if (s != STATUS_OK) return s;
        list.items[i] = arena_copy(a, text);
    }
    *ret_list = list;
    return STATUS_OK;
}

static enum status decode_field(const struct param_field *f, const json_t *value, struct arena *a,
                                void *ret_params, struct error *err)
{
    void *member = (char *)ret_params + f->offset;
    switch (f->type) {
    case PARAM_TEXT:
        return decode_text(f, value, a, member, err);
    case PARAM_INTEGER:
    case PARAM_DURATION:
    case PARAM_BYTES:
        return decode_number(f, value, member, err);
    case PARAM_BOOLEAN:
        return decode_boolean(f, value, member, err);
    case PARAM_TEXT_LIST:
        return decode_text_list(f, value, a, member, err);
    }
    return STATUS_INTERNAL;
}

/* ---- all of them ---- */

static enum status unknown_parameter(const char *function, const struct param_field *fields, size_t n,
                                     const char *name, struct arena *a, struct error *err)
{
    char shown[QUOTE_MAX];
    const char **names = arena_array(a, n, sizeof(*names));
    for (size_t i = 0; i < n; i++)
        names[i] = fields[i].name;
    const char *nearest = config_nearest(name, names, n);
    if (nearest == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s' is not known to %s",
                         quote_text(sv(name), shown), function);
    return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s' is not known to %s (did you mean '%s'?)",
                     quote_text(sv(name), shown), function, nearest);
}

static const struct param_field *find_field(const struct param_field *fields, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(fields[i].name, name) == 0) return &fields[i];
    return NULL;
}

enum status params_decode(const char *function, const struct param_field *fields, size_t n,
                          const json_t *body, struct arena *a, void *ret_params, struct error *err)
{
    if (body != NULL && !json_is_object(body))
        return error_set(err, STATUS_INVALID_ARGUMENT, "the parameters of %s must be a JSON object",
                         function);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    { /* jansson's iterators want it mutable; nothing is changed */
        const struct param_field *f = find_field(fields, n, name);
        if (f == NULL) return unknown_parameter(function, fields, n, name, a, err);
        enum status s = decode_field(f, value, a, ret_params, err);
        if (s != STATUS_OK) return s;
    }
    for (size_t i = 0; i < n; i++)
        if (fields[i].is_required && (body == NULL || json_object_get(body, fields[i].name) == NULL))
            return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%s' of %s is missing", fields[i].name,
                             function);
    return STATUS_OK;
}
