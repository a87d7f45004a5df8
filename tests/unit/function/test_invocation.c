#include "function/invocation.h"

#include <criterion/criterion.h>

#include "base/clock.h"

#define NOW_NS INT64_C(1795356084000000000) /* 2026-11-22T14:01:24Z */
#define BODY   "{\"unit\":\"nginx\"}"

static struct arena arena;
static char key[65];
static struct http_header headers[INVOCATION_HEADERS_MAX];
static size_t n_headers;

static struct invocation sample(void)
{
    return (struct invocation){
        .function = SV("service-restart"),
        .intent = SV("01JD-intent"),
        .incident = SV("inc-7"),
        .target = SV("host/n\xC3\xA4me 1"),
        .epoch = UINT64_MAX,
        .attempt = 2,
        .intent_unix_ns = NOW_NS - NS_PER_S,
        .deadline_unix_ns = NOW_NS + 30 * NS_PER_S,
    };
}

static void init(void)
{
    struct invocation inv = sample();
    invocation_derive_key(SV("master"), SV("service-restart"), key);
    cr_assert_eq(invocation_sign(&inv, SV("local"), sv(key), SV(BODY), &arena, headers, &n_headers, NULL),
                 STATUS_OK);
}

static void fini(void)
{
    arena_release(&arena);
}

TestSuite(invocation, .init = init, .fini = fini, .timeout = 20);

static struct http_req request(struct strview body)
{
    return (struct http_req){
        .method = SV("POST"), .headers = headers, .n_headers = n_headers, .body = body, .arena = &arena};
}

static enum status verify_at(struct strview body, struct strview function, const char *key_hex,
                             int64_t now_ns, struct invocation *inv)
{
    struct http_req req = request(body);
    return invocation_verify(&req, function, sv(key_hex), now_ns, inv, NULL);
}

static enum status verify(struct strview body)
{
    struct invocation inv = {0};
    return verify_at(body, SV("service-restart"), key, NOW_NS, &inv);
}

static struct http_header *header(const char *name)
{
    for (size_t i = 0; i < n_headers; i++)
        if (sv_eq(headers[i].name, sv(name))) return &headers[i];
    cr_assert(false, "no header %s", name);
    return NULL;
}

Test(invocation, keys_are_hmac_of_the_master_and_differ_by_function)
{
    /* printf 'balm-invocation-key-v1:service-restart' | openssl dgst -sha256 -hmac master */
    char other[65];
    invocation_derive_key(SV("master"), SV("disk-clean"), other);
    cr_assert_str_eq(key, "7d9fbabe3384ee84f498349aa9f3ebd3580d94141c72509e5c67ce8e57754fdc");
    cr_assert_str_neq(other, key);
}

Test(invocation, signature_is_that_of_the_documented_text)
{
    /* printf 'balm-invocation-v1\nservice-restart\n…' | openssl dgst -sha256 -hmac KEY, made outside of this
     * code */
    cr_assert(sv_eq(header("ce-balmsignature")->value,
                    SV("59366a8a600634a4e90283ff08e49753b9411ae03566c918b24c169bb7ce6801")),
              "%.*s", SV_ARG(header("ce-balmsignature")->value));
    cr_assert(sv_eq(header("ce-type")->value, SV("dev.balm.invocation")));
    cr_assert(sv_eq(header("ce-source")->value, SV("/balm/local")));
    cr_assert(sv_eq(header("ce-time")->value, SV("2026-11-22T14:01:23.000000000Z")), "%.*s",
              SV_ARG(header("ce-time")->value));
    cr_assert(sv_eq(header("content-type")->value, SV("application/json")));
}

Test(invocation, a_signed_invocation_is_accepted_and_read_back)
{
    struct invocation inv = {.call_id = SV("kept")}, want = sample();
    cr_assert_eq(verify_at(SV(BODY), SV("service-restart"), key, NOW_NS, &inv), STATUS_OK);
    cr_assert(sv_eq(inv.intent, want.intent) && sv_eq(inv.incident, want.incident) &&
              sv_eq(inv.target, want.target));
    cr_assert_eq(inv.epoch, want.epoch);
    cr_assert_eq(inv.attempt, 2);
    cr_assert_eq(inv.intent_unix_ns, want.intent_unix_ns);
    cr_assert_eq(inv.deadline_unix_ns, want.deadline_unix_ns);
    cr_assert(sv_eq(inv.call_id, SV("kept")));
}

Test(invocation, a_key_file_may_end_in_a_line_feed)
{
    struct invocation inv = {0};
    char with_newline[70];
    (void)snprintf(with_newline, sizeof(with_newline), "%s\n", key);
    cr_assert_eq(verify_at(SV(BODY), SV("service-restart"), with_newline, NOW_NS, &inv), STATUS_OK);
}

Test(invocation, any_change_of_body_or_signed_header_is_refused)
{
    const char *names[] = {"ce-id",           "ce-subject",      "ce-time",
                           "ce-balmincident", "ce-balmfunction", "ce-balmepoch",
                           "ce-balmattempt",  "ce-balmdeadline", "ce-balmsignature"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct http_header *h = header(names[i]), before = *h;
        char *text = arena_cstr(&arena, h->value);
        text[h->value.len - 1] ^= 1;
        h->value = sv_n(text, before.value.len);
        cr_assert_eq(verify(SV(BODY)), STATUS_PERMISSION_DENIED, "%s", names[i]);
        h->name = SV("x-gone");
        cr_assert_eq(verify(SV(BODY)), STATUS_PERMISSION_DENIED, "without %s", names[i]);
        *h = before;
    }
    cr_assert_eq(verify(SV("{\"unit\":\"sshd\"}")), STATUS_PERMISSION_DENIED);
    cr_assert_eq(verify(SV(BODY)), STATUS_OK);
}

Test(invocation, another_function_or_key_is_refused)
{
    struct invocation inv = {0};
    char other[65];
    invocation_derive_key(SV("master"), SV("disk-clean"), other);
    cr_assert_eq(verify_at(SV(BODY), SV("disk-clean"), key, NOW_NS, &inv), STATUS_PERMISSION_DENIED);
    cr_assert_eq(verify_at(SV(BODY), SV("service-restart"), other, NOW_NS, &inv), STATUS_PERMISSION_DENIED);
    cr_assert_eq(verify_at(SV(BODY), SV("service-restart"), "", NOW_NS, &inv), STATUS_PERMISSION_DENIED);
    cr_assert_eq(verify_at(SV(BODY), SV("service-restart"), " \n", NOW_NS, &inv), STATUS_PERMISSION_DENIED);
    cr_assert_eq(inv.intent.len, 0);
}

Test(invocation, a_passed_deadline_is_told_apart_from_a_forgery)
{
    struct invocation inv = {0}, want = sample();
    cr_assert_eq(verify_at(SV(BODY), SV("service-restart"), key, want.deadline_unix_ns - 1, &inv), STATUS_OK);
    inv = (struct invocation){0};
    cr_assert_eq(verify_at(SV(BODY), SV("service-restart"), key, want.deadline_unix_ns, &inv),
                 STATUS_DEADLINE_EXCEEDED);
    cr_assert_eq(inv.intent.len, 0);
}

Test(invocation, plain_requests_and_other_events_are_refused)
{
    struct http_req plain = {.method = SV("POST"), .body = SV(BODY), .arena = &arena};
    struct invocation inv = {0};
    struct error err;
    cr_assert_eq(invocation_verify(&plain, SV("service-restart"), sv(key), NOW_NS, &inv, &err),
                 STATUS_PERMISSION_DENIED);
    cr_assert(strstr(err.message, "signed") != NULL);
    header("ce-type")->value = SV("com.example.other");
    cr_assert_eq(verify(SV(BODY)), STATUS_PERMISSION_DENIED);
}

Test(invocation, what_cannot_be_signed_unambiguously_is_refused)
{
    struct invocation inv = sample();
    inv.target = SV("a\nb");
    cr_assert_eq(invocation_sign(&inv, SV("local"), sv(key), SV(BODY), &arena, headers, &n_headers, NULL),
                 STATUS_INVALID_ARGUMENT);
    inv = sample();
    inv.deadline_unix_ns = 0;
    cr_assert_eq(invocation_sign(&inv, SV("local"), sv(key), SV(BODY), &arena, headers, &n_headers, NULL),
                 STATUS_INVALID_ARGUMENT);
    inv = sample();
    cr_assert_eq(invocation_sign(&inv, SV("local"), SV(""), SV(BODY), &arena, headers, &n_headers, NULL),
                 STATUS_INVALID_ARGUMENT);
}

Test(invocation, an_intent_without_incident_and_target_can_be_signed)
{
    struct invocation inv = sample(), back = {0};
    inv.incident = inv.target = (struct strview){0};
    cr_assert_eq(invocation_sign(&inv, SV("local"), sv(key), SV(""), &arena, headers, &n_headers, NULL),
                 STATUS_OK);
    cr_assert_eq(verify_at(SV(""), SV("service-restart"), key, NOW_NS, &back), STATUS_OK);
    cr_assert_eq(back.target.len + back.incident.len, 0);
}

/* ---- answers ---- */

static struct invocation_reply parse(int http_status, const char *body)
{
    struct invocation_reply r = {0};
    cr_assert_eq(invocation_parse_reply(http_status, sv(body), &arena, &r, NULL), STATUS_OK);
    return r;
}

Test(invocation, answers_of_bots_are_read)
{
    struct invocation_reply r = parse(
        200,
        "{\"detail\":{\"b\":1,\"a\":2},\"entered\":\"2026-11-22T14:01:24.000000001Z\","
        "\"left\":\"2026-11-22T14:01:25Z\",\"message\":\"did\",\"state\":\"done\",\"undo\":\"undo it\"}");
    cr_assert(sv_eq(r.state, SV("done")) && sv_eq(r.message, SV("did")) && sv_eq(r.undo, SV("undo it")));
    cr_assert(sv_eq(r.detail, SV("{\"a\":2,\"b\":1}")));
    cr_assert_eq(r.entered_unix_ns, NOW_NS + 1);
    cr_assert_eq(r.left_unix_ns, NOW_NS + NS_PER_S);
    r = parse(503, "{\"code\":\"UNAVAILABLE\",\"message\":\"later\",\"retry\":true,\"state\":\"failed\"}");
    cr_assert(sv_eq(r.state, SV("failed")) && sv_eq(r.code, SV("UNAVAILABLE")) && r.can_retry);
    cr_assert(sv_eq(r.detail, SV("{}")));
    cr_assert_eq(r.entered_unix_ns, 0);
}

Test(invocation, answers_of_foreign_services_go_by_their_status)
{
    struct invocation_reply r = parse(204, "");
    cr_assert(sv_eq(r.state, SV("done")) && sv_eq(r.message, SV("HTTP 204 No Content")), "%.*s",
              SV_ARG(r.message));
    r = parse(200, "  ok then \n");
    cr_assert(sv_eq(r.state, SV("done")) && sv_eq(r.message, SV("ok then")));
    r = parse(503, "busy");
    cr_assert(sv_eq(r.state, SV("failed")) && sv_eq(r.code, SV("UNAVAILABLE")) && r.can_retry);
    r = parse(404, "{\"state\":\"unheard of\"}");
    cr_assert(sv_eq(r.state, SV("failed")) && sv_eq(r.code, SV("NOT_FOUND")) && !r.can_retry);
    r = parse(502, "{\"state\":\"done\"}"); /* the status does not agree */
    cr_assert(sv_eq(r.state, SV("failed")));
    cr_assert_eq(invocation_parse_reply(0, SV(""), &arena, &r, NULL), STATUS_INVALID_ARGUMENT);
}

Test(invocation, a_foreign_text_is_cut_to_valid_utf8)
{
    char text[500];
    memset(text, 'x', 399);
    memcpy(text + 399, "\xE2\x82\xAC", 4);
    struct invocation_reply r = parse(200, text);
    cr_assert_eq(r.message.len, 399);
}

Test(invocation_check, a_passed_deadline_ends_acting)
{
    struct invocation inv = {.deadline_unix_ns = clock_unix_ns() + 60 * NS_PER_S};
    struct error err;
    cr_assert_eq(invocation_check(&inv, &err), STATUS_OK);
    inv.deadline_unix_ns = clock_unix_ns() - 1;
    cr_assert_eq(invocation_check(&inv, &err), STATUS_DEADLINE_EXCEEDED);
    inv.deadline_unix_ns = 0; /* a plain function's */
    cr_assert_eq(invocation_check(&inv, &err), STATUS_OK);
}
