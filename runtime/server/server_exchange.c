/* One request: h2o's struct is copied, a fiber runs the handler, the answer goes back if somebody is still
 * there.
 *
 *   on_request --refused--> send_refusal
 *       | copied
 *       v
 *   exchange_run (fiber): handler() -> exchange_answer --parts--> h2o
 *                                          |                       | request gone: answered or vanished
 *                                          v                       v
 *                                     is_running = false      link = NULL      both: exchange_settle ->
 * reused */
#include "server/server_impl.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/memory.h"
#include "fiber/fiber_impl.h"
#include "log/log.h"

static void on_proceed(h2o_generator_t *generator, h2o_req_t *req);

/* ---- life ---- */

static struct server_exchange *exchange_take(struct server *s)
{
    struct list *node = list_pop_front(&s->idle_exchanges);
    struct server_exchange *x;
    if (node != NULL) {
        x = container_of(node, struct server_exchange, node);
        s->n_idle--;
    } else {
        x = mem_zalloc(1, sizeof(*x));
        arena_init(&x->arena);
    }
    x->server = s;
    list_push_back(&s->exchanges, &x->node);
    return x;
}

static void exchange_free(struct server_exchange *x)
{
    arena_release(&x->arena);
    free(x);
}

void exchange_free_idle(struct server *s)
{
    struct list *node;
    while ((node = list_pop_front(&s->idle_exchanges)) != NULL)
        exchange_free(container_of(node, struct server_exchange, node));
    s->n_idle = 0;
}

/* The only end: when both the fiber and the request are through with it. */
static void exchange_settle(struct server_exchange *x)
{
    struct server *s = x->server;
    if (x->is_running || x->link != NULL) return;
    list_remove(&x->node);
    s->held_bytes -= x->held_bytes;
    x->conn->exchanges--;
    conn_settle(x->conn);
    x->conn = NULL;
    if (s->n_idle < SERVER_IDLE_EXCHANGES_MAX) {
        arena_reset(&x->arena);
        list_push_front(&s->idle_exchanges, &x->node); /* its memory is warm */
        s->n_idle++;
    } else {
        exchange_free(x);
    }
    server_notice_quiet(s);
}

/* h2o clears the request's memory: the answer is out, or the client has left. */
static void on_request_gone(void *link_ptr)
{
    struct server_link *link = link_ptr;
    struct server_exchange *x = link->exchange;
    struct server_conn *c = x->conn;
    x->link = NULL;
    if (--c->requests == 0) conn_rest(c);
    if (x->is_running) {
        stream_gone(x);
        if (c->is_http2 && ++c->resets > SERVER_H2_RESETS_MAX + c->answers) conn_cut(c);
    } else {
        c->answers++;
    }
    if (c->server->is_draining) conn_close_if_idle(c);
    exchange_settle(x);
}

/* ---- in ---- */

static struct strview put_text(char **at, const char *text, size_t len)
{
    struct strview copy = {*at, len};
    if (len > 0) memcpy(*at, text, len);
    (*at)[len] = '\0';
    *at += len + 1;
    return copy;
}

static void copy_headers(struct server_exchange *x, const h2o_req_t *req, char **at)
{
    struct http_header *headers = arena_alloc(&x->arena, req->headers.size * sizeof(*headers));
    for (size_t i = 0; i < req->headers.size; i++) {
        const h2o_header_t *h = &req->headers.entries[i];
        headers[i].name = put_text(at, h->name->base, h->name->len);
        headers[i].value = put_text(at, h->value.base, h->value.len);
    }
    x->req.headers = headers;
    x->req.n_headers = req->headers.size;
}

static void copy_request(struct server_exchange *x, const h2o_req_t *req)
{
    h2o_iovec_t authority = req->authority;
    if (authority.base == req->hostconf->authority.hostport.base)
        authority.len = 0; /* h2o's default for a missing one */
    size_t bytes = req->method.len + req->path.len + authority.len + 3;
    for (size_t i = 0; i < req->headers.size; i++)
        bytes += req->headers.entries[i].name->len + req->headers.entries[i].value.len + 2;

    char *at = arena_alloc(&x->arena, bytes);
    x->req.method = put_text(&at, req->method.base, req->method.len);
    x->req.target = put_text(&at, req->path.base, req->path.len);
    x->req.authority = put_text(&at, authority.base, authority.len);
    size_t mark = sv_find(x->req.target, '?');
    x->req.path = sv_sub(x->req.target, 0, mark);
    x->req.query =
        mark < x->req.target.len ? sv_sub(x->req.target, mark + 1, x->req.target.len) : (struct strview){0};
    copy_headers(x, req, &at);
    char *body = arena_alloc(&x->arena, req->entity.len + 1);
    x->req.body = put_text(&body, req->entity.base, req->entity.len);
    x->req.peer = (struct strview){x->conn->peer_text, x->conn->peer_text_len};
    x->req.arena = &x->arena;
    x->req.received_unix_ns = clock_unix_ns();
    x->req.received_ns = clock_monotonic_ns();
    x->req.is_http2 = x->conn->is_http2;
}

static void exchange_answer(struct server_exchange *x);

static void exchange_run(void *arg)
{
    struct server_exchange *x = arg;
    x->server->cfg.handler(x->server->cfg.arg, &x->req, &x->resp);
    x->server->inflight--;
    exchange_answer(x);
}

static void exchange_prepare(struct server_exchange *x, struct server_conn *c)
{
    x->conn = c;
    c->exchanges++;
    x->generator = (h2o_generator_t){.proceed = on_proceed};
    x->sent_bytes = 0;
    x->held_bytes = 0;
    x->resp.status = 200;
    x->resp.n_headers = 0;
    x->resp.body = (struct strview){0};
    x->resp.stream = NULL;
    x->resp.exchange = x;
    stream_init(&x->stream);
    x->is_running = false;
    x->link = NULL;
}

/* Run the handler up to its first wait now, from h2o's callback, rather than in a later round: all requests
 * of a turn then use one warm stack instead of one each (measured: a tenth more requests a second). Only
 * where it is the one ready fiber, so that no other code runs inside this callback, and not from a fiber's
 * stack, where h2o may find the next pipelined request. */
static bool can_run_now(const struct server_conn *c)
{
    if (fiber_current() != NULL || fiber_scheduler_has_ready(fiber_scheduler_current())) return false;
    if (c->requests_in_turn == 1) return true;
    return c->requests_in_turn <= SERVER_REQUESTS_A_TURN && !loop_turn_is_long(c->server->loop);
}

/* h2o goes on with a pipelined request as soon as the last one is answered, before it looks at any other
 * connection: thousands in one write would keep all others waiting. Its clock stands still in a turn. */
static void count_in_turn(struct server_conn *c)
{
    uint64_t turn_ms = h2o_now(loop_h2o(c->server->loop));
    if (c->turn_ms != turn_ms) c->requests_in_turn = 0;
    c->turn_ms = turn_ms;
    c->requests_in_turn++;
}

/* Small ones are bounded by the number of connections, and are served however short room is. */
static bool is_large(size_t bytes)
{
    return bytes > SERVER_SMALL_BYTES;
}

/* From now on, until the exchange ends. */
static void exchange_hold(struct server_exchange *x, size_t bytes)
{
    if (!is_large(bytes)) return;
    server_limit_memory(x->server);
    x->held_bytes += bytes;
    x->server->held_bytes += bytes;
}

/* One alone is always taken: the largest body that may be is a setting of its own. */
static bool has_room_for(struct server *s, const h2o_req_t *req)
{
    size_t bytes = req->entity.len;
    if (!is_large(bytes) || s->held_bytes == 0 || s->held_bytes + bytes <= s->held_max_bytes) return true;
    (void)server_sweep_answers(s, bytes); /* room for those that come later */
    return false;
}

static enum status exchange_start(struct server *s, struct server_conn *c, h2o_req_t *req, struct error *err)
{
    bool runs_now = can_run_now(c);
    struct server_exchange *x = exchange_take(s);
    exchange_prepare(x, c);
    enum status st = fiber_scope_spawn(&s->scope, exchange_run, x, err);
    if (st != STATUS_OK) {
        exchange_settle(x);
        return st;
    }
    copy_request(x, req);
    exchange_hold(x, req->entity.len);
    x->link = h2o_mem_alloc_shared(&req->pool, sizeof(*x->link), on_request_gone);
    *x->link = (struct server_link){req, x};
    x->is_running = true;
    c->requests++;
    s->inflight++;
    conn_watch(c);
    if (runs_now) fiber_scheduler_run_ready(fiber_scheduler_current()); /* x may be gone afterwards */
    return STATUS_OK;
}

/* {"error":"…"} as http_resp_error() writes it; closes an HTTP/1 connection where the framing cannot be
 * trusted. */
static void send_refusal(h2o_req_t *req, int status, const char *why, bool is_closing)
{
    struct buf text;
    buf_init(&text, 16 * ERROR_MESSAGE_MAX);
    buf_append(&text, SV("{\"error\":"));
    buf_append_json_string(&text, sv(why));
    buf_append(&text, SV("}\n"));
    if (is_closing) req->http1_is_persistent = 0;
    req->res.status = status;
    req->res.reason = http_reason(status);
    req->res.content_length = text.len;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
                   H2O_STRLIT("application/json"));
    if (status == 503)
        h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("retry-after"), 1, NULL,
                              H2O_STRLIT("1"));
    h2o_send_inline(req, text.ptr, text.len); /* copies */
    buf_release(&text);
}

int on_request(h2o_handler_t *handler, h2o_req_t *req)
{
    struct server *s = ((struct server_handler *)(void *)handler)->server;
    struct server_conn *c = conn_of(req);
    c->is_http2 = req->version >= 0x200;
    count_in_turn(c);
    if (c->is_http2 && !http2_admit(c, req)) return 0; /* gone with its connection */
    const char *why = NULL;
    int status = request_check(req, &why);
    if (status != 0) {
        send_refusal(req, status, why, true);
        /* HPACK makes megabytes of such a head, and h2o keeps them for as long as the client's window is
         * shut. */
        if (c->is_http2 && status == 431) conn_cut(c);
        return 0;
    }
    if (!has_room_for(s, req)) {
        send_refusal(req, 503, "too many large requests are under way", false);
        return 0;
    }
    if (c->is_http2 && c->exchanges >= SERVER_H2_EXCHANGES_MAX) {
        send_refusal(req, 503, "this connection has too many requests under way", false);
        return 0;
    }
    struct error err;
    if (exchange_start(s, c, req, &err) != STATUS_OK) send_refusal(req, 503, err.message, s->is_draining);
    return 0;
}

/* ---- out ---- */

/* What h2o writes itself, or what describes this hop alone. */
static bool is_framing_header(struct strview name)
{
    switch (name.len) {
    case 4:
        return memcmp(name.ptr, "date", 4) == 0;
    case 7:
        return memcmp(name.ptr, "upgrade", 7) == 0;
    case 10:
        return memcmp(name.ptr, "connection", 10) == 0 || memcmp(name.ptr, "keep-alive", 10) == 0;
    case 14:
        return memcmp(name.ptr, "content-length", 14) == 0;
    case 17:
        return memcmp(name.ptr, "transfer-encoding", 17) == 0;
    default:
        return false;
    }
}

void exchange_send_head(struct server_exchange *x, h2o_req_t *req)
{
    struct http_resp *resp = &x->resp;
    if (resp->status < 200 || resp->status > 599) {
        log_error("server", "a handler answered with an impossible status", LOG_INT("status", resp->status));
        resp->status = 500;
    }
    req->res.status = resp->status;
    req->res.reason = http_reason(resp->status);
    for (size_t i = 0; i < resp->n_headers; i++) {
        struct http_header *h = &resp->headers[i];
        if (!is_framing_header(h->name)) {
            h2o_add_header_by_str(&req->pool, &req->res.headers, h->name.ptr, h->name.len, 1, NULL,
                                  h->value.ptr, h->value.len);
        } else if (sv_eq(h->name, SV("connection")) && sv_eq_nocase(h->value, SV("close"))) {
            req->http1_is_persistent = 0;
        }
    }
    if (x->server->is_draining) req->http1_is_persistent = 0;
    x->progress_ns = loop_now_ns(x->server->loop);
}

/* Large bodies go in parts, so that a client that reads slowly can be told from one that does not read. After
 * the final part nothing of req may be touched. */
static void send_part(struct server_exchange *x, h2o_req_t *req)
{
    struct strview part = sv_sub(x->resp.body, x->sent_bytes, x->sent_bytes + SERVER_PART_BYTES);
    h2o_iovec_t bytes = h2o_iovec_init(part.ptr, part.len);
    x->sent_bytes += part.len;
    x->progress_ns = loop_now_ns(x->server->loop);
    h2o_send(req, &bytes, part.len > 0 ? 1 : 0,
             x->sent_bytes == x->resp.body.len ? H2O_SEND_STATE_FINAL : H2O_SEND_STATE_IN_PROGRESS);
}

static void on_proceed(h2o_generator_t *generator, h2o_req_t *req)
{
    struct server_exchange *x = container_of(generator, struct server_exchange, generator);
    if (x->resp.stream != NULL)
        stream_proceed(x, req);
    else
        send_part(x, req);
}

/* The answer to HEAD tells the length that GET's body would have: the handler's content-length, or that of
 * its body. */
static size_t announced_bytes(const struct server_exchange *x)
{
    uint64_t bytes;
    struct strview length = http_header_get(x->resp.headers, x->resp.n_headers, SV("content-length"));
    bool is_head = sv_eq(x->req.method, SV("HEAD"));
    return is_head && length.len > 0 && sv_parse_u64(length, &bytes) == STATUS_OK ? bytes : x->resp.body.len;
}

static void send_whole(struct server_exchange *x, h2o_req_t *req)
{
    conn_unwatch(x->conn);
    exchange_send_head(x, req);
    bool has_no_body = x->resp.status == 204 || x->resp.status == 304;
    if (!has_no_body) req->res.content_length = announced_bytes(x);
    if (has_no_body || sv_eq(x->req.method, SV("HEAD"))) x->resp.body.len = 0;
    h2o_start_response(req, &x->generator);
    send_part(x, req);
}

/* Answers that nobody takes give way; if that is not enough, this one does. It is cut and not replaced by a
 * 503, which its caller would take for a request that was not served. */
static void hold_answer(struct server_exchange *x)
{
    struct server *s = x->server;
    exchange_hold(x, x->resp.body.len);
    if (!is_large(x->resp.body.len) || s->held_bytes <= s->held_max_bytes || s->held_bytes == x->held_bytes)
        return;
    if (!server_sweep_answers(s, 0)) conn_abort(x->conn);
}

/* The handler has returned. Sending may end the request at once, and that settles the exchange. */
static void exchange_answer(struct server_exchange *x)
{
    x->is_running = false;
    if (x->link == NULL) {
        exchange_settle(x);
    } else if (x->resp.stream != NULL) {
        stream_end(x, x->link->req);
    } else {
        hold_answer(x);
        send_whole(x, x->link->req);
    }
}

/* ---- h2o's own refusals ---- */

struct refusal_stream {
    h2o_ostream_t super;
    h2o_iovec_t text;
};

static void on_refusal_send(h2o_ostream_t *self, h2o_req_t *req, h2o_iovec_t *bufs, size_t n_bufs,
                            h2o_send_state_t state)
{
    struct refusal_stream *r = (struct refusal_stream *)(void *)self;
    (void)bufs;
    h2o_ostream_send_next(self, req, &r->text, n_bufs > 0 ? 1 : 0, state); /* no body to HEAD */
}

void on_answer_setup(h2o_filter_t *filter, h2o_req_t *req, h2o_ostream_t **slot)
{
    struct server *s = ((struct server_filter *)(void *)filter)->server;
    bool is_ours =
        req->res.status != 413 || (req->_generator != NULL && req->_generator->proceed == on_proceed);
    if (!is_ours) {
        struct refusal_stream *r = (struct refusal_stream *)(void *)h2o_add_ostream(req, sizeof(*r), slot);
        r->super.do_send = on_refusal_send;
        slot = &r->super.next;
        char *text = h2o_mem_alloc_pool(&req->pool, 128);
        int len =
            snprintf(text, 128, "{\"error\":\"the request body is larger than the limit of %zu bytes\"}\n",
                     s->config.max_request_entity_size);
        r->text = h2o_iovec_init(text, (size_t)len);
        req->res.content_length = (size_t)len;
        req->res.reason = http_reason(413);
        req->res.headers = (h2o_headers_t){NULL, 0, 0};
        h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
                       H2O_STRLIT("application/json"));
        if (req->version < 0x200) conn_linger(conn_of(req));
    }
    h2o_setup_next_ostream(req, slot);
}
