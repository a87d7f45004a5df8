/* CloudEvents on any bytes, in all three modes: what is taken must be legal, must go out as headers and as
 * JSON, and must come back the same. Nothing of it is ever a signed invocation.
 *
 * Input: header lines "name: value" up to an empty line, then the body.
 *
 * Reads: cloudevents/cloudevents.c cloudevents/cloudevents_json.c function/invocation.c */
#include "cloudevents/cloudevents.h"

#include <assert.h>

#include "function/invocation.h"
#include "replay.h"
#include "request.h"

static void assert_same(const struct cloudevent *a, const struct cloudevent *b)
{
    assert(sv_eq(a->id, b->id) && sv_eq(a->source, b->source) && sv_eq(a->type, b->type));
    assert(sv_eq(a->subject, b->subject) && sv_eq(a->time, b->time) && sv_eq(a->dataschema, b->dataschema));
    assert(a->n_extensions == b->n_extensions);
    for (size_t i = 0; i < a->n_extensions; i++)
        assert(sv_eq(a->extensions[i].value, cloudevent_extension(b, a->extensions[i].name)));
}

static void go_round(const struct cloudevent *e, struct arena *a)
{
    struct http_header headers[HTTP_HEADERS_MAX];
    const struct http_header json = {SV("content-type"), SV("application/cloudevents+json")};
    struct http_req req = {.headers = headers, .body = e->data, .arena = a};
    const struct cloudevent *back = NULL;
    size_t n = 0;
    struct error err = {0};
    /* A content type of a header may hold bytes that no attribute may: that event stays where it is. */
    if (cloudevent_to_headers(e, a, headers, HTTP_HEADERS_MAX, &req.n_headers, &err) != STATUS_OK) {
        assert(strstr(err.message, "datacontenttype") != NULL);
        return;
    }
    if (cloudevent_mode(&req) == CLOUDEVENT_BINARY) {
        enum status s = cloudevent_decode(&req, &back, &n, &err);
        assert(s == STATUS_OK && n == 1);
        assert_same(e, back);
        assert(sv_eq(e->data, back->data));
    }
    req = (struct http_req){.headers = &json, .n_headers = 1, .body = cloudevent_to_json(e, a), .arena = a};
    enum status s = cloudevent_decode(&req, &back, &n, &err);
    assert(s == STATUS_OK && n == 1);
    assert_same(e, back);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct http_header headers[HTTP_HEADERS_MAX];
    struct http_req req = {.method = SV("POST"), .arena = &arena};
    struct strview rest = sv_n((const char *)bytes, n);
    const struct cloudevent *events = NULL;
    struct invocation inv = {0};
    size_t n_events = 0;
    read_headers(&rest, &req, headers);
    if (cloudevent_decode(&req, &events, &n_events, NULL) == STATUS_OK) {
        assert(n_events <= CLOUDEVENT_BATCH_MAX);
        for (size_t i = 0; i < n_events; i++) {
            assert(events[i].id.len > 0 && sv_is_utf8(events[i].id) &&
                   events[i].n_extensions <= CLOUDEVENT_EXTENSIONS_MAX);
            go_round(&events[i], &arena);
        }
    }
    enum status s = invocation_verify(&req, SV("f"), SV("a key that no corpus knows"), 1, &inv, NULL);
    assert(s == STATUS_PERMISSION_DENIED && inv.intent.len == 0);
    arena_release(&arena);
    return 0;
}
