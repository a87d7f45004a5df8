/* CloudEvents at a function's port (contracts/knative-cloudevents.md §2, §3).
 *
 *   binary, structured, batch -> each event as a request in binary form -> the handler, as for any request
 *        its answer: 2xx with something to say -> a reply event, in the mode that the request came in
 *                    2xx with nothing to say   -> 202
 *                    anything else             -> that status, as event senders understand it
 *
 * A reply is of the type that the handler gives it (ce-type), else dev.balm.NAME.result; never of the
 * request's type by default. Brokers bring replies to whoever wants them, and that may be us again: our own
 * replies are accepted and not handled, and each reply counts the events that led to it. */
#include "base/clock.h"
#include "base/list.h"
#include "base/random.h"
#include "cloudevents/cloudevents.h"
#include "function/function_impl.h"

#define EXTENSION_HOPS SV("balmhops")
#define HOPS_MAX       8 /* bots that answer each other's replies would go on for ever */

/* Without a charset, which JSON has no use for: Go's SDK takes a batch by exactly this type. */
#define TYPE_STRUCTURED SV("application/cloudevents+json")
#define TYPE_BATCH      SV("application/cloudevents-batch+json")

/* ---- in ---- */

/* The event in binary mode, whatever mode it came in; other headers stay. */
static enum status request_of(const struct cloudevent *e, const struct http_req *req,
                              struct http_req *ret_req, struct error *err)
{
    struct http_header *headers = arena_array(req->arena, 2 * HTTP_HEADERS_MAX, sizeof(*headers));
    size_t n = 0;
    enum status s = cloudevent_to_headers(e, req->arena, headers, HTTP_HEADERS_MAX, &n, err);
    if (s != STATUS_OK) return s;
    for (size_t i = 0; i < req->n_headers; i++) {
        struct strview name = req->headers[i].name;
        if (!sv_starts_with(name, SV("ce-")) && !sv_eq(name, SV("content-type")))
            headers[n++] = req->headers[i];
    }
    *ret_req = *req;
    ret_req->headers = headers;
    ret_req->n_headers = n;
    ret_req->body = e->data;
    return STATUS_OK;
}

static uint64_t hops_of(const struct cloudevent *e)
{
    uint64_t hops = 0;
    struct strview text = cloudevent_extension(e, EXTENSION_HOPS);
    if (text.len == 0) return 0;
    return sv_parse_u64(text, &hops) == STATUS_OK ? hops : HOPS_MAX;
}

static bool is_our_own_reply(const struct function *f, const struct cloudevent *e)
{
    return sv_eq(e->source, sv(f->cfg.event_source)) && hops_of(e) > 0;
}

/* ---- the answer as an event ---- */

static void copy_extension(const struct cloudevent *from, struct strview name, struct cloudevent *to)
{
    struct strview value = cloudevent_extension(from, name);
    if (value.len == 0 || cloudevent_extension(to, name).len > 0 ||
        to->n_extensions == CLOUDEVENT_EXTENSIONS_MAX)
        return;
    to->extensions[to->n_extensions++] = (struct http_header){.name = name, .value = value};
}

static void set_hops(struct cloudevent *reply, struct arena *a, uint64_t hops)
{
    struct http_header mark = {.name = EXTENSION_HOPS,
                               .value = arena_printf(a, "%llu", (unsigned long long)hops)};
    for (size_t i = 0; i < reply->n_extensions; i++)
        if (sv_eq(reply->extensions[i].name, EXTENSION_HOPS)) {
            reply->extensions[i] = mark;
            return;
        }
    if (reply->n_extensions < CLOUDEVENT_EXTENSIONS_MAX) reply->extensions[reply->n_extensions++] = mark;
}

/* What the handler has left open. An id that came in goes out again only under another source: the two
 * together are what makes an event one of its own. */
static void complete(const struct function *f, const struct cloudevent *in, struct arena *a,
                     struct cloudevent *reply)
{
    char id[UUID_LEN + 1];
    bool is_plain = reply->type.len == 0;
    reply->specversion = SV("1.0");
    if (is_plain) reply->type = arena_printf(a, "dev.balm.%s.result", f->def->name);
    if (is_plain && reply->subject.len == 0) reply->subject = in->subject;
    if (reply->source.len == 0) reply->source = sv(f->cfg.event_source);
    if (reply->id.len == 0 || (sv_eq(reply->id, in->id) && sv_eq(reply->source, in->source))) {
        random_uuid(id);
        reply->id = arena_copy(a, sv_n(id, UUID_LEN));
    }
    if (reply->time.len == 0) reply->time = rfc3339_text(a, clock_unix_ns());
    copy_extension(in, SV("traceparent"), reply);
    copy_extension(in, SV("tracestate"), reply);
    set_hops(reply, a, hops_of(in) + 1);
}

static bool is_event_header(const struct http_header *h)
{
    return sv_starts_with(h->name, SV("ce-"));
}

static bool says_something(const struct http_resp *resp)
{
    for (size_t i = 0; i < resp->n_headers; i++)
        if (is_event_header(&resp->headers[i])) return true;
    return resp->body.len > 0;
}

/* A handler may answer with an event itself, in either mode. */
static enum status read_answer(const struct http_resp *resp, struct arena *a, struct cloudevent *ret_reply,
                               struct error *err)
{
    const struct http_req as_sent = {
        .headers = resp->headers, .n_headers = resp->n_headers, .body = resp->body, .arena = a};
    const struct cloudevent *whole = NULL;
    size_t n = 0;
    enum status s;
    if (cloudevent_mode(&as_sent) == CLOUDEVENT_STRUCTURED) {
        s = cloudevent_decode(&as_sent, &whole, &n, err);
        if (s == STATUS_OK) *ret_reply = *whole;
        return s;
    }
    s = cloudevent_from_headers(resp->headers, resp->n_headers, a, ret_reply, err);
    ret_reply->data = resp->body;
    return s;
}

static enum status make_reply(const struct function *f, const struct cloudevent *in,
                              const struct http_resp *resp, struct arena *a, struct cloudevent *ret_reply,
                              struct error *err)
{
    struct cloudevent reply = {0};
    enum status s = read_answer(resp, a, &reply, err);
    if (s == STATUS_OK) {
        complete(f, in, a, &reply);
        s = cloudevent_validate(&reply, err);
    }
    if (s != STATUS_OK) {
        (void)error_prefix(err, s, "%s's reply event", f->def->name);
        return error_set(err, STATUS_INTERNAL, "%s", err->message);
    }
    *ret_reply = reply;
    return STATUS_OK;
}

/* ---- what senders make of a status ---- */

/* They try again after 404, 408, 409, 429 and 5xx, and give up on every other 4xx; 1xx and 3xx mean nothing
 * to them. */
static int event_status(int status)
{
    switch (status) {
    case 404: /* no such type or object: it will not be there the next time either */
    case 501:
        return 400;
    case 499: /* we were told to end */
        return 503;
    default:
        return status >= 400 ? status : 500;
    }
}

static bool is_success(int status)
{
    return status >= 200 && status <= 299;
}

static void answer_failure(const struct http_resp *one, struct http_resp *resp)
{
    resp->status = event_status(one->status);
    resp->body = one->body;
    for (size_t i = 0; i < one->n_headers; i++)
        http_resp_header(resp, one->headers[i].name, one->headers[i].value);
}

static void answer_error(const struct function *f, const struct http_req *req, const struct error *err,
                         struct http_resp *resp)
{
    http_resp_error(resp, req->arena, err);
    if (err->code == STATUS_UNIMPLEMENTED) resp->status = 415;
    if (resp->status >= 500)
        log_warn("function", "no reply event", LOG_STR("function", f->def->name),
                 LOG_STR("error", err->message));
}

/* ---- one event after the other ---- */

struct replies {
    struct cloudevent *events;
    size_t n;
    struct http_resp last; /* of the handler; its own headers go out with a binary reply */
};

/* False: *resp is the failure that ends it. */
static bool handle_event(struct function *f, struct invocation *inv, const struct cloudevent *e,
                         function_serve_fn *serve, struct replies *replies, struct http_resp *resp)
{
    const struct http_req *req = inv->req;
    struct http_req one_req;
    struct error err;
    if (is_our_own_reply(f, e)) return true;
    struct http_resp *one = &replies->last;
    *one = (struct http_resp){.status = 200};
    enum status s = request_of(e, req, &one_req, &err);
    if (s == STATUS_OK) {
        inv->req = &one_req;
        serve(f, inv, one);
        inv->req = req;
        if (!is_success(one->status)) {
            answer_failure(one, resp);
            return false;
        }
        if (!says_something(one)) return true;
        if (hops_of(e) >= HOPS_MAX) {
            log_warn("function", "no reply event: bots answer each other's replies",
                     LOG_STR("function", f->def->name), LOG_SV("source", e->source));
            return true;
        }
        s = make_reply(f, e, one, req->arena, &replies->events[replies->n], &err);
    }
    if (s == STATUS_OK) replies->n++;
    if (s != STATUS_OK) answer_error(f, req, &err, resp);
    return s == STATUS_OK;
}

static void answer_binary(const struct function *f, const struct http_req *req, const struct replies *replies,
                          struct http_resp *resp)
{
    struct http_header *headers = arena_array(req->arena, HTTP_RESP_HEADERS_MAX, sizeof(*headers));
    size_t n = 0;
    struct error err;
    if (cloudevent_to_headers(&replies->events[0], req->arena, headers, HTTP_RESP_HEADERS_MAX - 4, &n,
                              &err) != STATUS_OK) {
        answer_error(f, req, &err, resp);
        return;
    }
    for (size_t i = 0; i < n; i++)
        http_resp_header(resp, headers[i].name, headers[i].value);
    for (size_t i = 0; i < replies->last.n_headers; i++) {
        const struct http_header *h = &replies->last.headers[i];
        if (!is_event_header(h) && !sv_eq(h->name, SV("content-type")))
            http_resp_header(resp, h->name, h->value);
    }
    resp->body = replies->events[0].data;
}

static void answer_events(const struct function *f, const struct http_req *req, enum cloudevent_mode mode,
                          const struct replies *replies, struct http_resp *resp)
{
    if (replies->n == 0)
        resp->status = 202; /* accepted, and nothing to read */
    else if (mode == CLOUDEVENT_BINARY)
        answer_binary(f, req, replies, resp);
    else if (mode == CLOUDEVENT_STRUCTURED)
        http_resp_set(resp, 200, TYPE_STRUCTURED, cloudevent_to_json(&replies->events[0], req->arena));
    else
        http_resp_set(resp, 200, TYPE_BATCH, cloudevents_to_json(replies->events, replies->n, req->arena));
}

/* The platform reads what came of a signed invocation itself; nobody takes it further. */
static bool wants_plain_answer(const struct function *f, const struct http_req *req,
                               enum cloudevent_mode mode)
{
    return f->def->acts && mode == CLOUDEVENT_BINARY &&
           !sv_contains(http_req_header(req, SV("prefer")), SV("reply"));
}

void function_serve_events(struct function *f, struct invocation *inv, function_serve_fn *serve,
                           struct http_resp *resp)
{
    const struct http_req *req = inv->req;
    enum cloudevent_mode mode = cloudevent_mode(req);
    const struct cloudevent *events = NULL;
    struct replies replies = {0};
    struct error err;
    size_t n = 0;
    if (mode == CLOUDEVENT_NONE || wants_plain_answer(f, req, mode)) {
        serve(f, inv, resp);
        return;
    }
    if (cloudevent_decode(req, &events, &n, &err) != STATUS_OK) {
        answer_error(f, req, &err, resp);
        return;
    }
    replies.events = arena_array(req->arena, n, sizeof(*replies.events));
    for (size_t i = 0; i < n; i++)
        if (!handle_event(f, inv, &events[i], serve, &replies, resp)) return;
    answer_events(f, req, mode, &replies, resp);
}

/* ---- who may send (CloudEvents' web hooks, §2.6) ---- */

static bool is_listed(struct strview list, struct strview origin)
{
    struct strview entry;
    while (sv_next(&list, ',', &entry)) {
        entry = sv_trim(entry);
        if (sv_eq(entry, SV("*")) || (entry.len > 0 && sv_eq_nocase(entry, origin))) return true;
    }
    return false;
}

bool function_grants_webhook(const struct function *f, const struct http_req *req, struct http_resp *resp)
{
    struct strview origin = http_req_header(req, SV("webhook-request-origin"));
    if (f->cfg.webhook_origins == NULL || origin.len == 0 || !sv_eq(req->method, SV("OPTIONS"))) return false;
    http_resp_header(resp, SV("allow"), SV("POST"));
    if (!is_listed(sv(f->cfg.webhook_origins), origin)) {
        resp->status = 405;
        return true;
    }
    http_resp_header(resp, SV("webhook-allowed-origin"), origin);
    if (http_req_header(req, SV("webhook-request-rate")).len > 0) /* what is too much gets 429 */
        http_resp_header(resp, SV("webhook-allowed-rate"), SV("*"));
    return true;
}
