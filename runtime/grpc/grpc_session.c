/* What comes in: HTTP/2 frames become calls and their messages. */
#include <string.h>

#include "base/memory.h"
#include "grpc/grpc_impl.h"

/* ---- a request's head ---- */

static struct strview header_of(const struct grpc_call *call, struct strview name)
{
    for (const struct list *node = call->headers.next; node != &call->headers; node = node->next) {
        const struct grpc_header *h = container_of(node, struct grpc_header, node);
        if (sv_eq(h->name, name)) return h->value;
    }
    return (struct strview){0};
}

struct strview grpc_call_metadata(const struct grpc_call *call, struct strview name)
{
    return header_of(call, name);
}

/* "application/grpc", alone or with "+proto" or parameters. */
static bool is_grpc(struct strview content_type)
{
    static const struct strview grpc = {"application/grpc", sizeof("application/grpc") - 1};
    if (content_type.len < grpc.len || !sv_eq_nocase(sv_sub(content_type, 0, grpc.len), grpc)) return false;
    return content_type.len == grpc.len || content_type.ptr[grpc.len] == '+' ||
           content_type.ptr[grpc.len] == ';';
}

static bool is_identity(struct strview encoding)
{
    return encoding.len == 0 || sv_eq(encoding, SV("identity"));
}

/* Without "grpc-timeout" a unary call has the server's own, and a stream none. */
static enum status set_deadline(struct grpc_call *call)
{
    int64_t timeout_ns = GRPC_NO_TIMEOUT, most_ns = call->server->cfg.call_timeout_ns;
    struct strview text = header_of(call, SV("grpc-timeout"));
    if (text.len > 0 && grpc_timeout_parse(text, &timeout_ns) != STATUS_OK) return STATUS_INTERNAL;
    if (call->method->kind == GRPC_UNARY && timeout_ns > most_ns) timeout_ns = most_ns;
    if (timeout_ns < GRPC_NO_TIMEOUT - call->opened_ns) call->deadline_ns = call->opened_ns + timeout_ns;
    return STATUS_OK;
}

static bool answer_refusal(struct grpc_call *call, enum status status, const char *message)
{
    answer_status(call, status, message);
    return false;
}

/* Finds the method. False: it is answered already. */
static bool admit(struct grpc_call *call)
{
    const struct grpc_server *s = call->server;
    if (!sv_eq(call->http_method, SV("POST"))) {
        answer_http(call, "405");
        return false;
    }
    if (!is_grpc(header_of(call, SV("content-type")))) {
        answer_http(call, "415");
        return false;
    }
    if (s->is_draining) return answer_refusal(call, STATUS_UNAVAILABLE, "this server is going away");
    if (call->head_bytes > GRPC_HEAD_MAX_BYTES || call->n_headers == GRPC_HEADERS_MAX)
        return answer_refusal(call, STATUS_RESOURCE_EXHAUSTED, "too much metadata");
    call->method = server_find_method(s, call->path, &call->service);
    if (call->method == NULL) return answer_refusal(call, STATUS_UNIMPLEMENTED, "no such method");
    if (!server_may_call(s, call))
        return answer_refusal(call, STATUS_UNAUTHENTICATED, "a valid bearer token is needed");
    if (!is_identity(header_of(call, SV("grpc-encoding"))))
        return answer_refusal(call, STATUS_UNIMPLEMENTED, "compression is not spoken here; identity is");
    if (set_deadline(call) != STATUS_OK)
        return answer_refusal(call, STATUS_INTERNAL, "malformed grpc-timeout");
    return true;
}

/* Counts what its arena has grown by. */
static void hold(struct grpc_call *call)
{
    struct grpc_session *ss = call->session;
    size_t more = call->arena.used_bytes - call->held_bytes;
    call->held_bytes += more;
    ss->held_bytes += more;
    ss->server->held_bytes += more;
    if (call->held_bytes > GRPC_CALL_MAX_BYTES)
        answer_status(call, STATUS_RESOURCE_EXHAUSTED, "too much was sent on this stream; begin another");
    else if (ss->held_bytes > GRPC_HELD_MAX_BYTES)
        answer_status(call, STATUS_RESOURCE_EXHAUSTED, "too much of unfinished requests on this connection");
    else if (ss->server->held_bytes > GRPC_SERVER_HELD_MAX_BYTES)
        answer_status(call, STATUS_RESOURCE_EXHAUSTED, "too much of unfinished requests here");
}

static void on_head(struct grpc_call *call)
{
    call->frames.max_bytes = call->server->cfg.max_message_bytes;
    hold(call);
    if (!call->is_answered && admit(call) && call->method->kind == GRPC_BIDI_STREAM) call_start(call);
}

/* ---- its body ---- */

static void add_message(struct grpc_call *call, struct strview bytes)
{
    bool is_one = call->method->kind != GRPC_BIDI_STREAM;
    if (is_one && call->n_messages > 0) {
        answer_status(call, STATUS_INTERNAL, "a second message, where one is the request");
        return;
    }
    struct grpc_message *m = arena_zalloc(&call->arena, sizeof(*m));
    m->bytes = bytes;
    list_push_back(&call->messages, &m->node);
    call->n_messages++;
    fiber_event_set(&call->arrived);
}

static void on_body(struct grpc_call *call, struct strview bytes)
{
    struct error err;
    struct strview message;
    while (!call->is_answered) {
        enum status s = grpc_frames_next(&call->frames, &call->arena, &bytes, &message, &err);
        hold(call);
        if (s == STATUS_NOT_FOUND || call->is_answered) return;
        if (s == STATUS_OK)
            add_message(call, message);
        else
            answer_status(call, s, err.message);
    }
}

static void on_half_closed(struct grpc_call *call)
{
    call->is_half_closed = true;
    fiber_event_set(&call->arrived);
    if (call->is_answered || call->method == NULL) return;
    if (grpc_frames_is_inside(&call->frames))
        answer_status(call, STATUS_INTERNAL, "the last message is cut off");
    else if (call->method->kind != GRPC_BIDI_STREAM && call->n_messages == 0)
        answer_status(call, STATUS_INTERNAL, "no message, where one is the request");
    else if (call->method->kind != GRPC_BIDI_STREAM)
        call_start(call);
}

/* ---- nghttp2's callbacks ---- */

static struct grpc_call *call_of(nghttp2_session *h2, int32_t stream_id)
{
    return nghttp2_session_get_stream_user_data(h2, stream_id);
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct grpc_call *call = call_new(arg, frame->hd.stream_id);
    return nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, call);
}

static void add_header(struct grpc_call *call, struct strview name, struct strview value)
{
    struct grpc_header *h = arena_alloc(&call->arena, sizeof(*h) + name.len + value.len);
    char *text = (char *)(h + 1);
    memcpy(text, name.ptr, name.len);
    memcpy(text + name.len, value.ptr, value.len);
    *h = (struct grpc_header){.name = sv_n(text, name.len), .value = sv_n(text + name.len, value.len)};
    list_push_back(&call->headers, &h->node);
    call->n_headers++;
}

/* Beyond the limit only counted; trailers of a request mean nothing here. */
static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    (void)flags, (void)arg;
    struct grpc_call *call = call_of(h2, frame->hd.stream_id);
    if (call == NULL || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct strview n = sv_n((const char *)name, name_len), v = sv_n((const char *)value, value_len);
    call->head_bytes += n.len + v.len;
    if (call->head_bytes > GRPC_HEAD_MAX_BYTES || call->n_headers == GRPC_HEADERS_MAX) return 0;
    if (sv_eq(n, SV(":path")))
        call->path = arena_copy(&call->arena, v);
    else if (sv_eq(n, SV(":method")))
        call->http_method = arena_copy(&call->arena, v);
    else if (n.ptr[0] != ':')
        add_header(call, n, v);
    return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct grpc_session *ss = arg;
    ss->heard_ns = loop_now_ns(ss->server->loop);
    ss->pinged_ns = 0; /* whatever came, somebody is there */
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    struct grpc_call *call = call_of(h2, frame->hd.stream_id);
    if (call == NULL) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) on_head(call);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) on_half_closed(call);
    return 0;
}

/* The connection's window is opened again at once, that of a bidirectional stream as its messages are taken.
 */
static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t len,
                   void *arg)
{
    (void)flags, (void)arg;
    struct grpc_call *call = call_of(h2, stream_id);
    (void)nghttp2_session_consume_connection(h2, len);
    if (call == NULL) return 0;
    if (call->method != NULL && call->method->kind == GRPC_BIDI_STREAM)
        call->unconsumed_bytes += len;
    else
        (void)nghttp2_session_consume_stream(h2, stream_id, len);
    if (!call->is_answered) on_body(call, sv_n((const char *)bytes, len));
    return 0;
}

/* An answer may be out before its request is in: the rest of that is not wanted. */
static int on_frame_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    (void)arg;
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    const struct grpc_call *call = call_of(h2, frame->hd.stream_id);
    if (call != NULL && !call->is_half_closed)
        return nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_closed(nghttp2_session *h2, int32_t stream_id, uint32_t code, void *arg)
{
    (void)code, (void)arg;
    struct grpc_call *call = call_of(h2, stream_id);
    if (call != NULL) call_gone(call);
    return 0;
}

/* ---- the session ---- */

static void set_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_closed);
}

static int new_h2(struct grpc_session *ss)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int rv = nghttp2_session_callbacks_new(&callbacks);
    if (rv == 0) rv = nghttp2_option_new(&option);
    if (rv == 0) {
        set_callbacks(callbacks);
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_no_closed_streams(option, 1); /* kept for priorities, which gRPC has none of */
        rv = nghttp2_session_server_new2(&ss->h2, callbacks, ss, option);
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return rv;
}

enum status session_init(struct grpc_session *ss, struct grpc_server *server, void (*wants_output)(void *arg),
                         void *arg)
{
    *ss = (struct grpc_session){.server = server, .wants_output = wants_output, .arg = arg};
    list_init(&ss->calls);
    ss->heard_ns = loop_now_ns(server->loop);
    if (new_h2(ss) != 0) return STATUS_RESOURCE_EXHAUSTED;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server->cfg.max_streams},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GRPC_HEAD_MAX_BYTES},
    };
    int rv = nghttp2_submit_settings(ss->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
    if (rv != 0) return STATUS_RESOURCE_EXHAUSTED;
    ss->wants_output(ss->arg);
    return STATUS_OK;
}

void session_release(struct grpc_session *ss)
{
    nghttp2_session_del(ss->h2); /* calls on_stream_closed for none */
    ss->h2 = NULL;
    for (struct list *node; (node = list_pop_front(&ss->calls)) != NULL;)
        call_gone(container_of(node, struct grpc_call, node));
}

enum status session_receive(struct grpc_session *ss, const void *bytes, size_t len)
{
    ssize_t n = nghttp2_session_mem_recv(ss->h2, bytes, len);
    ss->wants_output(ss->arg);
    return n == (ssize_t)len ? STATUS_OK : STATUS_INVALID_ARGUMENT;
}

bool session_is_over(const struct grpc_session *ss)
{
    return !nghttp2_session_want_read(ss->h2) && !nghttp2_session_want_write(ss->h2);
}

/* Those that would go on for ever: only a clean end lets KEDA come back at once. */
static void end_streams(struct grpc_session *ss)
{
    struct list *next;
    for (struct list *node = ss->calls.next; node != &ss->calls; node = next) {
        next = node->next;
        struct grpc_call *call = container_of(node, struct grpc_call, node);
        bool is_endless =
            call->is_detached || (call->method != NULL && call->method->kind == GRPC_BIDI_STREAM);
        if (is_endless) answer_status(call, STATUS_OK, NULL);
    }
}

void session_drain(struct grpc_session *ss)
{
    if (ss->is_draining) return;
    ss->is_draining = true;
    (void)nghttp2_submit_shutdown_notice(ss->h2);
    ss->wants_output(ss->arg);
}

void session_drain_now(struct grpc_session *ss)
{
    if (ss->is_ending) return;
    ss->is_ending = true;
    end_streams(ss);
    (void)nghttp2_submit_goaway(ss->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(ss->h2),
                                NGHTTP2_NO_ERROR, NULL, 0);
    ss->wants_output(ss->arg);
}

/* ---- what does not move ---- */

static void sweep_call(struct grpc_call *call, int64_t now_ns)
{
    int64_t request_ns = call->server->cfg.call_timeout_ns;
    if (call->is_reset) return;
    bool is_late = !call->is_half_closed && !call->is_running && now_ns - call->opened_ns > request_ns;
    bool is_over = !call->is_running && call->deadline_ns != 0 && now_ns > call->deadline_ns;
    bool is_stuck = call->out.len > call->out_offset && now_ns - call->progress_ns > GRPC_WRITE_NS;
    if (!call->is_answered && is_late)
        answer_status(call, STATUS_DEADLINE_EXCEEDED, "the request did not come in whole");
    else if (is_over || is_stuck)
        answer_reset(call, NGHTTP2_CANCEL);
}

bool session_sweep(struct grpc_session *ss, int64_t now_ns)
{
    struct list *next;
    for (struct list *node = ss->calls.next; node != &ss->calls; node = next) {
        next = node->next;
        sweep_call(container_of(node, struct grpc_call, node), now_ns);
    }
    if (ss->pinged_ns != 0 && now_ns - ss->pinged_ns > GRPC_DEAD_NS) return false;
    if (ss->pinged_ns == 0 && ss->n_calls > 0 && now_ns - ss->heard_ns > GRPC_KEEPALIVE_NS) {
        ss->pinged_ns = now_ns;
        (void)nghttp2_submit_ping(ss->h2, NGHTTP2_FLAG_NONE, NULL);
        ss->wants_output(ss->arg);
    }
    return true;
}
