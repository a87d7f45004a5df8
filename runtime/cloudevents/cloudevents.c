#include "cloudevents/cloudevents.h"

#include "base/list.h"
#include "cloudevents/cloudevents_impl.h"

#define TYPE_BATCH      SV("application/cloudevents-batch")
#define TYPE_STRUCTURED SV("application/cloudevents")

/* ---- which mode ---- */

static bool starts_with_nocase(struct strview s, struct strview prefix)
{
    return s.len >= prefix.len && sv_eq_nocase(sv_sub(s, 0, prefix.len), prefix);
}

enum cloudevent_mode cloudevent_mode(const struct http_req *req)
{
    static const char *const required[] = {"ce-id", "ce-source", "ce-type", "ce-specversion"};
    struct strview type = sv_trim(http_req_header(req, SV("content-type")));
    /* The batch first: its name starts with the other's. */
    if (starts_with_nocase(type, TYPE_BATCH)) return CLOUDEVENT_BATCH;
    if (starts_with_nocase(type, TYPE_STRUCTURED)) return CLOUDEVENT_STRUCTURED;
    for (size_t i = 0; i < ARRAY_LEN(required); i++)
        if (http_req_header(req, sv(required[i])).len == 0) return CLOUDEVENT_NONE;
    return CLOUDEVENT_BINARY;
}

/* ---- attributes ---- */

static struct strview *known_attribute(struct cloudevent *e, struct strview name)
{
    const struct {
        struct strview name;
        struct strview *field;
    } known[] = {
        {SV("id"), &e->id},
        {SV("source"), &e->source},
        {SV("type"), &e->type},
        {SV("specversion"), &e->specversion},
        {SV("subject"), &e->subject},
        {SV("time"), &e->time},
        {SV("dataschema"), &e->dataschema},
        {SV("datacontenttype"), &e->datacontenttype},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (sv_eq(known[i].name, name)) return known[i].field;
    return NULL;
}

static bool is_attribute_name(struct strview name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) return false;
    }
    return name.len > 0 && !sv_eq(name, SV("data"));
}

/* Valid UTF-8 of three or four bytes: U+FDD0 … U+FDEF, and the last two code points of each plane. */
static bool is_noncharacter(struct strview rest)
{
    const unsigned char *c = (const unsigned char *)rest.ptr;
    if (c[0] == 0xef && c[1] == 0xb7) return c[2] >= 0x90 && c[2] <= 0xaf;
    if (c[0] == 0xef) return c[1] == 0xbf && c[2] >= 0xbe;
    return c[0] >= 0xf0 && (c[1] & 0x0f) == 0x0f && c[2] == 0xbf && c[3] >= 0xbe;
}

/* The String type excludes U+0000-001F, U+007F-009F (the latter are C2 80 … C2 9F in UTF-8) and what Unicode
 * calls no character. s is valid UTF-8. */
static bool has_illegal_character(struct strview s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f) return true;
        if (c == 0xc2 && (unsigned char)s.ptr[i + 1] < 0xa0) return true;
        if (c >= 0xef && is_noncharacter(sv_sub(s, i, s.len))) return true;
    }
    return false;
}

enum status cloudevent_set(struct cloudevent *e, struct strview name, struct strview value, struct error *err)
{
    if (!is_attribute_name(name))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "attribute name '%.*s': only a-z and 0-9 are allowed, and not 'data'",
                         SV_ARG(sv_sub(name, 0, 64)));
    if (!sv_is_utf8(value))
        return error_set(err, STATUS_INVALID_ARGUMENT, "attribute '%.*s' is not valid UTF-8", SV_ARG(name));
    if (has_illegal_character(value))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "attribute '%.*s' has a control character, or one that Unicode calls none",
                         SV_ARG(name));
    if (value.len == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "attribute '%.*s' is empty", SV_ARG(name));
    struct strview *field = known_attribute(e, name);
    bool is_again = field != NULL ? field->len > 0 : cloudevent_extension(e, name).len > 0;
    if (is_again)
        return error_set(err, STATUS_INVALID_ARGUMENT, "attribute '%.*s' is there twice", SV_ARG(name));
    if (field != NULL) {
        *field = value;
        return STATUS_OK;
    }
    if (e->n_extensions == CLOUDEVENT_EXTENSIONS_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "more than %d extension attributes",
                         CLOUDEVENT_EXTENSIONS_MAX);
    e->extensions[e->n_extensions++] = (struct http_header){.name = name, .value = value};
    return STATUS_OK;
}

enum status cloudevent_check(const struct cloudevent *e, struct error *err)
{
    const struct {
        const char *name;
        struct strview value;
    } required[] = {
        {"id", e->id},
        {"source", e->source},
        {"type", e->type},
        {"specversion", e->specversion},
    };
    for (size_t i = 0; i < ARRAY_LEN(required); i++)
        if (required[i].value.len == 0)
            return error_set(err, STATUS_INVALID_ARGUMENT, "required attribute '%s' is missing",
                             required[i].name);
    if (!sv_eq(e->specversion, SV("1.0")))
        return error_set(err, STATUS_INVALID_ARGUMENT, "specversion is '%.*s', only '1.0' is known",
                         SV_ARG(sv_sub(e->specversion, 0, 32)));
    return STATUS_OK;
}

struct strview cloudevent_extension(const struct cloudevent *e, struct strview name)
{
    return http_header_get(e->extensions, e->n_extensions, name);
}

/* ---- media types ---- */

struct strview media_type(struct strview content_type)
{
    return sv_trim(sv_sub(content_type, 0, sv_find(content_type, ';')));
}

bool media_type_is_json(struct strview content_type)
{
    struct strview type = media_type(content_type);
    if (type.len == 0) return true;
    size_t slash = sv_find(type, '/');
    struct strview subtype = sv_sub(type, slash + 1, type.len);
    if (sv_eq_nocase(subtype, SV("json"))) return true;
    return subtype.len > 5 && sv_eq_nocase(sv_sub(subtype, subtype.len - 5, subtype.len), SV("+json"));
}

/* ---- binary mode ---- */

/* Older senders quote the value; within quotes a backslash takes the next character as it is. */
static struct strview undo_quotes(struct arena *a, struct strview s)
{
    if (s.len < 2 || s.ptr[0] != '"' || s.ptr[s.len - 1] != '"') return s;
    char *text = arena_alloc(a, s.len);
    size_t n = 0;
    for (size_t i = 1; i + 1 < s.len; i++) {
        if (s.ptr[i] == '\\' && i + 2 < s.len) i++;
        text[n++] = s.ptr[i];
    }
    return sv_n(text, n);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One round. A '%' without two hex digits behind it stands for itself: Go's SDK, and with it Knative, sends
 * values as they are, and refusing "100% full" would lose the event for good. */
static struct strview percent_decode(struct arena *a, struct strview s)
{
    char *text = arena_alloc(a, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        bool may_be = s.ptr[i] == '%' && i + 2 < s.len;
        int high = may_be ? hex_digit(s.ptr[i + 1]) : -1, low = may_be ? hex_digit(s.ptr[i + 2]) : -1;
        bool is_encoded = high >= 0 && low >= 0;
        text[n++] = (char)(is_encoded ? high << 4 | low : s.ptr[i]);
        if (is_encoded) i += 2;
    }
    return sv_n(text, n);
}

static enum status decode_header(struct cloudevent *e, struct arena *a, const struct http_header *h,
                                 struct error *err)
{
    struct strview name = sv_sub(h->name, 3, h->name.len);
    if (sv_eq(name, SV("datacontenttype")))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "header ce-datacontenttype must not exist: content-type is it");
    return cloudevent_set(e, name, percent_decode(a, undo_quotes(a, h->value)), err);
}

enum status cloudevent_from_headers(const struct http_header *headers, size_t n, struct arena *a,
                                    struct cloudevent *e, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!sv_starts_with(headers[i].name, SV("ce-"))) continue;
        enum status s = decode_header(e, a, &headers[i], err);
        if (s != STATUS_OK) return s;
    }
    e->datacontenttype = http_header_get(headers, n, SV("content-type"));
    return STATUS_OK;
}

static enum status decode_binary(const struct http_req *req, struct cloudevent *e, struct error *err)
{
    enum status s = cloudevent_from_headers(req->headers, req->n_headers, req->arena, e, err);
    if (s != STATUS_OK) return s;
    e->data = req->body;
    return cloudevent_check(e, err);
}

static bool is_json_format(struct strview type, struct strview base)
{
    struct strview format = sv_sub(type, base.len, type.len);
    return sv_eq_nocase(format, SV("+json"));
}

enum status cloudevent_decode(const struct http_req *req, const struct cloudevent **ret_events, size_t *ret_n,
                              struct error *err)
{
    enum cloudevent_mode mode = cloudevent_mode(req);
    struct strview type = media_type(http_req_header(req, SV("content-type")));
    if (mode == CLOUDEVENT_NONE)
        return error_set(err, STATUS_INVALID_ARGUMENT, "the request is no CloudEvent");
    if ((mode == CLOUDEVENT_BATCH && !is_json_format(type, TYPE_BATCH)) ||
        (mode == CLOUDEVENT_STRUCTURED && !is_json_format(type, TYPE_STRUCTURED)))
        return error_set(err, STATUS_UNIMPLEMENTED, "event format '%.*s': only +json is understood",
                         SV_ARG(sv_sub(type, 0, 64)));
    if (mode == CLOUDEVENT_BATCH)
        return cloudevent_decode_batch(req->body, req->arena, ret_events, ret_n, err);

    struct cloudevent *e = arena_zalloc(req->arena, sizeof(*e));
    enum status s = mode == CLOUDEVENT_BINARY ? decode_binary(req, e, err)
                                              : cloudevent_decode_json(req->body, req->arena, e, err);
    if (s != STATUS_OK) return s;
    *ret_events = e;
    *ret_n = 1;
    return STATUS_OK;
}

/* Percent-encodes what the HTTP binding names: space, '"', '%' and everything outside U+0021 … U+007E. */
static struct strview encode_value(struct arena *a, struct strview s)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    char *text = arena_alloc(a, 3 * s.len);
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c > 0x20 && c < 0x7f && c != '"' && c != '%') {
            text[n++] = (char)c;
            continue;
        }
        text[n++] = '%';
        text[n++] = digits[c >> 4];
        text[n++] = digits[c & 15];
    }
    return sv_n(text, n);
}

struct header_list {
    struct http_header *headers;
    size_t n, max;
    bool is_full;
};

static void list_header(struct header_list *l, struct arena *a, struct strview name, struct strview value)
{
    if (value.len == 0) return;
    if (l->n == l->max) {
        l->is_full = true;
        return;
    }
    const struct strview parts[] = {SV("ce-"), name};
    l->headers[l->n++] =
        (struct http_header){.name = arena_join(a, parts, ARRAY_LEN(parts)), .value = encode_value(a, value)};
}

/* What the receiver would refuse is refused before it is sent. */
enum status cloudevent_validate(const struct cloudevent *e, struct error *err)
{
    const struct {
        struct strview name, value;
    } known[] = {
        {SV("id"), e->id},
        {SV("source"), e->source},
        {SV("type"), e->type},
        {SV("subject"), e->subject},
        {SV("time"), e->time},
        {SV("dataschema"), e->dataschema},
        {SV("datacontenttype"), e->datacontenttype},
    };
    struct cloudevent checked = {0};
    enum status s = cloudevent_check(e, err);
    for (size_t i = 0; i < ARRAY_LEN(known) && s == STATUS_OK; i++)
        if (known[i].value.len > 0) s = cloudevent_set(&checked, known[i].name, known[i].value, err);
    for (size_t i = 0; i < e->n_extensions && s == STATUS_OK; i++)
        s = cloudevent_set(&checked, e->extensions[i].name, e->extensions[i].value, err);
    return s;
}

enum status cloudevent_to_headers(const struct cloudevent *e, struct arena *a,
                                  struct http_header *ret_headers, size_t max, size_t *ret_n,
                                  struct error *err)
{
    struct header_list l = {.headers = ret_headers, .max = max};
    enum status s = cloudevent_validate(e, err);
    if (s != STATUS_OK) return s;
    list_header(&l, a, SV("specversion"), e->specversion);
    list_header(&l, a, SV("id"), e->id);
    list_header(&l, a, SV("source"), e->source);
    list_header(&l, a, SV("type"), e->type);
    list_header(&l, a, SV("subject"), e->subject);
    list_header(&l, a, SV("time"), e->time);
    list_header(&l, a, SV("dataschema"), e->dataschema);
    for (size_t i = 0; i < e->n_extensions; i++)
        list_header(&l, a, e->extensions[i].name, e->extensions[i].value);
    if (e->datacontenttype.len > 0 && l.n < l.max)
        l.headers[l.n++] = (struct http_header){.name = SV("content-type"), .value = e->datacontenttype};
    else if (e->datacontenttype.len > 0)
        l.is_full = true;
    if (l.is_full) return error_set(err, STATUS_RESOURCE_EXHAUSTED, "event needs more than %zu headers", max);
    *ret_n = l.n;
    return STATUS_OK;
}
