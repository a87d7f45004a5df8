#include "cloudevents/cloudevents_impl.h"

#include <limits.h>
#include <openssl/evp.h>

#include "base/json_scan.h"
#include "base/list.h"

/* ---- base64 ---- */

/* RFC 4648 §4, padded, nothing else: EVP_DecodeBlock alone would take white space and padding in the middle.
 */
static bool is_base64(struct strview s, size_t *ret_padding)
{
    size_t padding = 0;
    if (s.len % 4 != 0) return false;
    while (padding < 2 && padding < s.len && s.ptr[s.len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < s.len - padding; i++) {
        char c = s.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '+' && c != '/') return false;
    }
    *ret_padding = padding;
    return true;
}

static bool base64_decode(struct arena *a, struct strview s, struct strview *ret_bytes)
{
    size_t padding = 0;
    if (s.len > INT_MAX || !is_base64(s, &padding)) return false;
    unsigned char *bytes = arena_alloc(a, s.len / 4 * 3);
    int n = EVP_DecodeBlock(bytes, (const unsigned char *)s.ptr, (int)s.len);
    if (n < 0) return false;
    *ret_bytes = sv_n((const char *)bytes, (size_t)n - padding);
    return true;
}

static struct strview base64_encode(struct arena *a, struct strview s)
{
    unsigned char *text = arena_alloc(a, (s.len + 2) / 3 * 4 + 1);
    int n = EVP_EncodeBlock(text, (const unsigned char *)s.ptr, (int)s.len);
    return sv_n((const char *)text, (size_t)n);
}

/* ---- in ---- */

/* Its bytes as they came are the data: a tree in between would lose what no double and no 64 bit integer
 * holds, and would not be the bytes that were signed. */
struct reading {
    struct json_scan scan;
    struct cloudevent *event;
    struct strview data, data_base64; /* raw JSON values; ptr NULL: not there */
};

static enum status broken_json(const struct json_scan *s, struct error *err)
{
    size_t line, column;
    json_scan_position(s, s->at, &line, &column);
    return error_set(err, STATUS_INVALID_ARGUMENT, "JSON: %s at line %zu column %zu", s->problem, line,
                     column);
}

/* The text of a raw JSON value, if it is one. */
static bool text_of(struct strview raw, struct arena *a, struct strview *ret_text)
{
    struct json_scan s;
    json_scan_init(&s, raw, a);
    return json_scan_peek(&s) == '"' && json_scan_string(&s, ret_text);
}

static bool is_int32(struct strview raw)
{
    struct strview digits = sv_sub(raw, raw.len > 0 && raw.ptr[0] == '-', raw.len);
    uint64_t value;
    if (sv_parse_u64(digits, &value) != STATUS_OK) return false;
    return value <= (uint64_t)INT32_MAX + (digits.len < raw.len);
}

static enum status set_member(struct reading *r, struct strview name, struct strview raw, struct error *err)
{
    struct strview value = raw;
    if (sv_eq(raw, SV("null"))) return STATUS_OK; /* equals absence */
    bool is_canonical = sv_eq(raw, SV("true")) || sv_eq(raw, SV("false")) || is_int32(raw);
    if (!is_canonical && !text_of(raw, r->scan.arena, &value))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "attribute '%.*s' is neither text, boolean nor a 32 bit integer",
                         SV_ARG(sv_sub(name, 0, 64)));
    return cloudevent_set(r->event, name, value, err);
}

static enum status take_member(struct reading *r, struct strview name, struct strview raw, struct error *err)
{
    bool is_data = sv_eq(name, SV("data")), is_base64 = sv_eq(name, SV("data_base64"));
    if (!is_data && !is_base64) return set_member(r, name, raw, err);
    struct strview *field = is_data ? &r->data : &r->data_base64;
    if (is_base64 && sv_eq(raw, SV("null"))) return STATUS_OK;
    if (field->ptr != NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "'%.*s' is there twice", SV_ARG(name));
    *field = raw;
    return STATUS_OK;
}

static enum status set_data(const struct reading *r, struct error *err)
{
    struct cloudevent *e = r->event;
    struct arena *a = r->scan.arena;
    struct strview text;
    if (r->data.ptr != NULL && r->data_base64.ptr != NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "both 'data' and 'data_base64' are there");
    if (r->data_base64.ptr != NULL) {
        if (!text_of(r->data_base64, a, &text) || !base64_decode(a, text, &e->data))
            return error_set(err, STATUS_INVALID_ARGUMENT, "'data_base64' is not base64 text");
        return STATUS_OK;
    }
    if (r->data.ptr == NULL) return STATUS_OK;
    if (media_type_is_json(e->datacontenttype)) {
        if (e->datacontenttype.len == 0) e->datacontenttype = SV("application/json"); /* implied until here */
        e->data = r->data;
        return STATUS_OK;
    }
    if (!text_of(r->data, a, &e->data))
        return error_set(err, STATUS_INVALID_ARGUMENT, "'data' must be text for datacontenttype '%.*s'",
                         SV_ARG(sv_sub(e->datacontenttype, 0, 64)));
    return STATUS_OK;
}

enum status cloudevent_decode_json(struct strview body, struct arena *a, struct cloudevent *ret_event,
                                   struct error *err)
{
    struct reading r = {.event = ret_event};
    struct strview name, raw;
    bool is_first = true;
    enum status s = STATUS_OK;
    json_scan_init(&r.scan, body, a);
    if (json_scan_peek(&r.scan) == '[')
        return error_set(err, STATUS_INVALID_ARGUMENT, "structured event: is no JSON object");
    if (json_scan_open(&r.scan, '{'))
        while (s == STATUS_OK && json_scan_member(&r.scan, &is_first, &name) &&
               json_scan_value(&r.scan, &raw))
            s = take_member(&r, name, raw, err);
    if (s == STATUS_OK && !json_scan_end(&r.scan)) s = broken_json(&r.scan, err);
    if (s == STATUS_OK) s = cloudevent_check(ret_event, err);
    if (s == STATUS_OK) s = set_data(&r, err);
    return s == STATUS_OK ? s : error_prefix(err, s, "structured event");
}

/* The elements' bytes, of at most CLOUDEVENT_BATCH_MAX; *ret_n counts all. */
static enum status split_batch(struct strview body, struct arena *a, struct strview *elements, size_t *ret_n,
                               struct error *err)
{
    struct json_scan scan;
    struct strview raw;
    size_t n = 0;
    bool is_first = true;
    json_scan_init(&scan, body, a);
    if (json_scan_peek(&scan) == '{') return error_set(err, STATUS_INVALID_ARGUMENT, "is no JSON array");
    if (json_scan_open(&scan, '['))
        while (json_scan_element(&scan, &is_first) && json_scan_value(&scan, &raw)) {
            if (n < CLOUDEVENT_BATCH_MAX) elements[n] = raw;
            n++;
        }
    if (!json_scan_end(&scan)) return broken_json(&scan, err);
    *ret_n = n;
    return STATUS_OK;
}

enum status cloudevent_decode_batch(struct strview body, struct arena *a,
                                    const struct cloudevent **ret_events, size_t *ret_n, struct error *err)
{
    struct strview *elements = arena_array(a, CLOUDEVENT_BATCH_MAX, sizeof(*elements));
    size_t n = 0;
    enum status s = split_batch(body, a, elements, &n, err);
    if (s != STATUS_OK) return error_prefix(err, s, "batch of events");
    if (n > CLOUDEVENT_BATCH_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "batch of %zu events, at most %d are taken", n,
                         CLOUDEVENT_BATCH_MAX);
    struct cloudevent *events = arena_array(a, n, sizeof(*events));
    for (size_t i = 0; i < n; i++) {
        s = cloudevent_decode_json(elements[i], a, &events[i], err);
        if (s != STATUS_OK) return error_prefix(err, s, "event %zu of the batch", i);
    }
    *ret_events = events;
    *ret_n = n;
    return STATUS_OK;
}

/* ---- out ---- */

static void put(json_t *object, struct strview name, struct strview value)
{
    if (value.len > 0) json_object_setn_new(object, name.ptr, name.len, json_text(value));
}

static bool is_text_type(struct strview content_type)
{
    struct strview type = media_type(content_type);
    return sv_eq_nocase(sv_sub(type, 0, 5), SV("text/")) || sv_eq_nocase(type, SV("application/xml"));
}

static bool is_json_text(struct strview text, struct arena *a)
{
    struct json_scan s;
    json_scan_init(&s, text, a);
    s.depth = 2; /* where it will stand: in an event of a batch */
    return json_scan_value(&s, NULL) && json_scan_end(&s);
}

/* With the comma before it; a JSON value goes out byte for byte. */
static struct strview data_member(const struct cloudevent *e, struct arena *a)
{
    if (e->data.len == 0) return SV("");
    /* Without a type only what names itself JSON goes out as JSON; guessing would change bytes. */
    if (e->datacontenttype.len > 0 && media_type_is_json(e->datacontenttype) && is_json_text(e->data, a)) {
        const struct strview parts[] = {SV(",\"data\":"), e->data};
        return arena_join(a, parts, ARRAY_LEN(parts));
    }
    bool is_text =
        is_text_type(e->datacontenttype) && sv_is_utf8(e->data) && sv_find(e->data, '\0') == e->data.len;
    json_t *text = json_text(is_text ? e->data : base64_encode(a, e->data));
    const struct strview parts[] = {is_text ? SV(",\"data\":") : SV(",\"data_base64\":"),
                                    json_canonical(a, text)};
    json_release(text);
    return arena_join(a, parts, ARRAY_LEN(parts));
}

struct strview cloudevent_to_json(const struct cloudevent *e, struct arena *a)
{
    json_t *object = json_object();
    put(object, SV("specversion"), e->specversion);
    put(object, SV("id"), e->id);
    put(object, SV("source"), e->source);
    put(object, SV("type"), e->type);
    put(object, SV("subject"), e->subject);
    put(object, SV("time"), e->time);
    put(object, SV("datacontenttype"), e->datacontenttype);
    put(object, SV("dataschema"), e->dataschema);
    for (size_t i = 0; i < e->n_extensions; i++)
        put(object, e->extensions[i].name, e->extensions[i].value);
    struct strview attributes = json_canonical(a, object);
    json_release(object);
    const struct strview parts[] = {sv_sub(attributes, 0, attributes.len - 1), data_member(e, a), SV("}")};
    return arena_join(a, parts, ARRAY_LEN(parts));
}

struct strview cloudevents_to_json(const struct cloudevent *events, size_t n, struct arena *a)
{
    struct strview *parts = arena_array(a, 2 * n + 2, sizeof(*parts));
    size_t n_parts = 0;
    for (size_t i = 0; i < n; i++) {
        parts[n_parts++] = i == 0 ? SV("[") : SV(",");
        parts[n_parts++] = cloudevent_to_json(&events[i], a);
    }
    if (n == 0) parts[n_parts++] = SV("[");
    parts[n_parts++] = SV("]");
    return arena_join(a, parts, n_parts);
}
