/* The fiber's side: take a slot, try, perhaps try once more, wait no longer than the deadline.
 *
 *   slot_take -> call_start -> wait: moved | deadline | cancelled -> call_release -> slot_leave
 *                    ^                  |
 *                    +---- once, if a pooled connection died without a byte under a GET or HEAD
 *
 * h2o's sockets call back into struct forward_call, which lies on this fiber's stack: no way out of a
 * function here leaves without forward_call_release(), which cuts the connection at once. */
#include "client/forward.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/list.h"
#include "base/memory.h"
#include "client/forward_impl.h"
#include "log/log.h"

/* ---- upstream ---- */

static enum status address_of_unix(const char *path, union forward_address *addr, socklen_t *ret_len,
                                   struct error *err)
{
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof(addr->local.sun_path)) {
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "upstream %s: the path has %zu characters, a unix socket's 1 to %zu", path, len,
                         sizeof(addr->local.sun_path) - 1);
    }
    addr->local.sun_family = AF_UNIX;
    memcpy(addr->local.sun_path, path, len + 1);
    *ret_len = sizeof(addr->local);
    return STATUS_OK;
}

static enum status address_of_host(const char *host, uint16_t port, union forward_address *addr,
                                   socklen_t *ret_len, struct error *err)
{
    if (inet_pton(AF_INET, host, &addr->v4.sin_addr) == 1) {
        addr->v4.sin_family = AF_INET;
        addr->v4.sin_port = htons(port);
        *ret_len = sizeof(addr->v4);
        return STATUS_OK;
    }
    if (inet_pton(AF_INET6, host, &addr->v6.sin6_addr) == 1) {
        addr->v6.sin6_family = AF_INET6;
        addr->v6.sin6_port = htons(port);
        *ret_len = sizeof(addr->v6);
        return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID_ARGUMENT, "upstream %s: not an IPv4 or IPv6 address", host);
}

enum status upstream_new(struct loop *l, const char *unix_path, const char *host, uint16_t port,
                         unsigned max_connections, struct upstream **ret_upstream, struct error *err)
{
    union forward_address addr;
    socklen_t len = 0;
    memset(&addr, 0, sizeof(addr));
    assert(unix_path != NULL || host != NULL);
    enum status s = unix_path != NULL ? address_of_unix(unix_path, &addr, &len, err)
                                      : address_of_host(host, port, &addr, &len, err);
    if (s != STATUS_OK) return s;
    struct upstream *u = mem_zalloc(1, sizeof(*u));
    u->loop = l;
    u->max_connections = max_connections > 0 ? max_connections : FORWARD_CONNECTIONS_MAX;
    list_init(&u->waiting);
    if (unix_path != NULL)
        (void)snprintf(u->name, sizeof(u->name), "unix:%s", unix_path);
    else
        (void)snprintf(u->name, sizeof(u->name), "%s:%u", host, port);
    u->address = addr;
    u->address_len = len;
    forward_pool_init(u);
    *ret_upstream = u;
    return STATUS_OK;
}

void upstream_free(struct upstream *u)
{
    if (u == NULL) return;
    assert(u->inflight == 0);
    forward_pool_release(u);
    free(u);
}

unsigned upstream_inflight(const struct upstream *u)
{
    return u->inflight;
}

/* ---- slots ---- */

struct slot_waiter {
    struct list node;
    struct fiber_event given; /* the leaver's slot is ours: `inflight` was not lowered */
};

static enum status slot_take(struct upstream *u, int64_t deadline_ns, struct error *err)
{
    if (u->inflight < u->max_connections) {
        u->inflight++;
        return STATUS_OK;
    }
    struct slot_waiter w = {0};
    fiber_event_init(&w.given);
    list_push_back(&u->waiting, &w.node);
    enum status s = fiber_event_wait(&w.given, deadline_ns);
    if (s == STATUS_OK) return STATUS_OK;
    list_remove(&w.node);
    return error_set(err, s, "all %u connections were busy until the end", u->max_connections);
}

static void slot_leave(struct upstream *u)
{
    struct list *node = list_pop_front(&u->waiting);
    if (node != NULL)
        fiber_event_set(&container_of(node, struct slot_waiter, node)->given);
    else
        u->inflight--;
}

/* ---- one call ---- */

static void call_prepare(struct forward_call *c, struct upstream *u, const struct forward_spec *spec,
                         struct arena *a)
{
    *c = (struct forward_call){
        .upstream = u,
        .arena = a,
        .max_body_bytes = spec->max_body_bytes > 0 ? spec->max_body_bytes : FORWARD_BODY_MAX_BYTES,
        .is_head_method = sv_eq(spec->method, SV("HEAD")),
        .is_repeatable =
            spec->is_repeatable || sv_eq(spec->method, SV("GET")) || sv_eq(spec->method, SV("HEAD")),
        .reply = {.attempts = 1},
    };
    c->request[1] = h2o_iovec_init(spec->body.ptr, spec->body.len);
}

/* Until the call is done or, when streaming, has a head. Whatever the wait says other than OK has cut the
 * call. */
static enum status call_wait_head(struct forward_call *c, int64_t deadline_ns, struct error *err)
{
    while (!c->is_done && !(c->is_streaming && c->has_head)) {
        fiber_event_reset(&c->moved);
        enum status s = fiber_event_wait(&c->moved, deadline_ns);
        if (s == STATUS_OK) continue;
        forward_call_release(c);
        (void)!error_set(err, s, "%s",
                         s == STATUS_CANCELLED ? "the caller was cancelled"
                                               : "no complete answer before the deadline");
        if (err != NULL && c->is_sent) err->can_retry = false;
        return s;
    }
    if (c->status != STATUS_OK && err != NULL) *err = c->err;
    return c->status;
}

static enum status call_run(struct forward_call *c, struct upstream *u, const struct forward_spec *spec,
                            struct error *err)
{
    forward_call_start(c);
    enum status s = call_wait_head(c, spec->deadline_ns, err);
    bool has_died_silently = c->is_done && c->is_reused && c->is_silent;
    if (s == STATUS_OK || !has_died_silently || !c->is_repeatable) return s;
    forward_call_release(c);
    c->is_done = c->is_reused = c->is_silent = c->is_written = false;
    c->status = STATUS_OK;
    c->reply.attempts = 2;
    forward_pool_empty(u); /* one was dead, so the others are suspect */
    forward_call_start(c);
    return call_wait_head(c, spec->deadline_ns, err);
}

static enum status forward_begin(struct forward_call *c, struct upstream *u, const struct forward_spec *spec,
                                 struct arena *a, bool is_streaming, struct error *err)
{
    struct strview head;
    assert(spec->deadline_ns > 0);
    enum status s = forward_head_build(spec, a, &head, err);
    if (s != STATUS_OK) return s;
    s = slot_take(u, spec->deadline_ns, err);
    if (s != STATUS_OK) return s;
    int64_t started_ns = loop_now_ns(u->loop);
    call_prepare(c, u, spec, a);
    c->is_streaming = is_streaming;
    c->request[0] = h2o_iovec_init(head.ptr, head.len);
    s = call_run(c, u, spec, err);
    c->reply.elapsed_ns = loop_now_ns(u->loop) - started_ns;
    if (s == STATUS_OK) return STATUS_OK;
    forward_call_release(c);
    slot_leave(u);
    return s;
}

static void forward_end(struct forward_call *c)
{
    forward_call_release(c);
    slot_leave(c->upstream);
}

enum status forward_run(struct upstream *u, const struct forward_spec *spec, struct arena *a,
                        struct http_reply *ret_reply, struct forward_trace *ret_trace, struct error *err)
{
    struct forward_call c = {.is_sent = false};
    enum status s = forward_begin(&c, u, spec, a, false, err);
    ret_trace->is_sent = c.is_sent;
    if (s != STATUS_OK) return s;
    *ret_reply = c.reply;
    ret_reply->body = arena_copy(a, buf_view(&c.body));
    forward_end(&c);
    return STATUS_OK;
}

enum status http_forward(struct upstream *u, const struct forward_spec *spec, struct arena *a,
                         struct http_reply *ret_reply, struct error *err)
{
    struct forward_trace trace;
    enum status s = forward_run(u, spec, a, ret_reply, &trace, err);
    return s == STATUS_OK ? s : error_prefix(err, s, "forward to %s", u->name);
}

/* ---- streamed ---- */

/* Passes on what comes until the end. A client that has left ends the upstream's call too. */
static enum status pass_on(struct forward_call *c, struct http_resp *resp, int64_t deadline_ns)
{
    struct buf taken;
    enum status s = STATUS_OK;
    buf_init(&taken, FORWARD_STREAM_MAX_BYTES);
    for (;;) {
        struct buf empty = taken; /* swapped: callbacks fill one while the other is written */
        taken = c->body;
        c->body = empty;
        forward_call_resume(c);
        s = http_resp_write(resp, buf_view(&taken));
        buf_reset(&taken);
        if (s != STATUS_OK || (c->is_done && c->body.len == 0)) break;
        if (c->body.len > 0) continue;
        fiber_event_reset(&c->moved);
        s = fiber_event_wait(&c->moved, deadline_ns);
        if (s != STATUS_OK) break;
    }
    buf_release(&taken);
    return s == STATUS_OK ? c->status : s;
}

bool forward_is_ours(struct strview name)
{
    return sv_eq(name, SV("x-duration-seconds")) || sv_eq(name, SV("x-openfaas-internal"));
}

enum status http_forward_stream(struct upstream *u, const struct forward_spec *spec,
                                const struct http_req *req, struct http_resp *resp, int *ret_status,
                                struct error *err)
{
    struct forward_call c;
    enum status s = forward_begin(&c, u, spec, req->arena, true, err);
    if (s != STATUS_OK) return error_prefix(err, s, "forward to %s", u->name);
    *ret_status = resp->status = c.reply.status;
    for (size_t i = 0; i < c.reply.n_headers; i++)
        if (!spec->is_foreign || !forward_is_ours(c.reply.headers[i].name))
            http_resp_header(resp, c.reply.headers[i].name, c.reply.headers[i].value);
    if (c.is_done) { /* it all came at once */
        resp->body = arena_copy(req->arena, buf_view(&c.body));
    } else if (http_resp_stream(resp) == STATUS_OK) {
        s = pass_on(&c, resp, spec->deadline_ns);
        if (s != STATUS_OK && !http_resp_is_gone(resp)) {
            http_resp_abort(resp);
            log_warn("forward", "an answer broke off after a part of it was sent on",
                     LOG_STR("upstream", u->name), LOG_STR("status", status_name(s)),
                     LOG_STR("error", c.is_done ? c.err.message : ""));
        }
    }
    forward_end(&c);
    return STATUS_OK;
}
