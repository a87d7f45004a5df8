/* Events at a function's port: what the handler is shown, and what becomes of its answer. */
#include <criterion/criterion.h>
#include <signal.h>
#include <unistd.h>

#include "function/function.h"
#include "function_process.h"
#include "loop/loop.h"

static enum status with_headers(struct result *ret, const struct http_header *headers, size_t n,
                                struct strview body)
{
    struct http_header *copy = arena_array(ret->arena, n, sizeof(*copy));
    memcpy(copy, headers, n * sizeof(*copy));
    ret->headers = copy;
    ret->n_headers = n;
    return result_reply(ret, 0, SV("text/plain"), body);
}

/* The event's type says what to do. */
static enum status handle_as_typed(struct invocation *inv, const void *params, struct result *ret,
                                   struct error *err)
{
    struct strview type = http_req_header(inv->req, SV("ce-type"));
    struct strview id = http_req_header(inv->req, SV("ce-id"));
    (void)params;
    if (sv_eq(type, SV("silent"))) return result_reply(ret, 204, (struct strview){0}, SV(""));
    if (sv_eq(type, SV("unknown"))) return error_set(err, STATUS_NOT_FOUND, "no such type");
    if (sv_eq(type, SV("unimplemented"))) return error_set(err, STATUS_UNIMPLEMENTED, "not done here");
    if (sv_eq(type, SV("busy"))) return error_set(err, STATUS_UNAVAILABLE, "backend is away");
    if (sv_eq(type, SV("moved"))) return result_reply(ret, 301, SV("text/plain"), SV("elsewhere"));
    if (sv_eq(type, SV("created"))) return result_reply(ret, 201, SV("text/plain"), SV("made"));
    if (sv_eq(type, SV("state"))) return result_done(ret, "did it");
    if (sv_eq(type, SV("slow")) && sleep_ms(600) != STATUS_OK)
        return error_set(err, STATUS_DEADLINE_EXCEEDED, "too slow");
    if (sv_eq(type, SV("typed")))
        return with_headers(ret,
                            (const struct http_header[]){
                                {SV("ce-type"), SV("mine")}, {SV("ce-id"), id}, {SV("x-own"), SV("1")}},
                            3, SV("own"));
    if (sv_eq(type, SV("mirror"))) /* as a program that sends back what it got */
        return with_headers(
            ret,
            (const struct http_header[]){{SV("ce-type"), type},
                                         {SV("ce-id"), id},
                                         {SV("ce-source"), http_req_header(inv->req, SV("ce-source"))}},
            3, SV("same"));
    if (sv_eq(type, SV("broken")))
        return with_headers(ret, (const struct http_header[]){{SV("ce-bad_name"), SV("x")}}, 1, SV("x"));
    struct strview body = arena_printf(inv->arena, "%.*s:%.*s", SV_ARG(id), SV_ARG(inv->req->body));
    return result_reply(ret, 0, http_req_header(inv->req, SV("content-type")), body);
}

static const struct function_def typed = {
    .name = "typed", .summary = "for tests", .handle = handle_as_typed, .manifest_json = "{}"};

static struct function_process process;
static char answer[ANSWER_MAX];

#define ENV(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define START(...)                                                                                           \
    function_start(&process, &typed,                                                                         \
                   ENV("port=0", "BALM_METRICS=off", "suppress_lock=1" __VA_OPT__(, ) __VA_ARGS__))

static void fini(void)
{
    function_kill(&process);
}

TestSuite(function_event, .fini = fini, .timeout = 60);

static int post(const char *headers, const char *body)
{
    char request[8192];
    (void)snprintf(request, sizeof(request),
                   "POST / HTTP/1.1\r\nHost: f\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s",
                   headers, strlen(body), body);
    return http_talk(process.port, request, answer) ? http_status(answer) : 0;
}

/* Binary mode. */
static int event(const char *type, const char *more)
{
    char headers[1024];
    (void)snprintf(headers, sizeof(headers),
                   "ce-id: e1\r\nce-source: /s\r\nce-specversion: 1.0\r\nce-type: %s\r\n%s", type, more);
    return post(headers, "data");
}

static int structured(const char *body)
{
    return post("Content-Type: application/cloudevents+json\r\n", body);
}

#define EVENT(type, more)                                                                                    \
    "{\"id\":\"e7\",\"source\":\"/s\",\"type\":\"" type "\",\"specversion\":\"1.0\"" more "}"

static void assert_has(const char *text)
{
    cr_assert(strstr(answer, text) != NULL, "no '%s' in: %s", text, answer);
}

static void assert_has_not(const char *text)
{
    cr_assert(strstr(answer, text) == NULL, "'%s' in: %s", text, answer);
}

Test(function_event, a_binary_event_is_answered_by_a_binary_one_of_a_type_and_id_of_its_own)
{
    START();
    cr_assert_eq(event("t", "Content-Type: text/plain\r\nce-subject: web%201\r\n"), 200);
    cr_assert_str_eq(http_body(answer), "e1:data");
    assert_has("content-type: text/plain\r\n");
    assert_has("ce-specversion: 1.0\r\n");
    assert_has("ce-type: dev.balm.typed.result\r\n");
    assert_has("ce-source: /typed\r\n");
    assert_has("ce-subject: web%201\r\n");
    assert_has("ce-time: 20");
    assert_has("ce-balmhops: 1\r\n");
    assert_has("\r\nce-id: ");
    assert_has_not("ce-id: e1\r\n");
    assert_has_not("ce-datacontenttype");
    assert_has("x-duration-seconds: ");
}

Test(function_event, a_structured_event_reaches_the_handler_as_a_binary_one_and_is_answered_in_kind)
{
    START("K_SERVICE=healer");
    cr_assert_eq(structured(EVENT("t", ",\"data\":{\"a\":1},\"traceparent\":\"00-1-2-01\"")), 200);
    assert_has("content-type: application/cloudevents+json\r\n");
    assert_has("\"data_base64\":\"ZTc6eyJhIjoxfQ==\""); /* no JSON, though it came as such */
    assert_has("\"datacontenttype\":\"application/json\"");
    assert_has("\"source\":\"/healer\"");
    assert_has("\"type\":\"dev.balm.typed.result\"");
    assert_has("\"traceparent\":\"00-1-2-01\"");
    assert_has_not("ce-type");
    cr_assert_eq(structured(EVENT("state", "")), 200);
    assert_has("\"data\":{\"detail\":{},");
    assert_has("\"state\":\"done\"");
}

Test(function_event, a_handler_gives_its_reply_the_attributes_it_wants)
{
    START("event_source=urn:bots");
    cr_assert_eq(event("typed", ""), 200);
    assert_has("ce-type: mine\r\n");
    assert_has("ce-source: urn:bots\r\n");
    assert_has("ce-id: e1\r\n"); /* another source: another event */
    assert_has("x-own: 1\r\n");
    cr_assert_str_eq(http_body(answer), "own");
    cr_assert_eq(event("mirror", ""), 200);
    assert_has("ce-source: /s\r\n");
    assert_has_not("ce-id: e1\r\n"); /* it would be the event that came in, once more */
    cr_assert_eq(event("broken", ""), 500);
    assert_has("bad_name");
    cr_assert(function_log_has(&process, "no reply event"));
}

Test(function_event, with_nothing_to_say_it_is_202_and_other_2xx_become_200)
{
    START();
    cr_assert_eq(event("silent", ""), 202);
    cr_assert_str_eq(http_body(answer), "");
    assert_has_not("ce-");
    cr_assert_eq(event("created", ""), 200);
    assert_has("ce-type: dev.balm.typed.result\r\n");
}

Test(function_event, failures_are_told_as_senders_understand_them)
{
    START("max_inflight=1");
    cr_assert_eq(event("unknown", ""), 400); /* 404 would be tried again for ever */
    assert_has("no such type");
    cr_assert_eq(event("unimplemented", ""), 400);
    cr_assert_eq(event("busy", ""), 503);
    assert_has("retry-after: 1\r\n");
    cr_assert_eq(event("moved", ""), 500);
    cr_assert_eq(structured("{\"id\":\"e7\"}"), 400);
    assert_has("is missing");
    cr_assert_eq(post("Content-Type: application/cloudevents+xml\r\n", "<a/>"), 415);
    cr_assert_eq(event("t", "ce-id: e2\r\n"), 400); /* each attribute once */
    cr_assert_eq(post("Content-Type: text/plain\r\n", "no event"), 200);
    cr_assert_str_eq(http_body(answer), ":no event");
    assert_has_not("ce-");
}

Test(function_event, a_batch_goes_through_in_order_and_its_replies_come_as_one)
{
    START();
    const char *batch = "Content-Type: application/cloudevents-batch+json\r\n";
    cr_assert_eq(post(batch, "[]"), 202);
    cr_assert_eq(post(batch, "[" EVENT("silent", "") "," EVENT("silent", "") "]"), 202);
    cr_assert_str_eq(http_body(answer), "");
    cr_assert_eq(post(batch, "[" EVENT("created", "") "," EVENT("silent", "") "," EVENT("state", "") "]"),
                 200);
    assert_has("content-type: application/cloudevents-batch+json\r\n");
    const char *made = strstr(answer, "\"data\":\"made\""), *done = strstr(answer, "\"state\":\"done\"");
    cr_assert(made != NULL && done != NULL && made < done, "%s", answer);
    cr_assert_eq(post(batch, "[" EVENT("created", "") "," EVENT("unknown", "") "," EVENT("busy", "") "]"),
                 400);
    assert_has("no such type");
    cr_assert_eq(post(batch, "[" EVENT("t", "") ",{}]"), 400);
}

Test(function_event, its_own_replies_are_accepted_and_not_handled)
{
    START();
    const char *own = "ce-id: r1\r\nce-source: /typed\r\nce-specversion: 1.0\r\nce-type: busy\r\n";
    char marked[512];
    cr_assert_eq(post(own, ""), 503); /* anybody may call himself that */
    (void)snprintf(marked, sizeof(marked), "%sce-balmhops: 1\r\n", own);
    cr_assert_eq(post(marked, ""), 202);
}

Test(function_event, bots_that_answer_each_other_come_to_an_end)
{
    START();
    cr_assert_eq(event("t", "ce-balmhops: 7\r\n"), 200);
    assert_has("ce-balmhops: 8\r\n");
    cr_assert_eq(event("t", "ce-balmhops: 8\r\n"), 202); /* handled; nobody hears of it */
    cr_assert_eq(event("busy", "ce-balmhops: 8\r\n"), 503);
    cr_assert_eq(event("t", "ce-balmhops: many\r\n"), 202);
    cr_assert(function_log_has(&process, "bots answer each other's replies"));
}

Test(function_event, the_events_of_a_batch_share_one_time_limit)
{
    START("exec_timeout=1s");
    const char *batch = "Content-Type: application/cloudevents-batch+json\r\n";
    cr_assert_eq(post(batch, "[" EVENT("slow", "") "]"), 200);
    cr_assert_eq(post(batch, "[" EVENT("slow", "") "," EVENT("slow", "") "]"), 504);
}

static int ask_leave(const char *origin, const char *more)
{
    char request[1024];
    (void)snprintf(
        request, sizeof(request),
        "OPTIONS / HTTP/1.1\r\nHost: f\r\nConnection: close\r\nWebHook-Request-Origin: %s\r\n%s\r\n", origin,
        more);
    return http_talk(process.port, request, answer) ? http_status(answer) : 0;
}

Test(function_event, senders_on_the_list_are_granted_leave)
{
    START("webhook_origins=events.example.com, *.not-a-pattern");
    cr_assert_eq(ask_leave("Events.Example.com", "WebHook-Request-Rate: 120\r\n"), 200);
    assert_has("webhook-allowed-origin: Events.Example.com\r\n");
    assert_has("webhook-allowed-rate: *\r\n");
    assert_has("allow: POST\r\n");
    assert_has_not("x-call-id"); /* the handler was not asked */
    cr_assert_eq(ask_leave("events.example.com", ""), 200);
    assert_has_not("webhook-allowed-rate");
    cr_assert_eq(ask_leave("evil.example.com", ""), 405);
    assert_has("allow: POST\r\n");
    assert_has_not("webhook-allowed-origin");
    function_kill(&process);
    START();
    cr_assert_eq(ask_leave("events.example.com", ""), 200); /* the handler's own business */
    assert_has("x-call-id");
    assert_has_not("webhook-allowed-origin");
}
