/* What a bot answers, on any bytes, and invocations with any words in them: an answer always has a state and
 * text that is text; what was signed is taken as it was, and nothing else is.
 *
 * Input: "STATUS|INTENT|INCIDENT|TARGET" up to a line end, then the body of both.
 *
 * Reads: function/invocation.c */
#include "function/invocation.h"

#include <assert.h>

#include "base/list.h"
#include "replay.h"

#define NOW_NS INT64_C(1795857084000000000)

static const struct strview key = {"a key that no corpus knows", 26};

static void check_reply(int http_status, struct strview body, struct arena *a)
{
    static const char *const states[] = {"done", "unchanged", "refused", "failed"};
    struct invocation_reply r;
    struct error err = {0};
    json_t *detail = NULL;
    bool is_known = false;
    if (invocation_parse_reply(http_status, body, a, &r, &err) != STATUS_OK) {
        assert(http_status < 100 || http_status > 599);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        is_known |= sv_eq(r.state, sv(states[i]));
    assert(is_known && sv_is_utf8(r.message) && sv_is_utf8(r.undo) && sv_is_utf8(r.code));
    assert(http_status == 200 || sv_eq(r.state, SV("failed")) || (http_status > 200 && http_status < 300));
    enum status s = json_parse(r.detail, JSON_ALLOW_NUL, &detail, NULL);
    assert(s == STATUS_OK && json_is_object(detail));
    json_release(detail);
}

static enum status verify(struct http_req *req, struct strview function, int64_t now_ns,
                          struct invocation *inv)
{
    *inv = (struct invocation){0};
    return invocation_verify(req, function, key, now_ns, inv, NULL);
}

static void check_signed(struct strview words, struct strview body, struct arena *a)
{
    struct http_header headers[INVOCATION_HEADERS_MAX];
    struct invocation back, inv = {.function = SV("f"), .epoch = 7, .attempt = 2};
    struct http_req req = {.method = SV("POST"), .headers = headers, .body = body, .arena = a};
    inv.intent_unix_ns = NOW_NS;
    inv.deadline_unix_ns = NOW_NS + 1;
    (void)sv_next(&words, '|', &inv.intent);
    (void)sv_next(&words, '|', &inv.incident);
    inv.target = words;
    if (invocation_sign(&inv, SV("local"), key, body, a, headers, &req.n_headers, NULL) != STATUS_OK) return;
    enum status s = verify(&req, SV("f"), NOW_NS, &back);
    assert(s == STATUS_OK && sv_eq(back.intent, inv.intent) && sv_eq(back.incident, inv.incident) &&
           sv_eq(back.target, inv.target) && back.epoch == 7 && back.attempt == 2 &&
           back.deadline_unix_ns == inv.deadline_unix_ns);
    assert(verify(&req, SV("g"), NOW_NS, &back) == STATUS_PERMISSION_DENIED);
    assert(verify(&req, SV("f"), NOW_NS + 1, &back) == STATUS_DEADLINE_EXCEEDED);
    req.body = arena_printf(a, "%.*s ", SV_ARG(sv_sub(body, 0, 100)));
    assert(verify(&req, SV("f"), NOW_NS, &back) == STATUS_PERMISSION_DENIED);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct strview body = sv_n((const char *)bytes, n), words = {0}, status = {0};
    int64_t http_status = 0;
    (void)sv_next(&body, '\n', &words);
    (void)sv_next(&words, '|', &status);
    if (sv_parse_i64(status, &http_status) != STATUS_OK || http_status < 0 || http_status > 999)
        http_status = 200;
    check_reply((int)http_status, body, &arena);
    check_signed(words, body, &arena);
    arena_release(&arena);
    return 0;
}
