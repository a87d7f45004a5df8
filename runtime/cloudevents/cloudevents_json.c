#include "cloudevents/cloudevents_impl.h"

#include <limits.h>
#include <openssl/evp.h>

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

static struct strview string_view(const json_t *value)
{
    return sv_n(json_string_value(value), json_string_length(value));
}

static enum status set_member(struct cloudevent *e, struct arena *a, const char *name, const json_t *value,
                              struct error *err)
{
    if (json_is_null(value)) return STATUS_OK; /* equals absence */
    if (json_is_boolean(value))
        return cloudevent_set(e, arena_copy(a, sv(name)), json_is_true(value) ? SV("true") : SV("false"),
                              err);
    if (json_is_string(value))
        return cloudevent_set(e, arena_copy(a, sv(name)), arena_copy(a, string_view(value)), err);
    if (json_is_integer(value) && json_integer_value(value) >= INT32_MIN &&
        json_integer_value(value) <= INT32_MAX)
        return cloudevent_set(e, arena_copy(a, sv(name)),
                              arena_printf(a, "%d", (int)json_integer_value(value)), err);
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "attribute '%.64s' is neither text, boolean nor a 32 bit integer", name);
}

/* The bytes of a JSON value as it came: member order is kept. */
static enum status dump_value(struct arena *a, const json_t *value, struct strview *ret_bytes,
                              struct error *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (text == NULL) return error_set(err, STATUS_INTERNAL, "write the event's data as JSON");
    *ret_bytes = arena_copy(a, sv(text));
    free(text);
    return STATUS_OK;
}

static enum status set_data(struct cloudevent *e, struct arena *a, const json_t *data,
                            const json_t *data_base64, struct error *err)
{
    if (data != NULL && data_base64 != NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "both 'data' and 'data_base64' are there");
    if (data_base64 != NULL) {
        if (!json_is_string(data_base64) || !base64_decode(a, string_view(data_base64), &e->data))
            return error_set(err, STATUS_INVALID_ARGUMENT, "'data_base64' is not base64 text");
        return STATUS_OK;
    }
    if (data == NULL) return STATUS_OK;
    if (!media_type_is_json(e->datacontenttype)) {
        if (!json_is_string(data))
            return error_set(err, STATUS_INVALID_ARGUMENT, "'data' must be text for datacontenttype '%.*s'",
                             SV_ARG(sv_sub(e->datacontenttype, 0, 64)));
        e->data = arena_copy(a, string_view(data));
        return STATUS_OK;
    }
    if (e->datacontenttype.len == 0) e->datacontenttype = SV("application/json"); /* implied until here */
    return dump_value(a, data, &e->data, err);
}

static enum status decode_object(const json_t *object, struct arena *a, struct cloudevent *e,
                                 struct error *err)
{
    const json_t *data = NULL, *data_base64 = NULL;
    const char *name;
    json_t *value;
    if (!json_is_object(object)) return error_set(err, STATUS_INVALID_ARGUMENT, "is no JSON object");
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        enum status s = STATUS_OK;
        if (sv_eq(sv(name), SV("data")))
            data = value;
        else if (sv_eq(sv(name), SV("data_base64")))
            data_base64 = json_is_null(value) ? NULL : value;
        else
            s = set_member(e, a, name, value, err);
        if (s != STATUS_OK) return s;
    }
    enum status s = cloudevent_check(e, err);
    return s == STATUS_OK ? set_data(e, a, data, data_base64, err) : s;
}

enum status cloudevent_decode_json(struct strview body, struct arena *a, struct cloudevent *ret_event,
                                   struct error *err)
{
    json_t *root = NULL;
    enum status s = json_parse(body, JSON_REJECT_DUPLICATES, &root, err);
    if (s == STATUS_OK) s = decode_object(root, a, ret_event, err);
    json_release(root);
    return s == STATUS_OK ? s : error_prefix(err, s, "structured event");
}

enum status cloudevent_decode_batch(struct strview body, struct arena *a,
                                    const struct cloudevent **ret_events, size_t *ret_n, struct error *err)
{
    json_t *root = NULL;
    enum status s = json_parse(body, JSON_REJECT_DUPLICATES, &root, err);
    if (s != STATUS_OK) return error_prefix(err, s, "batch of events");
    size_t n = json_array_size(root);
    if (!json_is_array(root)) {
        s = error_set(err, STATUS_INVALID_ARGUMENT, "batch of events: is no JSON array");
        goto out;
    }
    if (n > CLOUDEVENT_BATCH_MAX) {
        s = error_set(err, STATUS_INVALID_ARGUMENT, "batch of %zu events, at most %d are taken", n,
                      CLOUDEVENT_BATCH_MAX);
        goto out;
    }
    struct cloudevent *events = arena_array(a, n, sizeof(*events));
    for (size_t i = 0; i < n; i++) {
        s = decode_object(json_array_get(root, i), a, &events[i], err);
        if (s != STATUS_OK) {
            s = error_prefix(err, s, "event %zu of the batch", i);
            goto out;
        }
    }
    *ret_events = events;
    *ret_n = n;
out:
    json_release(root);
    return s;
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

static void put_data(json_t *object, const struct cloudevent *e, struct arena *a)
{
    json_t *value = NULL;
    if (e->data.len == 0) return;
    /* Without a type only what names itself JSON goes out as JSON; guessing would change bytes. */
    if (e->datacontenttype.len > 0 && media_type_is_json(e->datacontenttype) &&
        json_parse(e->data, JSON_DECODE_ANY, &value, NULL) == STATUS_OK)
        json_object_set_new(object, "data", value);
    else if (is_text_type(e->datacontenttype) && sv_is_utf8(e->data) && sv_find(e->data, '\0') == e->data.len)
        put(object, SV("data"), e->data);
    else
        put(object, SV("data_base64"), base64_encode(a, e->data));
}

static json_t *event_object(const struct cloudevent *e, struct arena *a)
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
    put_data(object, e, a);
    return object;
}

/* value: moved. */
static struct strview json_text_of(json_t *value, struct arena *a)
{
    struct strview text = json_canonical(a, value);
    json_release(value);
    return text;
}

struct strview cloudevent_to_json(const struct cloudevent *e, struct arena *a)
{
    return json_text_of(event_object(e, a), a);
}

struct strview cloudevents_to_json(const struct cloudevent *events, size_t n, struct arena *a)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, event_object(&events[i], a));
    return json_text_of(array, a);
}
