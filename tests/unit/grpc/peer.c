#include "peer.h"

#include <stdlib.h>

#include "base/memory.h"

#define BODY_MAX  ((size_t)8 * 1024 * 1024)
#define FRAME_MAX ((size_t)4 * 1024 * 1024)

static struct peer *the_peer; /* of the handlers: one a test process */

/* ---- the service ---- */

static enum status echo(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    struct strview message;
    enum status s = grpc_receive(call, &message, err);
    return s == STATUS_OK ? grpc_send(call, message, err) : s;
}

static enum status fail(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    struct strview message;
    enum status s = grpc_receive(call, &message, err);
    return s == STATUS_OK ? error_set(err, STATUS_NOT_FOUND, "%.*s", SV_ARG(message)) : s;
}

static enum status mute(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg, (void)call, (void)err;
    return STATUS_OK;
}

static enum status wait(void *arg, struct grpc_call *call, struct error *err)
{
    struct peer *p = arg;
    p->ended = fiber_event_wait(&p->go, 0);
    p->n_ended++;
    if (p->ended == STATUS_OK) p->ended = grpc_send(call, (struct strview){0}, err);
    return p->ended;
}

static enum status sleep_for_ever(void *arg, struct grpc_call *call, struct error *err)
{
    struct peer *p = arg;
    (void)call;
    p->ended = sleep_ms(3600 * 1000);
    p->n_ended++;
    return error_set(err, p->ended, "woken");
}

static enum status count(void *arg, struct grpc_call *call, struct error *err)
{
    struct peer *p = arg;
    struct strview message;
    enum status s = grpc_receive(call, &message, err);
    for (size_t i = 0; s == STATUS_OK && i < message.len; i++)
        s = grpc_send(call, message, err);
    p->ended = s;
    p->n_ended++;
    return s;
}

static void on_gone(void *arg)
{
    struct peer *p = arg;
    p->gone++;
    p->watched = NULL;
}

static enum status watch(void *arg, struct grpc_call *call, struct error *err)
{
    struct peer *p = arg;
    struct strview message;
    enum status s = grpc_receive(call, &message, err);
    if (s != STATUS_OK) return s;
    grpc_call_detach(call, on_gone, p);
    p->watched = call;
    if (p->detach_first) (void)!fiber_event_wait(&p->go, 0);
    p->n_ended++;
    return STATUS_OK;
}

static enum status talk(void *arg, struct grpc_call *call, struct error *err)
{
    struct peer *p = arg;
    struct strview message;
    enum status s;
    while ((s = grpc_receive(call, &message, err)) == STATUS_OK)
        if ((s = grpc_send(call, message, err)) != STATUS_OK) break;
    p->ended = s;
    p->n_ended++;
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

static enum status take(void *arg, struct grpc_call *call, struct error *err)
{
    struct peer *p = arg;
    struct strview message;
    enum status s = STATUS_OK;
    while (s == STATUS_OK) {
        s = fiber_event_wait(&p->go, 0);
        fiber_event_reset(&p->go);
        if (s == STATUS_OK) s = grpc_receive(call, &message, err);
        if (s == STATUS_OK) p->taken++;
    }
    p->ended = s;
    p->n_ended++;
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

static const struct grpc_method methods[] = {
    {ECHO, GRPC_UNARY, echo},
    {FAIL, GRPC_UNARY, fail},
    {MUTE, GRPC_UNARY, mute},
    {WAIT, GRPC_UNARY, wait},
    {SLEEP, GRPC_UNARY, sleep_for_ever},
    {COUNT, GRPC_SERVER_STREAM, count},
    {WATCH, GRPC_SERVER_STREAM, watch},
    {TALK, GRPC_BIDI_STREAM, talk},
    {TAKE, GRPC_BIDI_STREAM, take},
};

/* ---- nghttp2's client ---- */

static void copy_value(char *to, size_t max, const uint8_t *value, size_t len)
{
    cr_assert_lt(len, max);
    memcpy(to, value, len);
    to[len] = '\0';
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t len, uint8_t flags, void *arg)
{
    (void)flags, (void)arg;
    struct reply *r = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    struct strview n = sv_n((const char *)name, name_len);
    char digits[16];
    if (r == NULL) return 0;
    if (sv_eq(n, SV(":status"))) copy_value(r->http_status, sizeof(r->http_status), value, len);
    if (sv_eq(n, SV("content-type"))) copy_value(r->content_type, sizeof(r->content_type), value, len);
    if (sv_eq(n, SV("grpc-message"))) copy_value(r->grpc_message, sizeof(r->grpc_message), value, len);
    if (sv_eq(n, SV("grpc-accept-encoding")))
        copy_value(r->accept_encoding, sizeof(r->accept_encoding), value, len);
    if (!sv_eq(n, SV("grpc-status"))) return 0;
    copy_value(digits, sizeof(digits), value, len);
    r->grpc_status = (int)strtol(digits, NULL, 10);
    return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct peer *p = arg;
    struct reply *r = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) p->n_settings++;
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK)) p->n_ping_acks++;
    if (frame->hd.type == NGHTTP2_PING && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) p->n_pings++;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        cr_assert_lt(p->n_goaways, ARRAY_LEN(p->goaway_last));
        p->goaway_last[p->n_goaways++] = frame->goaway.last_stream_id;
        p->goaway_code = frame->goaway.error_code;
    }
    if (r == NULL) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS) r->n_heads++;
    if (frame->hd.type == NGHTTP2_DATA) r->n_data++;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        r->was_reset = true;
        r->code = frame->rst_stream.error_code;
    }
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t len,
                   void *arg)
{
    (void)flags, (void)arg;
    struct reply *r = nghttp2_session_get_stream_user_data(h2, stream_id);
    cr_assert_lt(r->body_len + len, BODY_MAX);
    r->body = realloc(r->body, r->body_len + len);
    memcpy(r->body + r->body_len, bytes, len);
    r->body_len += len;
    return 0;
}

static int on_closed(nghttp2_session *h2, int32_t stream_id, uint32_t code, void *arg)
{
    (void)arg, (void)code;
    struct reply *r = nghttp2_session_get_stream_user_data(h2, stream_id);
    if (r != NULL) r->is_closed = true;
    return 0;
}

static void client_new(struct peer *p, uint32_t window)
{
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_closed);
    nghttp2_option *option;
    nghttp2_option_new(&option);
    if (window == NO_WINDOW) nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_session_client_new2(&p->h2, cb, p, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window == NO_WINDOW ? 0 : window}};
    nghttp2_submit_settings(p->h2, NGHTTP2_FLAG_NONE, settings, window > 0 ? 1 : 0);
}

/* ---- bytes ---- */

static bool receive(struct peer *p, const uint8_t *bytes, size_t len)
{
    size_t piece = p->piece > 0 ? p->piece : len;
    for (size_t at = 0; at < len && !p->is_broken; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        p->is_broken = session_receive(&p->session, bytes + at, n) != STATUS_OK;
    }
    return len > 0;
}

static bool to_server(struct peer *p)
{
    const uint8_t *bytes;
    bool has_moved = false;
    for (ssize_t n; (n = nghttp2_session_mem_send(p->h2, &bytes)) > 0;)
        has_moved |= receive(p, bytes, (size_t)n);
    has_moved |= receive(p, (const uint8_t *)p->by_hand.ptr, p->by_hand.len);
    buf_reset(&p->by_hand);
    return has_moved;
}

static bool to_client(struct peer *p)
{
    struct buf out;
    buf_init(&out, BODY_MAX);
    cr_assert_eq(session_take_output(&p->session, &out, BODY_MAX / 2), STATUS_OK);
    ssize_t n = nghttp2_session_mem_recv(p->h2, (const uint8_t *)out.ptr, out.len);
    cr_assert_eq(n, (ssize_t)out.len, "what the server says is no HTTP/2: %s",
                 n < 0 ? nghttp2_strerror((int)n) : "");
    bool has_moved = out.len > 0;
    buf_release(&out);
    return has_moved;
}

void settle(struct peer *p)
{
    for (unsigned silent = 0; silent < 3;) {
        bool has_moved = to_server(p);
        (void)!fiber_yield();
        has_moved |= to_client(p);
        silent = has_moved ? 0 : silent + 1;
    }
}

void put_frame(struct peer *p, uint8_t type, uint8_t flags, int32_t stream_id, struct strview payload)
{
    const uint8_t head[] = {(uint8_t)(payload.len >> 16),
                            (uint8_t)(payload.len >> 8),
                            (uint8_t)payload.len,
                            type,
                            flags,
                            (uint8_t)((uint32_t)stream_id >> 24),
                            (uint8_t)((uint32_t)stream_id >> 16),
                            (uint8_t)((uint32_t)stream_id >> 8),
                            (uint8_t)stream_id};
    buf_append(&p->by_hand, sv_n((const char *)head, sizeof(head)));
    buf_append(&p->by_hand, payload);
}

/* ---- requests ---- */

struct body {
    const char *bytes;
    size_t len, at;
    bool stays_open;
};

static ssize_t on_read(nghttp2_session *h2, int32_t stream_id, uint8_t *to, size_t len, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    (void)h2, (void)stream_id, (void)arg;
    struct body *b = source->ptr;
    size_t left = b->len - b->at, n = left < len ? left : len;
    memcpy(to, b->bytes + b->at, n);
    b->at += n;
    if (n == left && !b->stays_open) *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (n == 0 && b->stays_open) return NGHTTP2_ERR_DEFERRED;
    return (ssize_t)n;
}

static const char *value_of(const char *const *headers, const char *name, const char *usual)
{
    for (; headers != NULL && *headers != NULL; headers += 2)
        if (strcmp(headers[0], name) == 0) return headers[1];
    return usual;
}

static void add(nghttp2_nv *nv, size_t *n, const char *name, const char *value)
{
    if (*value == '\0') return;
    nv[(*n)++] = (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), 0};
}

static size_t head_of(nghttp2_nv *nv, const char *path, const char *const *headers)
{
    static const char *const usual[][2] = {{":method", "POST"},
                                           {":scheme", "http"},
                                           {":authority", "balm:9091"},
                                           {"content-type", "application/grpc"},
                                           {"user-agent", "grpc-go/1.84.0"},
                                           {"te", "trailers"}};
    size_t n = 0;
    add(nv, &n, ":path", path);
    for (size_t i = 0; i < ARRAY_LEN(usual); i++)
        add(nv, &n, usual[i][0], value_of(headers, usual[i][0], usual[i][1]));
    for (; headers != NULL && *headers != NULL; headers += 2) {
        bool is_usual = false;
        for (size_t i = 0; i < ARRAY_LEN(usual); i++)
            is_usual |= strcmp(usual[i][0], headers[0]) == 0;
        if (!is_usual) add(nv, &n, headers[0], headers[1]);
    }
    return n;
}

static struct reply *submit(struct peer *p, const char *path, const void *body, size_t len, bool stays_open,
                            const char *const *headers)
{
    nghttp2_nv nv[512];
    size_t n = head_of(nv, path, headers);
    struct reply *r = mem_zalloc(1, sizeof(*r) + sizeof(struct body));
    struct body *b = (struct body *)(r + 1);
    *b = (struct body){.bytes = body, .len = len, .stays_open = stays_open};
    r->grpc_status = -1;
    list_push_back(&p->replies, &r->node);
    nghttp2_data_provider source = {.source = {.ptr = b}, .read_callback = on_read};
    r->stream_id = nghttp2_submit_request(p->h2, NULL, nv, n, body != NULL ? &source : NULL, r);
    cr_assert_gt(r->stream_id, 0, "%s", nghttp2_strerror(r->stream_id));
    settle(p);
    return r;
}

struct reply *ask_with(struct peer *p, const char *path, const void *body, size_t len,
                       const char *const *headers)
{
    return submit(p, path, body, len, false, headers);
}

struct reply *ask(struct peer *p, const char *path, const void *body, size_t len)
{
    return submit(p, path, body, len, false, NULL);
}

struct reply *begin(struct peer *p, const char *path, const void *body, size_t len)
{
    return submit(p, path, body, len, true, NULL);
}

struct strview framed(struct strview message)
{
    static char *bytes;
    if (bytes == NULL) bytes = mem_alloc(FRAME_MAX);
    cr_assert_lt(message.len, FRAME_MAX - GRPC_PREFIX_BYTES);
    const char prefix[] = {0, (char)(message.len >> 24), (char)(message.len >> 16), (char)(message.len >> 8),
                           (char)message.len};
    memcpy(bytes, prefix, sizeof(prefix));
    if (message.len > 0) memcpy(bytes + sizeof(prefix), message.ptr, message.len);
    return sv_n(bytes, sizeof(prefix) + message.len);
}

bool message_of(const struct reply *r, size_t n, struct strview *ret_message)
{
    for (size_t at = 0; at + GRPC_PREFIX_BYTES <= r->body_len; n--) {
        const uint8_t *b = (const uint8_t *)r->body + at;
        size_t len = (size_t)b[1] << 24 | (size_t)b[2] << 16 | (size_t)b[3] << 8 | b[4];
        cr_assert_eq(b[0], 0);
        if (at + GRPC_PREFIX_BYTES + len > r->body_len) return false;
        *ret_message = sv_n((const char *)b + GRPC_PREFIX_BYTES, len);
        if (n == 0) return true;
        at += GRPC_PREFIX_BYTES + len;
    }
    return false;
}

size_t n_messages(const struct reply *r)
{
    size_t n = 0;
    for (struct strview message; message_of(r, n, &message);)
        n++;
    return n;
}

/* ---- the scene ---- */

struct scene {
    const struct grpc_cfg *cfg;
    uint32_t window;
    script_fn *script;
    struct peer peer;
};

static void wants_output(void *arg)
{
    (void)arg;
}

static void peer_end(struct peer *p)
{
    session_release(&p->session);
    nghttp2_session_del(p->h2);
    buf_release(&p->by_hand);
    fiber_event_set(&p->go);
    for (struct list *node; (node = list_pop_front(&p->replies)) != NULL;) {
        struct reply *r = container_of(node, struct reply, node);
        free(r->body);
        free(r);
    }
    grpc_server_free(p->server);
}

static void run_script(void *arg)
{
    struct scene *scene = arg;
    struct peer *p = the_peer = &scene->peer;
    const struct grpc_service service = {
        .name = "test.Service", .methods = methods, .n_methods = ARRAY_LEN(methods), .arg = p};
    const struct grpc_service *const services[] = {&service};
    struct grpc_cfg cfg = *scene->cfg;
    struct error err;
    cfg.host = "127.0.0.1";
    cfg.listen_fd = -1;
    cfg.services = services;
    cfg.n_services = 1;
    list_init(&p->replies);
    fiber_event_init(&p->go);
    buf_init(&p->by_hand, BODY_MAX);
    cr_assert_eq(grpc_server_start(p->loop, &cfg, &p->server, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(session_init(&p->session, p->server, wants_output, p), STATUS_OK);
    client_new(p, scene->window);
    settle(p);
    scene->script(p);
    peer_end(p);
}

void with_peer_of(const struct grpc_cfg *cfg, uint32_t window, script_fn *script)
{
    struct scene scene = {.cfg = cfg, .window = window, .script = script};
    struct error err;
    cr_assert_eq(loop_new(&scene.peer.loop, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(loop_run_fiber(scene.peer.loop, run_script, &scene, &err), STATUS_OK, "%s", err.message);
    loop_free(scene.peer.loop);
}

void with_peer(script_fn *script)
{
    const struct grpc_cfg cfg = {0};
    with_peer_of(&cfg, 0, script);
}
