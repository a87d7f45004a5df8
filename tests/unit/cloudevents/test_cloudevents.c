#include "cloudevents/cloudevents.h"

#include <criterion/criterion.h>

static struct arena arena;

static void fini(void)
{
    arena_release(&arena);
}

TestSuite(cloudevents, .fini = fini, .timeout = 20);

#define HEADER(n, v)                                                                                         \
    {                                                                                                        \
        {n, sizeof(n) - 1},                                                                                  \
        {                                                                                                    \
            v, sizeof(v) - 1                                                                                 \
        }                                                                                                    \
    }
#define REQUIRED                                                                                             \
    HEADER("ce-id", "1"), HEADER("ce-source", "/s"), HEADER("ce-type", "t"), HEADER("ce-specversion", "1.0")

static struct http_req request(const struct http_header *headers, size_t n, const char *body)
{
    return (struct http_req){
        .method = SV("POST"), .headers = headers, .n_headers = n, .body = sv(body), .arena = &arena};
}

static struct http_req typed(const char *content_type, const char *body)
{
    struct http_header *h = arena_array(&arena, 1, sizeof(*h));
    h[0] = (struct http_header){SV("content-type"), sv(content_type)};
    return request(h, 1, body);
}

static enum status decode_one(struct http_req req, struct cloudevent *ret, struct error *err)
{
    const struct cloudevent *events = NULL;
    size_t n = 0;
    enum status s = cloudevent_decode(&req, &events, &n, err);
    if (s == STATUS_OK) {
        cr_assert_eq(n, 1);
        *ret = events[0];
    }
    return s;
}

static struct cloudevent structured(const char *body)
{
    struct cloudevent e = {0};
    struct error err;
    cr_assert_eq(decode_one(typed("application/cloudevents+json", body), &e, &err), STATUS_OK, "%s",
                 err.message);
    return e;
}

static void refused(struct http_req req, enum status code, const char *words)
{
    struct cloudevent e;
    struct error err = {0};
    cr_assert_eq(decode_one(req, &e, &err), code, "for %s", words);
    cr_assert(strstr(err.message, words) != NULL, "'%s' lacks '%s'", err.message, words);
}

#define ASSERT_SV(view, text) cr_assert(sv_eq((view), SV(text)), "'%.*s' is not '%s'", SV_ARG(view), text)

/* ---- mode ---- */

Test(cloudevents, content_type_decides_the_mode_before_headers_do)
{
    const struct http_header all[] = {REQUIRED};
    struct http_req binary = request(all, 4, ""), partial = request(all, 3, "");
    struct http_req batch = typed("Application/CloudEvents-Batch+json; charset=utf-8", "[]");
    struct http_req single = typed("application/CLOUDEVENTS+json", "{}");
    struct http_req plain = typed("application/json", "{}");
    cr_assert_eq(cloudevent_mode(&binary), CLOUDEVENT_BINARY);
    cr_assert_eq(cloudevent_mode(&partial), CLOUDEVENT_NONE);
    cr_assert_eq(cloudevent_mode(&batch), CLOUDEVENT_BATCH);
    cr_assert_eq(cloudevent_mode(&single), CLOUDEVENT_STRUCTURED);
    cr_assert_eq(cloudevent_mode(&plain), CLOUDEVENT_NONE);
}

/* ---- binary ---- */

Test(cloudevents, binary_headers_become_attributes_and_the_body_is_the_data)
{
    const struct http_header h[] = {REQUIRED, HEADER("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
                                    HEADER("ce-tenant", "a%2fb"), HEADER("content-type", "text/plain"),
                                    HEADER("x-other", "no")};
    struct cloudevent e;
    cr_assert_eq(decode_one(request(h, 8, "bytes"), &e, NULL), STATUS_OK);
    ASSERT_SV(e.id, "1");
    ASSERT_SV(e.subject, "Euro \xE2\x82\xAC \xF0\x9F\x98\x80");
    ASSERT_SV(cloudevent_extension(&e, SV("tenant")), "a/b");
    ASSERT_SV(e.datacontenttype, "text/plain");
    ASSERT_SV(e.data, "bytes");
    cr_assert_eq(e.n_extensions, 1);
    cr_assert_eq(cloudevent_extension(&e, SV("absent")).len, 0);
}

Test(cloudevents, quoted_values_of_older_senders_are_unquoted_first)
{
    const struct http_header h[] = {REQUIRED, HEADER("ce-subject", "\"a \\\"b\\\" %25\"")};
    struct cloudevent e;
    cr_assert_eq(decode_one(request(h, 5, ""), &e, NULL), STATUS_OK);
    ASSERT_SV(e.subject, "a \"b\" %");
}

static void refused_header(const char *name, const char *value, const char *words)
{
    struct http_header h[] = {REQUIRED, {sv(name), sv(value)}};
    refused(request(h, 5, ""), STATUS_INVALID_ARGUMENT, words);
}

Test(cloudevents, a_percent_sign_that_encodes_nothing_stands_for_itself)
{
    const struct http_header h[] = {REQUIRED, HEADER("ce-subject", "100% full %4 %zz %41%")};
    struct cloudevent e;
    struct http_header out[16];
    size_t n = 0;
    cr_assert_eq(decode_one(request(h, 5, ""), &e, NULL), STATUS_OK);
    ASSERT_SV(e.subject, "100% full %4 %zz A%");
    cr_assert_eq(cloudevent_to_headers(&e, &arena, out, 16, &n, NULL), STATUS_OK);
    ASSERT_SV(http_header_get(out, n, SV("ce-subject")), "100%25%20full%20%254%20%25zz%20A%25");
}

Test(cloudevents, characters_beside_the_illegal_ones_are_legal)
{
    /* U+00A0, U+FDCF, U+FDF0, U+FFFD, U+1FFFD, U+10FFFD */
    const struct http_header h[] = {
        REQUIRED, HEADER("ce-subject", "%C2%A0%EF%B7%8F%EF%B7%B0%EF%BF%BD%F0%9F%BF%BD%F4%8F%BF%BD")};
    struct cloudevent e;
    cr_assert_eq(decode_one(request(h, 5, ""), &e, NULL), STATUS_OK);
    cr_assert_eq(e.subject.len, 19);
}

Test(cloudevents, bad_binary_attributes_are_named)
{
    refused_header("ce-bad_name", "x", "bad_name");
    refused_header("ce-data", "x", "'data'");
    refused_header("ce-", "x", "attribute name");
    refused_header("ce-id", "again", "'id' is there twice");
    refused_header("ce-datacontenttype", "text/plain", "ce-datacontenttype must not exist");
    refused_header("ce-subject", "%C0%A0", "not valid UTF-8"); /* overlong */
    refused_header("ce-subject", "a%0Ab", "control character");
    refused_header("ce-subject", "a%C2%80b", "control character");
    refused_header("ce-subject", "%EF%B7%90", "Unicode");    /* U+FDD0 */
    refused_header("ce-subject", "%EF%BF%BF", "Unicode");    /* U+FFFF */
    refused_header("ce-subject", "%F0%9F%BF%BE", "Unicode"); /* U+1FFFE */
    refused_header("ce-subject", "%F4%8F%BF%BF", "Unicode"); /* U+10FFFF */
    refused_header("ce-subject", "", "is empty");
}

Test(cloudevents, other_specversions_are_refused)
{
    const struct http_header h[] = {HEADER("ce-id", "1"), HEADER("ce-source", "/s"), HEADER("ce-type", "t"),
                                    HEADER("ce-specversion", "0.3")};
    refused(request(h, 4, ""), STATUS_INVALID_ARGUMENT, "specversion is '0.3'");
}

Test(cloudevents, extensions_are_limited)
{
    struct http_header h[4 + CLOUDEVENT_EXTENSIONS_MAX + 1] = {REQUIRED};
    for (size_t i = 4; i < sizeof(h) / sizeof(h[0]); i++)
        h[i] = (struct http_header){arena_printf(&arena, "ce-x%zu", i), SV("v")};
    struct cloudevent e;
    cr_assert_eq(decode_one(request(h, 4 + CLOUDEVENT_EXTENSIONS_MAX, ""), &e, NULL), STATUS_OK);
    cr_assert_eq(e.n_extensions, CLOUDEVENT_EXTENSIONS_MAX);
    refused(request(h, 5 + CLOUDEVENT_EXTENSIONS_MAX, ""), STATUS_INVALID_ARGUMENT, "more than 32");
}

/* ---- structured ---- */

#define EVENT(members) "{\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"specversion\":\"1.0\"" members "}"

Test(cloudevents, json_types_of_attributes_become_their_canonical_text)
{
    struct cloudevent e =
        structured(EVENT(",\"flag\":true,\"count\":-7,\"gone\":null,\"subject\":\"s\\u20ac\""));
    ASSERT_SV(cloudevent_extension(&e, SV("flag")), "true");
    ASSERT_SV(cloudevent_extension(&e, SV("count")), "-7");
    ASSERT_SV(e.subject, "s\xE2\x82\xAC");
    cr_assert_eq(e.n_extensions, 2);
    cr_assert_eq(e.data.len, 0);
    cr_assert_eq(e.datacontenttype.len, 0);
}

Test(cloudevents, data_without_a_type_is_json_and_gets_that_type)
{
    struct cloudevent e = structured(EVENT(",\"data\":{\"b\":1,\"a\":[true,null,1.5]}"));
    ASSERT_SV(e.data, "{\"b\":1,\"a\":[true,null,1.5]}");
    ASSERT_SV(e.datacontenttype, "application/json");
}

Test(cloudevents, json_text_stays_quoted_and_null_is_a_payload)
{
    struct cloudevent text =
        structured(EVENT(",\"datacontenttype\":\"application/vnd.x+json; v=1\",\"data\":\"s\""));
    struct cloudevent null = structured(EVENT(",\"data\":null"));
    ASSERT_SV(text.data, "\"s\"");
    ASSERT_SV(null.data, "null");
}

Test(cloudevents, a_json_value_is_taken_byte_for_byte)
{
    ASSERT_SV(structured(EVENT(",\"data\":18446744073709551616")).data, "18446744073709551616");
    ASSERT_SV(structured(EVENT(",\"data\":{\"b\": 0.1, \"a\":1e400}")).data, "{\"b\": 0.1, \"a\":1e400}");
    ASSERT_SV(structured(EVENT(",\"data\":\"\\u0000\"")).data, "\"\\u0000\"");
    cr_assert_eq(structured(EVENT(",\"datacontenttype\":\"text/plain\",\"data\":\"a\\u0000b\"")).data.len, 3);
}

Test(cloudevents, other_types_carry_text_or_base64)
{
    struct cloudevent text = structured(EVENT(",\"datacontenttype\":\"text/xml\",\"data\":\"<a/>\""));
    struct cloudevent bytes = structured(EVENT(",\"data_base64\":\"AAEC/w==\""));
    struct cloudevent none = structured(EVENT(",\"data_base64\":\"\""));
    ASSERT_SV(text.data, "<a/>");
    cr_assert_eq(bytes.data.len, 4);
    cr_assert_eq(memcmp(bytes.data.ptr, "\0\1\2\xff", 4), 0);
    cr_assert_eq(bytes.datacontenttype.len, 0);
    cr_assert_eq(none.data.len, 0);
}

static void refused_event(const char *body, const char *words)
{
    refused(typed("application/cloudevents+json", body), STATUS_INVALID_ARGUMENT, words);
}

Test(cloudevents, bad_structured_events_are_named)
{
    refused_event("[]", "no JSON object");
    refused_event("{", "JSON");
    refused_event("{\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}", "'specversion' is missing");
    refused_event(EVENT(",\"id\":\"2\""), "'id' is there twice");
    refused_event(EVENT(",\"data\":1,\"data\":2"), "'data' is there twice");
    refused_event(EVENT(",\"x\":-2147483649"), "'x' is neither");
    refused_event(EVENT("") "x", "JSON");
    refused_event("7", "JSON");
    refused_event(EVENT(",\"x\":1.5"), "'x' is neither");
    refused_event(EVENT(",\"x\":2147483648"), "'x' is neither");
    refused_event(EVENT(",\"X\":\"v\""), "attribute name 'X'");
    refused_event(EVENT(",\"subject\":\"\""), "'subject' is empty");
    refused_event(EVENT(",\"data\":1,\"data_base64\":\"\""), "both");
    refused_event(EVENT(",\"datacontenttype\":\"text/plain\",\"data\":{}"), "must be text");
    refused_event(EVENT(",\"data_base64\":\"AAE\""), "not base64");
    refused_event(EVENT(",\"data_base64\":\"A=AA\""), "not base64");
    refused_event(EVENT(",\"data_base64\":\"AA A\""), "not base64");
    refused_event(EVENT(",\"data_base64\":7"), "not base64");
}

Test(cloudevents, formats_other_than_json_are_told_apart)
{
    refused(typed("application/cloudevents+protobuf", "x"), STATUS_UNIMPLEMENTED, "+protobuf");
    refused(typed("application/cloudevents-batch+avro", "x"), STATUS_UNIMPLEMENTED, "+avro");
    refused(typed("text/plain", "x"), STATUS_INVALID_ARGUMENT, "no CloudEvent");
}

/* ---- batch ---- */

Test(cloudevents, a_batch_gives_its_events_in_order_and_may_be_empty)
{
    const struct cloudevent *events = NULL;
    size_t n = 99;
    struct http_req two =
        typed("application/cloudevents-batch+json", "[" EVENT(",\"data\":1") "," EVENT(",\"data\":2") "]");
    struct http_req none = typed("application/cloudevents-batch+json", "[]");
    cr_assert_eq(cloudevent_decode(&two, &events, &n, NULL), STATUS_OK);
    cr_assert_eq(n, 2);
    ASSERT_SV(events[0].data, "1");
    ASSERT_SV(events[1].data, "2");
    cr_assert_eq(cloudevent_decode(&none, &events, &n, NULL), STATUS_OK);
    cr_assert_eq(n, 0);
}

Test(cloudevents, a_bad_event_of_a_batch_is_numbered_and_the_size_is_limited)
{
    char *body = arena_alloc(&arena, 3 * CLOUDEVENT_BATCH_MAX + 6);
    size_t len = 0;
    body[len++] = '[';
    for (int i = 0; i <= CLOUDEVENT_BATCH_MAX; i++) {
        memcpy(body + len, i ? ",{}" : "{}", i ? 3 : 2);
        len += i ? 3 : 2;
    }
    body[len++] = ']';
    body[len] = '\0';
    refused(typed("application/cloudevents-batch+json", body), STATUS_INVALID_ARGUMENT, "at most 1000");
    refused(typed("application/cloudevents-batch+json", "[" EVENT("") ",{}]"), STATUS_INVALID_ARGUMENT,
            "event 1 of the batch");
    refused(typed("application/cloudevents-batch+json", "{}"), STATUS_INVALID_ARGUMENT, "no JSON array");
}

/* ---- out ---- */

static struct cloudevent sample(const char *type, const char *data)
{
    struct cloudevent e = {.id = SV("1"),
                           .source = SV("/s"),
                           .type = SV("t"),
                           .specversion = SV("1.0"),
                           .subject = SV("a \"b\" 100% \xE2\x82\xAC"),
                           .datacontenttype = sv(type),
                           .data = sv(data)};
    e.extensions[e.n_extensions++] = (struct http_header){SV("tenant"), SV("x")};
    return e;
}

Test(cloudevents, what_goes_out_as_headers_comes_in_the_same)
{
    struct cloudevent e = sample("application/json", "{}"), back;
    struct http_header h[16];
    size_t n = 0;
    cr_assert_eq(cloudevent_to_headers(&e, &arena, h, 16, &n, NULL), STATUS_OK);
    cr_assert_eq(n, 7);
    ASSERT_SV(http_header_get(h, n, SV("ce-subject")), "a%20%22b%22%20100%25%20%E2%82%AC");
    ASSERT_SV(http_header_get(h, n, SV("content-type")), "application/json");
    cr_assert_eq(decode_one(request(h, n, "{}"), &back, NULL), STATUS_OK);
    cr_assert(sv_eq(back.subject, e.subject));
    ASSERT_SV(cloudevent_extension(&back, SV("tenant")), "x");
}

Test(cloudevents, headers_that_do_not_fit_or_are_illegal_are_refused)
{
    struct cloudevent e = sample("application/json", "{}");
    struct http_header h[16];
    size_t n = 0;
    cr_assert_eq(cloudevent_to_headers(&e, &arena, h, 6, &n, NULL), STATUS_RESOURCE_EXHAUSTED);
    e.subject = SV("a\nb");
    cr_assert_eq(cloudevent_to_headers(&e, &arena, h, 16, &n, NULL), STATUS_INVALID_ARGUMENT);
    e.subject = SV("");
    e.id = SV("");
    cr_assert_eq(cloudevent_to_headers(&e, &arena, h, 16, &n, NULL), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(n, 0);
}

static void comes_back(const char *type, const char *data, const char *member)
{
    struct cloudevent e = sample(type, data), back;
    struct strview json = cloudevent_to_json(&e, &arena);
    cr_assert(sv_contains(json, sv(member)), "%.*s lacks %s", SV_ARG(json), member);
    back = structured(json.ptr);
    cr_assert(sv_eq(back.data, e.data), "'%.*s' is not '%s'", SV_ARG(back.data), data);
    cr_assert(sv_eq(back.subject, e.subject));
}

Test(cloudevents, text_with_a_nul_goes_out_as_base64)
{
    struct cloudevent e = sample("text/plain", "");
    e.data = sv_n("a\0b", 3);
    struct strview json = cloudevent_to_json(&e, &arena);
    cr_assert(sv_contains(json, SV("\"data_base64\":\"YQBi\"")), "%.*s", SV_ARG(json));
    struct cloudevent back = structured(json.ptr);
    cr_assert(sv_eq(back.data, e.data));
}

Test(cloudevents, what_goes_out_as_json_comes_in_the_same)
{
    comes_back("application/json", "{\"a\":1}", "\"data\":{\"a\":1}");
    comes_back("application/json", "{\"b\": 1e400, \"a\":18446744073709551616}",
               "\"data\":{\"b\": 1e400, \"a\":18446744073709551616}");
    comes_back("application/json", "\"text\"", "\"data\":\"text\"");
    comes_back("application/json", "no json", "\"data_base64\":\"");
    comes_back("text/plain", "line\n", "\"data\":\"line\\n\"");
    comes_back("text/plain", "\xff\xfe", "\"data_base64\":\"//4=\"");
    comes_back("image/png", "\x89PNG", "\"data_base64\":\"iVBORw==\"");
    comes_back("", "bytes", "\"data_base64\":\"Ynl0ZXM=\"");
}

Test(cloudevents, a_batch_that_goes_out_comes_in_the_same)
{
    struct cloudevent two[] = {sample("application/json", "{}"), sample("text/plain", "b")};
    struct strview json = cloudevents_to_json(two, 2, &arena);
    struct http_req req = typed("application/cloudevents-batch+json", arena_cstr(&arena, json));
    const struct cloudevent *events = NULL;
    size_t n = 0;
    cr_assert_eq(cloudevent_decode(&req, &events, &n, NULL), STATUS_OK, "%.*s", SV_ARG(json));
    cr_assert_eq(n, 2);
    ASSERT_SV(events[0].data, "{}");
    ASSERT_SV(events[1].data, "b");
    ASSERT_SV(cloudevents_to_json(NULL, 0, &arena), "[]");
}

Test(cloudevents, what_is_nested_too_deep_for_an_event_goes_out_as_base64)
{
    for (int depth = JSON_DEPTH_MAX - 3; depth <= JSON_DEPTH_MAX; depth++) {
        char data[2 * JSON_DEPTH_MAX + 1] = {0};
        memset(data, '[', (size_t)depth);
        memset(data + depth, ']', (size_t)depth);
        struct cloudevent e = sample("application/json", data), back;
        struct strview json = cloudevents_to_json(&e, 1, &arena);
        struct http_req req = typed("application/cloudevents-batch+json", arena_cstr(&arena, json));
        const struct cloudevent *events = NULL;
        size_t n = 0;
        cr_assert_eq(cloudevent_decode(&req, &events, &n, NULL), STATUS_OK, "%d: %.*s", depth, SV_ARG(json));
        back = events[0];
        cr_assert(sv_eq(back.data, e.data));
    }
}
