/* What goes out: HEADERS, DATA, trailers, or a single HEADERS frame where the status is all there is. */
#include <string.h>

#include "grpc/grpc_impl.h"

#define NV(n, v)                                                                                             \
    {                                                                                                        \
        (uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, sizeof(v) - 1,                                        \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                                     \
    }

static nghttp2_nv text_of(const char *name, struct strview value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value.ptr, strlen(name), value.len,
                        NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

struct trailers {
    nghttp2_nv nv[2];
    size_t n;
    char digits[SV_U64_MAX];
    struct buf message;
};

static void trailers_init(struct trailers *t, const struct grpc_call *call)
{
    t->n = 0;
    buf_init(&t->message, GRPC_MESSAGE_TEXT_MAX);
    t->nv[t->n++] = text_of("grpc-status", sv_u64((uint64_t)call->status, t->digits));
    if (call->status == STATUS_OK || call->message[0] == '\0') return;
    grpc_message_escape(sv(call->message), &t->message);
    t->nv[t->n++] = text_of("grpc-message", buf_view(&t->message));
}

static void note_output(struct grpc_call *call)
{
    call->session->wants_output(call->session->arg);
}

/* ---- the parts of an answer ---- */

static void submit_trailers(nghttp2_session *h2, const struct grpc_call *call)
{
    struct trailers t;
    trailers_init(&t, call);
    (void)nghttp2_submit_trailer(h2, call->stream_id, t.nv, t.n);
    buf_release(&t.message);
}

/* nghttp2 asks for as much as both windows allow. */
static ssize_t on_read(nghttp2_session *h2, int32_t stream_id, uint8_t *to, size_t len, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    (void)stream_id, (void)arg;
    struct grpc_call *call = source->ptr;
    size_t left = call->out.len - call->out_offset, n = left < len ? left : len;
    if (n > 0) {
        memcpy(to, call->out.ptr + call->out_offset, n);
        call->out_offset += n;
        call->progress_ns = loop_now_ns(call->server->loop);
    }
    if (n == left) {
        buf_reset(&call->out);
        call->out_offset = 0;
        fiber_event_set(&call->drained);
    }
    if (n == left && call->is_answered) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailers(h2, call);
        return (ssize_t)n;
    }
    call->is_deferred = n == 0;
    return n > 0 ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
}

static void submit_head(struct grpc_call *call)
{
    static const nghttp2_nv head[] = {NV(":status", "200"), NV("content-type", "application/grpc")};
    nghttp2_data_provider source;
    source.source.ptr = call;
    source.read_callback = on_read;
    (void)nghttp2_submit_response(call->session->h2, call->stream_id, head, ARRAY_LEN(head), &source);
    call->is_head_sent = true;
}

static void submit_trailers_only(struct grpc_call *call)
{
    struct trailers t;
    trailers_init(&t, call);
    const nghttp2_nv nv[] = {NV(":status", "200"), NV("content-type", "application/grpc"),
                             NV("grpc-accept-encoding", "identity"), t.nv[0], t.nv[1]};
    (void)nghttp2_submit_response(call->session->h2, call->stream_id, nv, 3 + t.n, NULL);
    buf_release(&t.message);
}

static void go_on(struct grpc_call *call)
{
    if (!call->is_head_sent)
        submit_head(call);
    else if (call->is_deferred)
        (void)nghttp2_session_resume_data(call->session->h2, call->stream_id);
    call->is_deferred = false;
    note_output(call);
}

/* ---- an answer ---- */

void answer_http(struct grpc_call *call, const char *http_status)
{
    const nghttp2_nv nv = text_of(":status", sv(http_status));
    call->is_answered = true;
    (void)nghttp2_submit_response(call->session->h2, call->stream_id, &nv, 1, NULL);
    call_drop_request(call);
    note_output(call);
}

void answer_message(struct grpc_call *call, struct strview message)
{
    const uint32_t len = (uint32_t)message.len;
    const char prefix[GRPC_PREFIX_BYTES] = {0, (char)(len >> 24), (char)(len >> 16), (char)(len >> 8),
                                            (char)len};
    if (call->out.len == 0) call->progress_ns = loop_now_ns(call->server->loop);
    buf_append(&call->out, sv_n(prefix, sizeof(prefix)));
    buf_append(&call->out, message);
    fiber_event_reset(&call->drained);
    call->n_sent++;
    go_on(call);
}

void answer_status(struct grpc_call *call, enum status status, const char *message)
{
    if (call->session == NULL || call->is_answered) return;
    call->is_answered = true;
    call->status = status;
    size_t len = message != NULL ? strnlen(message, sizeof(call->message) - 1) : 0;
    if (len > 0) memcpy(call->message, message, len);
    call->message[len] = '\0';
    fiber_event_set(&call->arrived); /* whoever waits for more does so in vain */
    fiber_event_set(&call->drained);
    if (!call->is_running) call_drop_request(call);
    if (call->is_head_sent) {
        go_on(call);
        return;
    }
    submit_trailers_only(call);
    note_output(call);
}

void answer_reset(struct grpc_call *call, uint32_t http2_code)
{
    call->is_answered = call->is_reset = true;
    (void)nghttp2_submit_rst_stream(call->session->h2, NGHTTP2_FLAG_NONE, call->stream_id, http2_code);
    note_output(call);
}

/* ---- bytes out ---- */

enum status session_take_output(struct grpc_session *ss, struct buf *out, size_t max)
{
    const uint8_t *bytes;
    ssize_t n = 0;
    while (out->len < max && (n = nghttp2_session_mem_send(ss->h2, &bytes)) > 0)
        buf_append(out, sv_n((const char *)bytes, (size_t)n));
    return n < 0 || buf_status(out) != STATUS_OK ? STATUS_INTERNAL : STATUS_OK;
}
